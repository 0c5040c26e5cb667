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

// The ranks of what a commit in a shared target does: order says in which order
// they become visible.
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
	op   op
	rank int
}

// order sorts the operations of a commit. It reads the new files' headers,
// which is why it comes before the journal.
func (s *state) order(ops []op) {
	all := make([]ranked, len(ops))
	infos := make([]linkcheck.Info, len(ops))
	byName := map[string]int{}  // libraries, by file name and by soname
	links := map[string][]int{} // links, by the file name that they lead to
	for i, o := range ops {
		all[i] = ranked{op: o, rank: s.rank(o, &infos[i])}
		switch all[i].rank {
		case rankLibrary:
			byName[filepath.Base(string(o.Path))] = i
			if name := infos[i].Soname; name != "" {
				if _, is := byName[name]; !is {
					byName[name] = i
				}
			}
		case rankLink:
			to := filepath.Base(string(o.New.Text))
			links[to] = append(links[to], i)
		}
	}
	sorted := make([]int, len(ops))
	for i := range sorted {
		sorted[i] = i
	}
	slices.SortStableFunc(sorted, func(i, j int) int {
		a, b := &all[i], &all[j]
		if c := cmp.Compare(a.rank, b.rank); c != 0 {
			return c
		}
		if a.rank == rankRmdir {
			return cmp.Compare(b.op.Path, a.op.Path) // children first
		}
		return cmp.Compare(a.op.Path, b.op.Path)
	})
	// What a program of the release needs comes just before it, so that the
	// time in which the two do not fit is short; all else comes earlier.
	forProgram := map[int]bool{}
	var mark func(i int)
	mark = func(i int) {
		for _, name := range infos[i].Needed {
			if k, ok := byName[name]; ok && !forProgram[k] {
				forProgram[k] = true
				mark(k)
			}
		}
	}
	for i := range all {
		if all[i].rank == rankProgram {
			mark(i)
		}
	}
	done := make([]bool, len(ops))
	out := make([]op, 0, len(ops))
	var emit func(i int)
	emit = func(i int) {
		if done[i] {
			return
		}
		done[i] = true
		for _, name := range infos[i].Needed {
			if k, ok := byName[name]; ok {
				emit(k)
			}
		}
		out = append(out, all[i].op)
		if all[i].rank == rankLibrary {
			for _, k := range links[filepath.Base(string(all[i].op.Path))] {
				emit(k)
			}
		}
	}
	for _, rank := range []int{rankDir, rankData} {
		for _, i := range sorted {
			if all[i].rank == rank {
				emit(i)
			}
		}
	}
	for _, i := range sorted {
		if all[i].rank == rankLibrary && !forProgram[i] {
			emit(i)
		}
	}
	for _, i := range sorted {
		if all[i].rank == rankLink {
			if _, ok := byName[filepath.Base(string(all[i].op.New.Text))]; !ok {
				emit(i)
			}
		}
	}
	for _, i := range sorted {
		emit(i)
	}
	copy(ops, out)
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
