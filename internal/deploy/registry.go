package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"moult.example/internal/disk"
)

// StateDir is where this host's moult remembers which targets there are:
// $MOULT_STATE_DIR, else /var/lib/moult for root, else moult in
// $XDG_STATE_HOME or ~/.local/state.
func StateDir() string {
	if dir := os.Getenv("MOULT_STATE_DIR"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/moult"
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return dir + "/moult"
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "/var/lib/moult"
	}
	return home + "/.local/state/moult"
}

// Registered is one target that this host's moult knows of.
type Registered struct {
	Schema int       `json:"schema"`
	Path   Path      `json:"path"`
	Since  time.Time `json:"since"`
}

// registryFile is named by a digest of the path, which may be longer than a
// file name can be.
func registryFile(path string) string {
	sum := sha256.Sum256([]byte(path))
	return "targets/" + hex.EncodeToString(sum[:8]) + ".json"
}

func registered(stateDir, path string) bool {
	var r Registered
	return readJSON(filepath.Join(stateDir, registryFile(path)), &r) == nil && string(r.Path) == path
}

// register remembers the target for recovery at boot. It is durable before the
// first commit.
func (t *Target) register() (err error) {
	defer func() { err = ofList(err) }()
	if registered(t.opts.StateDir, t.path) {
		return nil
	}
	fsys, err := openStateDir(t.opts)
	if err != nil {
		return err
	}
	defer closeDisk(fsys)
	if err := makeDir(fsys, "targets"); err != nil {
		return err
	}
	r := Registered{Schema: 1, Path: Path(t.path), Since: t.opts.Now().UTC().Truncate(time.Second)}
	if err := writeJSON(fsys, registryFile(t.path), r); err != nil {
		return err
	}
	return errors.Join(fsys.SyncDir("targets"), fsys.SyncDir("."))
}

// unregister forgets the target.
func (t *Target) unregister() (err error) {
	defer func() { err = ofList(err) }()
	if !registered(t.opts.StateDir, t.path) {
		return nil
	}
	fsys, err := openStateDir(t.opts)
	if err != nil {
		return err
	}
	defer closeDisk(fsys)
	if err := fsys.Remove(registryFile(t.path)); err != nil {
		return err
	}
	return fsys.SyncDir("targets")
}

// ListError says that the list of this host's targets cannot be written, which
// is elsewhere than the target: who may write that one may still not write this.
type ListError struct {
	Err error
}

func ofList(err error) error {
	if err == nil {
		return nil
	}
	return &ListError{err}
}

// Error implements error.
func (e *ListError) Error() string {
	text := e.Err.Error()
	var at *fs.PathError
	if errors.As(e.Err, &at) {
		text = at.Op + " " + filepath.Clean(at.Path) + ": " + at.Err.Error()
	}
	return "the list of targets: " + text
}

// Unwrap gives what it is that went wrong.
func (e *ListError) Unwrap() error { return e.Err }

// openStateDir makes the registry's directory, with its parents, and opens it.
func openStateDir(opts Options) (disk.FS, error) {
	dir := opts.StateDir
	var missing []string
	for !exists(dir) {
		missing = append(missing, filepath.Base(dir))
		dir = filepath.Dir(dir)
	}
	for _, name := range slices.Backward(missing) {
		parent, err := opts.Disk(dir)
		if err != nil {
			return nil, err
		}
		if err = errors.Join(makeDir(parent, name), parent.SyncDir("."), closeDisk(parent)); err != nil {
			return nil, err
		}
		dir = filepath.Join(dir, name)
	}
	return opts.Disk(opts.StateDir)
}

func closeDisk(fsys disk.FS) error {
	if c, ok := fsys.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// Targets lists the targets that are registered, by path. A damaged entry is
// passed over and returned in the error with the others.
func Targets(stateDir string) ([]Registered, error) {
	if stateDir == "" {
		stateDir = StateDir()
	}
	files, err := os.ReadDir(filepath.Join(stateDir, "targets"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []Registered
	var errs []error
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".json") {
			continue
		}
		var r Registered
		if err := readJSON(filepath.Join(stateDir, "targets", f.Name()), &r); err != nil {
			errs = append(errs, err)
			continue
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b Registered) int { return strings.Compare(string(a.Path), string(b.Path)) })
	return all, errors.Join(errs...)
}
