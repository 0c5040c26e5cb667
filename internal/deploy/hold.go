package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/release"
)

// HoldOptions say which generation is to be held.
type HoldOptions struct {
	Name       string
	Generation int // below 0: the live one
}

// Held is a generation that a program is going to run from for its whole life,
// whatever becomes live meanwhile. The zero value is none.
type Held struct {
	Target     Path   // absolute, without symbolic links
	Generation int    // its number
	Dir        string // its directory, absolute
	Live       bool   // it is the live one

	s   *state
	m   *release.Manifest
	dir *os.File
}

// layoutView is what the layout file says in the view of a held program.
const layoutView Layout = "view"

// Hold resolves a generation of an owned target, once, and holds it: as long as
// the descriptor is open, which a program that is executed inherits after
// [Held.Inherit], gc finds a user of it. It takes no lock and writes nothing.
//
// A shared target is refused: its files are replaced under their own names, so
// there is no tree of one generation to run from.
func (t *Target) Hold(o HoldOptions) (*Held, error) {
	s, err := t.state(o.Name)
	if err != nil {
		return nil, err
	}
	if s.layout == Shared {
		return nil, refuse("", fmt.Sprintf("%s is shared: its files are replaced one by one, so no generation can be run from", t.path),
			"only an owned target keeps whole generations")
	}
	live, err := s.live()
	if err != nil {
		return nil, err
	}
	n := o.Generation
	if n < 0 {
		if n = live; n == noGeneration {
			return nil, fmt.Errorf("%s: nothing is live: %w", t.path, ErrNoGeneration)
		}
	}
	h := &Held{Target: Path(t.path), Generation: n, Dir: s.abs(genDir(n)), Live: n == live, s: s}
	// By its name, and before anything of it is read: gc renames a generation
	// before it looks for users the last time.
	fd, err := unix.Open(h.Dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %d: %w", t.path, n, ErrNoGeneration)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: h.Dir, Err: err}
	}
	h.dir = os.NewFile(uintptr(fd), h.Dir)
	if h.m, err = s.manifest(n); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// Close gives the generation up, for a program that was not executed.
func (h *Held) Close() error { return h.dir.Close() }

// inheritAt is the least number of the descriptor that is handed on: those below
// are what shells, service managers and programs count on.
const inheritAt = 100

// Inherit makes a descriptor that the program has which is executed next.
func (h *Held) Inherit() (fd int, err error) {
	for _, at := range []int{inheritAt, 3} { // 3: where the limit is below 100
		if fd, err = unix.FcntlInt(h.dir.Fd(), unix.F_DUPFD, at); err == nil {
			return fd, nil
		}
	}
	return -1, &fs.PathError{Op: "dup", Path: h.Dir, Err: err}
}

// Enter shows the calling thread, and what is executed on it, the target as it
// would be if this generation were live and stayed so: its names in the target's
// directory, and what is not moult's beside them, as it is. Nothing can be made
// or removed directly in the target's directory there; in the directories in it
// everything can. See [disk.View.Enter], also for [disk.ErrNoView].
//
// The mount of the generation is what gc knows the program by, should it close
// the inherited descriptor.
func (h *Held) Enter() error {
	v, err := h.view()
	if err != nil {
		return err
	}
	return v.Enter()
}

func (h *Held) view() (disk.View, error) {
	v := disk.View{Dir: string(h.Target), Entries: []disk.ViewEntry{
		{Name: dotMoult},
		{Name: layoutFile, Text: fmt.Sprintf("moult %d %s\n", format, layoutView)},
		{Name: dotMoult + "/live", Link: genDir(h.Generation)},
		{Name: dotMoult + "/generations"},
		{Name: dotMoult + "/" + genDir(h.Generation), Bind: h.Dir},
	}}
	ours := map[string]bool{}
	for _, name := range topNames(h.m) {
		ours[name] = true
		v.Entries = append(v.Entries, disk.ViewEntry{Name: name, Link: ownText(name)})
	}
	names, err := h.s.t.strangers()
	if err != nil {
		return v, err
	}
	for _, name := range names {
		if ours[name] {
			continue
		}
		e := disk.ViewEntry{Name: name, Bind: h.s.t.abs(name)}
		if text, err := os.Readlink(e.Bind); err == nil {
			e.Bind, e.Link = "", text
		}
		v.Entries = append(v.Entries, e)
	}
	return v, nil
}

// checkView refuses to work on what a held program sees of its target.
func (t *Target) checkView(layout Layout) error {
	if layout != layoutView {
		return nil
	}
	at, _ := os.Readlink(t.abs(dotMoult + "/live"))
	return refuse("", fmt.Sprintf("%s is seen here as a program sees it that moult exec has started: always generation %s", t.path, filepath.Base(at)),
		"run moult outside of that program")
}

// Inside turns a path in the target's public directories, or in any generation
// of it, into the same in the held generation, and returns any other as it is.
// Symbolic links in the directory part are followed.
func (h *Held) Inside(path string) string {
	if !filepath.IsAbs(path) {
		return path
	}
	whole := filepath.Clean(path)
	dir, base := filepath.Split(whole)
	if real, err := filepath.EvalSymlinks(dir); err == nil { // else the live release has no such directory
		whole = filepath.Join(real, base)
	}
	rest, below := strings.CutPrefix(whole, string(h.Target)+"/")
	if !below {
		return path
	}
	if inGen, ok := strings.CutPrefix(rest, dotMoult+"/generations/"); ok {
		_, rest, ok = strings.Cut(inGen, "/")
		if !ok {
			return h.Dir
		}
	} else if top, _, _ := strings.Cut(rest, "/"); h.m.Find(top) == nil {
		return path
	}
	return h.Dir + "/" + rest
}

// programDirs are the directories of a release in which programs are looked for.
var programDirs = []string{"bin", "sbin", "usr/bin", "usr/sbin"}

// Dirs are the generation's own directories of programs, and those right below
// one called lib, lib32 or lib64, or itself one, that hold shared libraries, as
// absolute paths.
func (h *Held) Dirs() (programs, libraries []string) {
	for _, dir := range programDirs {
		if e := h.m.Find(dir); e != nil && e.Type == release.Dir {
			programs = append(programs, h.Dir+"/"+dir)
		}
	}
	seen := map[string]bool{}
	for i := range h.m.Entries {
		e := &h.m.Entries[i]
		dir := parentOf(e.Path)
		if e.Type == release.Dir || seen[dir] || !strings.Contains(filepath.Base(e.Path), ".so") || !isLibraryDir(dir) {
			continue
		}
		seen[dir] = true
		libraries = append(libraries, h.Dir+"/"+dir)
	}
	return programs, libraries
}

// isLibraryDir: lib, lib64, usr/lib, lib/x86_64-linux-gnu; not lib/app/plugins.
func isLibraryDir(dir string) bool {
	dir = strings.TrimPrefix(dir, "usr/")
	top, below, _ := strings.Cut(dir, "/")
	return (top == "lib" || top == "lib32" || top == "lib64") && (below == "" || strings.HasSuffix(below, "-linux-gnu"))
}

// Environ is an environment that leads to the generation without mounts of its
// own: directories in PATH and LD_LIBRARY_PATH that are the target's become the
// generation's, and its own directories of libraries come first. What a program
// opens by an absolute path is not led anywhere.
func (h *Held) Environ(environ []string) []string {
	_, libraries := h.Dirs()
	out := make([]string, 0, len(environ)+1)
	done := false
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		switch name {
		case "PATH":
			pair = "PATH=" + h.searchPath(nil, value)
		case "LD_LIBRARY_PATH":
			pair = "LD_LIBRARY_PATH=" + h.searchPath(libraries, value)
			done = true
		}
		out = append(out, pair)
	}
	if !done && len(libraries) > 0 {
		out = append(out, "LD_LIBRARY_PATH="+h.searchPath(libraries, ""))
	}
	return out
}

// searchPath puts first before the directories of a list, each seen in the
// generation, and none twice. An empty element, which means the working
// directory, stays what it is.
func (h *Held) searchPath(first []string, list string) string {
	seen := map[string]bool{}
	var out []string
	add := func(dir string) {
		if !seen[dir] {
			seen[dir] = true
			out = append(out, dir)
		}
	}
	for _, dir := range first {
		add(dir)
	}
	if list != "" {
		for dir := range strings.SplitSeq(list, ":") {
			add(h.Inside(dir))
		}
	}
	return strings.Join(out, ":")
}
