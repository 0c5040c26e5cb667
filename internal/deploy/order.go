package deploy

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/linkcheck"
	"moult.example/internal/release"
)

// The ranks of a commit in a shared target, in the order in which they become
// visible.
const (
	rankDir     = iota // directories
	rankLibrary        // libraries, those first that others need
	rankLink           // links to them, once what they lead to is there
	rankData           // what is neither
	rankProgram        // what people start
	rankMeta           // modes of directories
	rankRemove         // what is no longer there
	rankRmdir
)

type ranked struct {
	op    op
	rank  int
	depth int // libraries: how many others stand between it and one that needs none
}

// order sorts the operations of a commit. It reads the new files' headers,
// which is why it comes before the journal.
func (s *state) order(ops []op) {
	all := make([]ranked, len(ops))
	libs := map[string]linkcheck.Info{} // by soname and by file name
	infos := make([]linkcheck.Info, len(ops))
	for i, o := range ops {
		all[i] = ranked{op: o, rank: s.rank(o, &infos[i])}
		if all[i].rank == rankLibrary {
			libs[filepath.Base(string(o.Path))] = infos[i]
			if name := infos[i].Soname; name != "" {
				libs[name] = infos[i]
			}
		}
	}
	for i := range all {
		if all[i].rank == rankLibrary {
			all[i].depth = needDepth(infos[i], libs, 0)
		}
	}
	slices.SortStableFunc(all, func(a, b ranked) int {
		if c := cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.depth, b.depth)); c != 0 {
			return c
		}
		if a.rank == rankRmdir {
			return cmp.Compare(b.op.Path, a.op.Path) // children first
		}
		return cmp.Compare(a.op.Path, b.op.Path)
	})
	for i := range all {
		ops[i] = all[i].op
	}
}

// needDepth is how long the longest chain of needed libraries below this one
// is, among those that change.
func needDepth(info linkcheck.Info, libs map[string]linkcheck.Info, deep int) int {
	if deep > 32 {
		return deep // a circle: any order is as good
	}
	longest := 0
	for _, name := range info.Needed {
		if below, ok := libs[name]; ok {
			longest = max(longest, 1+needDepth(below, libs, deep+1))
		}
	}
	return longest
}

func (s *state) rank(o op, info *linkcheck.Info) int {
	switch o.Kind {
	case "mkdir":
		return rankDir
	case "meta":
		return rankMeta
	case "remove":
		return rankRemove
	case "rmdir":
		return rankRmdir
	}
	if o.New.Type == string(release.Symlink) {
		return rankLink
	}
	if f, err := os.OpenFile(s.t.abs(string(o.Temp)), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0); err == nil {
		*info, _ = linkcheck.Needs(f, o.New.Size) // what cannot be read is data
		f.Close()
	}
	switch {
	case info.Kind == linkcheck.Library, strings.Contains(filepath.Base(string(o.Path)), ".so"):
		return rankLibrary
	case o.New.Mode&0o111 != 0:
		return rankProgram
	}
	return rankData
}
