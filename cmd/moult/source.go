package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/release"
)

// sourceFlags say how a release is to be read.
type sourceFlags struct {
	config  string
	name    string
	version string
	owners  string
	times   bool
}

// releaseForms is how the help names what can be a RELEASE.
const releaseForms = `RELEASE is a directory, a file made by moult pack, a tar (also .gz, .bz2 or
.zst), or - for one of these files on standard input. What these cannot say, as
owners, hooks and files that users may change, a moult.toml in the directory or
beside it does: its keys are in release.md, in share/doc/moult/docs.`

func (s *sourceFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&s.config, "config", "", "read `FILE`, not a moult.toml that is found")
	flags.StringVar(&s.name, "name", "", "call the product `NAME`")
	flags.StringVar(&s.version, "release-version", "", "call this version `TEXT`")
	flags.StringVar(&s.owners, "owners", "none", "take owners from the source: `KIND` is names,\nnumbers or none")
	flags.BoolVar(&s.times, "times", false, "modification times are part of the release")
}

func (s *sourceFlags) kindOfOwners() (release.Owners, error) {
	switch s.owners {
	case "", "none":
		return release.OwnersNone, nil
	case "names":
		return release.OwnersNames, nil
	case "numbers":
		return release.OwnersNumbers, nil
	}
	return 0, &usageError{message: fmt.Sprintf("unknown --owners %q", s.owners), hint: "names, numbers or none"}
}

// with opens the release at path for the time of one job. A tar is unpacked for
// as long, unless only its manifest is wanted.
func (s *sourceFlags) with(ctx context.Context, a *app, path string, cache *release.Cache, manifestOnly bool, job func(*release.Release) error) (err error) {
	owners, err := s.kindOfOwners()
	if err != nil {
		return err
	}
	o := release.Options{
		Stdin: a.input(ctx), Cache: cache, Config: s.config, Name: s.name, Version: s.version,
		Owners: owners, Times: s.times,
		OnProgress: func(_ int, bytes int64) { a.progress.show("read", bytes, 0) },
	}
	unpack, err := toUnpack(path)
	if err != nil {
		return ofSource(err, path)
	}
	if unpack && !manifestOnly {
		sp, err := a.newSpool()
		if err != nil {
			return fmt.Errorf("a directory to unpack in: %w", err)
		}
		defer func() { err = errors.Join(err, sp.remove()) }()
		o.Spool, o.SpoolDir = sp.fs, sp.path
	}
	rel, err := release.Open(ctx, path, o)
	if err != nil {
		return ofSource(err, path)
	}
	lazyCollector(len(rel.Manifest.Entries))
	for _, note := range rel.Notes {
		a.remark("%s", note)
	}
	return errors.Join(ofSource(job(rel), path), rel.Close())
}

// toUnpack says whether a release is a file, or standard input, that needs a
// directory to be unpacked in. Nothing is made for one that is not there.
func toUnpack(path string) (bool, error) {
	if path == "-" {
		return true, nil
	}
	st, err := os.Stat(path)
	if err != nil {
		return false, fmt.Errorf("release: %w", notThere(err))
	}
	return !st.IsDir(), nil
}

// lookedError is an error of looking at a file that somebody has named: by which
// system call goes without saying.
type lookedError struct{ *fs.PathError }

func (e *lookedError) Error() string { return e.Path + ": " + e.Err.Error() }
func (e *lookedError) Unwrap() error { return e.PathError }

func notThere(err error) error {
	if at, ok := err.(*fs.PathError); ok {
		return &lookedError{at}
	}
	return err
}

// sourceError is an error of who may read the release, not of who may write the
// target.
type sourceError struct{ error }

func (e *sourceError) Unwrap() error { return e.error }

// ofSource marks an error that is about rights to the release at path. The
// engine's own paths are absolute, a release's are as it was named.
func ofSource(err error, path string) error {
	var at *fs.PathError
	if !errors.As(err, &at) || !errors.Is(at, fs.ErrPermission) {
		return err
	}
	path = filepath.Clean(path)
	if at.Path == path || strings.HasPrefix(at.Path, strings.TrimSuffix(path, "/")+"/") || path == "." && !filepath.IsAbs(at.Path) {
		return &sourceError{err}
	}
	return err
}

// spool is a directory of our own in which a tar is unpacked.
type spool struct {
	parent, fs *disk.Root
	name, path string
	lock       *os.File
}

// newSpool makes one in $TMPDIR, else in /var/tmp: /tmp is often in memory. It
// holds a lock on it, and removes those that a killed moult has left there.
func (a *app) newSpool() (*spool, error) {
	dir := a.getenv("TMPDIR")
	if dir == "" {
		dir = "/var/tmp"
	}
	parent, err := disk.Open(dir)
	if err != nil {
		return nil, err
	}
	sweepSpools(parent, dir)
	s := &spool{parent: parent, name: fmt.Sprintf("%s%016x", spoolPrefix, rand.Uint64())}
	s.path = filepath.Join(dir, s.name)
	if err := parent.Mkdir(s.name); err != nil {
		return nil, errors.Join(err, parent.Close())
	}
	if s.fs, err = disk.Open(s.path); err == nil {
		s.lock, err = lockSpool(s.path)
	}
	if err != nil {
		return nil, errors.Join(err, parent.Remove(s.name), parent.Close())
	}
	return s, nil
}

// remove wants the directory empty: closing the release has removed its files.
func (s *spool) remove() error {
	return errors.Join(s.fs.Close(), s.parent.Remove(s.name), s.parent.Close(), s.lock.Close())
}

const spoolPrefix = "moult-unpack-"

// lockSpool opens a spool and locks it, if nobody else has.
func lockSpool(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(&os.PathError{Op: "flock", Path: path, Err: err}, f.Close())
	}
	return f, nil
}

// sweepSpools removes what a killed moult of the same user has left in dir. One
// that was made a moment ago may not be locked yet. That it cannot be removed is
// nothing to fail for.
func sweepSpools(parent *disk.Root, dir string) {
	old, _ := filepath.Glob(dir + "/" + spoolPrefix + "*")
	for _, path := range old {
		st, err := os.Lstat(path)
		if err != nil || !st.IsDir() || st.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) || time.Since(st.ModTime()) < time.Minute {
			continue
		}
		f, err := lockSpool(path)
		if err != nil {
			continue
		}
		names, _ := f.Readdirnames(-1) // a spool is flat
		for _, name := range names {
			_ = parent.Remove(filepath.Base(path) + "/" + name)
		}
		_ = parent.Remove(filepath.Base(path))
		f.Close()
	}
}

// input is standard input, which stops at an interrupt also while it waits.
func (a *app) input(ctx context.Context) io.Reader {
	f, isFile := a.stdin.(*os.File)
	if !isFile {
		return a.stdin
	}
	return &patientReader{ctx: ctx, f: f}
}

// patientReader looks at its context while there is nothing to read: a read of
// a pipe or a terminal cannot be called off otherwise.
type patientReader struct {
	ctx context.Context
	f   *os.File
}

func (r *patientReader) Read(p []byte) (int, error) {
	const wait = 100 // milliseconds
	for {
		if err := r.ctx.Err(); err != nil {
			return 0, err
		}
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(r.f.Fd()), Events: unix.POLLIN}}, wait)
		if ready > 0 || err != nil && err != unix.EINTR {
			return r.f.Read(p)
		}
	}
}
