package stale

import (
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// root is the root directory of some processes, in their mount namespace: what
// their paths start from.
type root struct {
	fd   int    // O_PATH
	ns   string // the mount namespace, as its link prints it
	text string // the path as the kernel prints it, without a "/" at its end
	own  bool   // the namespace is ours

	targets cache[string, *target]
}

// target is what a path leads to now.
type target struct {
	root *root
	path string
	err  error // ENOENT and its like: nothing is there
	facts
}

type rootKey struct {
	ns, text string
	id       Inode
}

// rootPlace is where a root directory is: no two mounts have one number.
type rootPlace struct {
	mount uint64
	id    Inode
}

// rootPlaceOf says where the root directory is that a link in /proc leads to; the
// mount is 0 if the kernel does not tell (before Linux 6.8).
func rootPlaceOf(dir int, name string) (at rootPlace, err error) {
	var st unix.Statx_t
	err = retry(func() error {
		return unix.Statx(dir, name, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_INO|unix.STATX_MNT_ID_UNIQUE, &st)
	})
	at.id = Inode{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino}
	if st.Mask&unix.STATX_MNT_ID_UNIQUE != 0 {
		at.mount = st.Mnt_id
	}
	return at, err
}

// rootOf returns the root of a process.
func (s *search) rootOf(p *process) (*root, error) {
	var at rootPlace
	if s.live {
		var err error
		if at, err = rootPlaceOf(p.dir, "root"); err != nil {
			return nil, err
		}
		if at == s.home && at.mount != 0 {
			// Most have ours: one question in place of two links whose texts are dear
			// to make.
			return s.rootBy(rootKey{s.ns, "/", at.id}, p)
		}
	}
	ns, err := p.link("ns/mnt")
	if err != nil && s.ns != "" {
		return nil, err
	}
	text, err := p.link("root")
	if err != nil {
		return nil, err
	}
	// The root of another namespace, into which a process has changed, is printed
	// as ours is; so the text does not say it all.
	return s.rootBy(rootKey{ns, text, at.id}, p)
}

// rootBy opens the root of a process, once for all that have it.
func (s *search) rootBy(key rootKey, p *process) (*root, error) {
	r, ok := s.roots.get(key, s.patience, func() (*root, bool) {
		fd, err := openAt(p.dir, "root", unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return nil, false
		}
		return &root{fd: fd, ns: key.ns, text: strings.TrimSuffix(key.text, "/"), own: key.ns == s.ns && (key.text != "/" || key.id == s.home.id)}, true
	})
	if !ok {
		return nil, errHangs
	}
	if r == nil {
		return nil, unix.ESRCH
	}
	return r, nil
}

var errHangs = errors.New("takes too long")

// top is the root of the mount namespace itself, for files that a process got
// before it changed its root. Nil if no process tells the way there.
func (s *search) top(r *root) *root {
	if r.text == "" {
		return r
	}
	t, _ := s.tops.get(r.ns, s.patience, func() (*root, bool) {
		if r.own {
			fd, err := openAt(unix.AT_FDCWD, "/", unix.O_PATH|unix.O_DIRECTORY)
			if err != nil {
				return nil, true
			}
			return &root{fd: fd, ns: r.ns, own: true}, true
		}
		for _, pid := range s.pids {
			if t := s.topBy(pid, r.ns); t != nil {
				return t, true
			}
		}
		return nil, true
	})
	return t
}

// topBy is the root of a process that is in the namespace and has its root.
func (s *search) topBy(pid int, ns string) *root {
	p, err := openProcess(s.proc, pid)
	if err != nil {
		return nil
	}
	defer p.close()
	if has, err := p.link("ns/mnt"); err != nil || has != ns {
		return nil
	}
	if text, err := p.link("root"); err != nil || text != "/" {
		return nil
	}
	fd, err := openAt(p.dir, "root", unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	return &root{fd: fd, ns: ns}
}

// inside turns a path as the kernel prints it into one that starts from this
// root; false if it is not below it.
func (r *root) inside(text string) (string, bool) {
	rest, ok := strings.CutPrefix(text, r.text)
	return rest, ok && strings.HasPrefix(rest, "/")
}

// lookUp finds what a path leads to that starts from this root, once for all
// processes that have it. It says false if that takes too long.
func (s *search) lookUp(r *root, name string) (*target, bool) {
	return r.targets.get(name, s.patience, func() (*target, bool) {
		t := &target{root: r, path: name}
		fd, err := r.open(name, unix.O_PATH)
		if err == nil {
			t.facts, err = inspect(fd, "", 0)
			unix.Close(fd)
		}
		t.err = err
		return t, true
	})
}

// open opens a path as a process would that has this root: symbolic links do
// not lead out of it. Links of /proc are not followed, they would be ours.
func (r *root) open(name string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	if flags&unix.O_PATH != 0 {
		how.Flags = flags | unix.O_CLOEXEC
	}
	for range 64 { // EAGAIN: something was renamed on the way
		fd, err := unix.Openat2(r.fd, name, &how)
		switch {
		case err == nil:
			return fd, nil
		case err == unix.ENOSYS && r.text == "" && r.own: // before Linux 5.6
			return openAt(unix.AT_FDCWD, name, int(how.Flags))
		case err != unix.EAGAIN && err != unix.EINTR:
			return -1, err
		}
	}
	return -1, unix.EAGAIN
}

// missing says that an error means that nothing is there.
func missing(err error) bool {
	return err == unix.ENOENT || err == unix.ENOTDIR || err == unix.ELOOP || err == unix.ENAMETOOLONG
}
