package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

// openDir opens a directory as a release: one lstat(2) for each file, and no
// byte read but those of moult.toml.
func openDir(ctx context.Context, path string, opt Options) (*Release, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	root, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	r := &Release{cache: opt.Cache, progress: progress{report: opt.OnProgress}}
	if err := r.readDir(ctx, root, path, abs, opt); err != nil {
		root.Close()
		return nil, err
	}
	return r, nil
}

func (r *Release) readDir(ctx context.Context, root *disk.Root, path, abs string, opt Options) error {
	own := filepath.Join(path, configName)
	ownText := func() ([]byte, error) {
		text, _, err := readConfig(own, unix.O_NOFOLLOW)
		return text, err
	}
	if err := r.findConfig(opt, own, ownText, filepath.Dir(abs)); err != nil {
		return err
	}
	if r.cache != nil {
		if err := bind(r.cache, root, abs); err != nil {
			return err
		}
	}
	s := scanner{root: root, name: path, cache: r.cache, skip: func(p string) bool { return p == configName || r.Config.excludes(p) }}
	top, err := s.scan(ctx)
	if err != nil {
		return err
	}
	var entries []Entry
	entries, r.stats, err = collect(top, ownersOf(opt.Owners))
	if err != nil {
		return err
	}
	r.source = &dirSource{root: root, path: path, stats: r.stats}
	r.Manifest = &Manifest{Entries: entries}
	return r.settle(opt)
}

func bind(c *Cache, root *disk.Root, abs string) error {
	f, err := root.Lookup(".")
	if err != nil {
		return err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	c.Bind(abs, uint64(st.Dev), st.Ino)
	return nil
}

// ownersOf returns what fills in the owners of a scanned item; nil for none.
func ownersOf(o Owners) func(*item, *Entry) {
	if o == OwnersNone {
		return nil
	}
	users, groups := map[uint32]string{}, map[uint32]string{}
	name := func(known map[uint32]string, id uint32, lookup func(string) (string, error)) string {
		s, ok := known[id]
		if !ok {
			s = strconv.FormatUint(uint64(id), 10)
			if o == OwnersNames {
				if n, err := lookup(s); err == nil && ownerName(n) {
					s = n
				}
			}
			known[id] = s
		}
		return s
	}
	return func(it *item, e *Entry) {
		e.Owner = name(users, it.uid, func(id string) (string, error) {
			u, err := user.LookupId(id)
			if err != nil {
				return "", err
			}
			return u.Username, nil
		})
		e.Group = name(groups, it.gid, func(id string) (string, error) {
			g, err := user.LookupGroupId(id)
			if err != nil {
				return "", err
			}
			return g.Name, nil
		})
	}
}

// Ships says that the release is read from a directory that path is in, or is,
// and does not exclude it: what comes to be there will be in it the next time.
// path is absolute, without symbolic links.
func (r *Release) Ships(path string) bool {
	src, ok := r.source.(*dirSource)
	if !ok {
		return false
	}
	dir, err := filepath.Abs(src.path)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	rest, inside := strings.CutPrefix(path+"/", strings.TrimSuffix(dir, "/")+"/")
	if err != nil || !inside {
		return false
	}
	return !r.Config.excludesBelow(strings.TrimSuffix(rest, "/"))
}

// dirSource reads the files of a directory.
type dirSource struct {
	root  *disk.Root
	path  string
	stats []Stat // of the entries, as they were scanned
}

func (d *dirSource) open(e *Entry, i int) (io.ReadCloser, error) {
	dir, base := ".", e.Path
	if at := strings.LastIndexByte(e.Path, '/'); at >= 0 {
		dir, base = e.Path[:at], e.Path[at+1:]
	}
	parent, err := d.root.Lookup(dir)
	if err != nil {
		return nil, err
	}
	defer parent.Close()
	s := scanner{name: d.path}
	// O_NONBLOCK, because it may be a FIFO by now.
	fd, err := unix.Openat(int(parent.Fd()), base, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, s.pathError("open", e.Path, err)
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		unix.Close(fd)
		return nil, s.pathError("open", e.Path, err)
	}
	f := os.NewFile(uintptr(fd), s.full(e.Path))
	if err := d.unchanged(e, i, f); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

var errChanged = errors.New("it changed while it was read")

// unchanged compares the file with what it was when it was scanned. The number
// of its links is not looked at, but the change time is, and so it may not gain
// one either.
func (d *dirSource) unchanged(e *Entry, i int, f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	if StatOf(&st) != d.stats[i] {
		return fmt.Errorf("%s: %w", f.Name(), errChanged)
	}
	return nil
}

func (d *dirSource) close() error { return d.root.Close() }
