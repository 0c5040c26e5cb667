package deploy

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"moult.example/internal/deploy/hostfacts"
	"moult.example/internal/disk"
	"moult.example/internal/release"
)

// Layout is how a target holds its releases.
type Layout string

// The two layouts.
const (
	Owned  Layout = "owned"  // moult owns what is under it; one rename switches all
	Shared Layout = "shared" // others live there too; files are placed one by one
)

// Options are what a Target needs from outside. The zero value is right for
// real use.
type Options struct {
	Wait    time.Duration // how long to wait for a busy target; 0 not at all, negative for ever
	OnEvent func(Event)   // progress; nil is silence. Called from one goroutine at a time
	Command string        // what the history says was run; "" is the program's arguments

	// The rest is for tests.
	Disk     func(path string) (disk.FS, error) // nil is disk.Open
	Now      func() time.Time                   // nil is time.Now
	Facts    hostfacts.Options                  // zero is this host
	Proc     string                             // "" is /proc
	StateDir string                             // the registry of targets; "" is what StateDir returns
	Grace    time.Duration                      // how long a retired generation is kept at least; 0 is 60 seconds
}

// Event is one step of a long job.
type Event struct {
	Job      string // stage, hash, verify
	Files    int    // done so far
	Bytes    int64
	AllFiles int
	AllBytes int64
}

// Target is a directory on this host that receives releases. Its methods may
// not be called at the same time; several Targets of one directory, also in
// several processes, may: the lock keeps those that write apart.
type Target struct {
	path string // absolute, without symbolic links
	opts Options
	fs   disk.FS // nil as long as the directory does not exist

	manifests map[string]manifestOf               // of generations, by path
	ids       map[*release.Manifest]func() string // of complete ones
	untrusted map[*release.Manifest]uint32        // those that others have written, and who
	past      map[string]*pastRecords             // histories, by path
	ahead     *ahead
}

// Open resolves path once. The directory need not exist yet, but its parent
// must. Nothing is written.
//
// A target that is registered on this host but has nothing of moult's is
// refused: its disk is not mounted, most likely.
func Open(path string, opts Options) (*Target, error) {
	t := &Target{opts: opts.withDefaults()}
	var err error
	if t.path, err = resolve(path); errors.Is(err, fs.ErrNotExist) {
		if abs, err := filepath.Abs(path); err == nil {
			path = abs
		}
		dir := filepath.Dir(path)
		return nil, refuse("", fmt.Sprintf("%s: there is no %s for it to be in", path, dir), "mkdir -p "+dir)
	} else if err != nil {
		return nil, err
	}
	if outer, _, inside := strings.Cut(t.path+"/", "/"+dotMoult+"/"); inside {
		return nil, refuse("", fmt.Sprintf("%s is inside the target %s", path, outer), "did you mean "+outer+"?")
	}
	if err := t.open(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if registered(t.opts.StateDir, t.path) && !exists(t.abs(dotMoult)) {
		return nil, refuse("", fmt.Sprintf("%s is registered as a target, but there is no %s in it: is its disk mounted?", t.path, dotMoult),
			"if it is gone for good, moult forget "+t.path)
	}
	return t, nil
}

func (opts Options) withDefaults() Options {
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Proc == "" {
		opts.Proc = "/proc"
	}
	if opts.Grace == 0 {
		opts.Grace = 60 * time.Second
	}
	if opts.Command == "" {
		opts.Command = strings.Join(os.Args, " ")
	}
	if opts.StateDir == "" {
		opts.StateDir = StateDir()
	}
	if opts.Disk == nil {
		opts.Disk = func(path string) (disk.FS, error) { return disk.Open(path) }
	}
	return opts
}

// open holds the directory if it exists.
func (t *Target) open() error {
	st, err := os.Stat(t.path)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return refuse("", t.path+" is not a directory", "")
	}
	t.fs, err = t.opts.Disk(t.path)
	return err
}

// Close gives the target up.
func (t *Target) Close() error {
	return closeDisk(t.fs)
}

// Path is the target's directory, absolute and without symbolic links.
func (t *Target) Path() string { return t.path }

// resolve makes path absolute and follows its symbolic links; the last
// component may be missing.
func resolve(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(abs)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", &fs.PathError{Op: "open", Path: abs, Err: err}
	}
	if err == nil {
		return real, nil
	}
	if st, err := os.Lstat(abs); err == nil {
		if st.Mode().Type() == fs.ModeSymlink {
			return "", refuse("", abs+" is a symbolic link to nowhere", "")
		}
		return filepath.EvalSymlinks(abs) // somebody has just made it
	}
	dir, err := filepath.EvalSymlinks(filepath.Dir(abs))
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, filepath.Base(abs)), nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// abs is the absolute path of a name below the target.
func (t *Target) abs(name string) string { return t.path + "/" + name }

func (t *Target) event(e Event) {
	if t.opts.OnEvent != nil {
		t.opts.OnEvent(e)
	}
}

// create makes the target's directory (0755, owner is who asks) if it is not
// there, and .moult in it.
func (t *Target) create() error {
	if t.fs == nil {
		parent, err := t.opts.Disk(filepath.Dir(t.path))
		if err != nil {
			return err
		}
		defer closeDisk(parent)
		if err := makeDir(parent, filepath.Base(t.path)); err != nil {
			return err
		}
		if err := parent.SyncDir("."); err != nil {
			return err
		}
		if err := t.open(); err != nil {
			return err
		}
	}
	if exists(t.abs(dotMoult)) {
		return nil
	}
	if err := makeDir(t.fs, dotMoult); err != nil {
		return err
	}
	return t.fs.SyncDir(".")
}

// makeDir makes a directory with mode 0755, or leaves the one that is there.
func makeDir(fsys disk.FS, name string) error {
	err := fsys.Mkdir(name)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return fsys.SetMeta(name, disk.Meta{UID: -1, GID: -1, Mode: 0o755})
}
