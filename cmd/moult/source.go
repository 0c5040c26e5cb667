package main

import (
	"context"
	"fmt"
	"io"
	"os"

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
.zst), or - for one of these files on standard input.`

func (s *sourceFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&s.config, "config", "", "read this moult.toml, not one that is found (`FILE`)")
	flags.StringVar(&s.name, "name", "", "call the product `NAME`")
	flags.StringVar(&s.version, "release-version", "", "call this version `TEXT`")
	flags.StringVar(&s.owners, "owners", "none", "take owners from the source: `KIND` names, numbers\nor none")
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

// open opens the release at path. A tar is unpacked into the directory for
// temporary files, unless only its manifest is wanted.
func (s *sourceFlags) open(ctx context.Context, a *app, path string, cache *release.Cache, manifestOnly bool) (*release.Release, error) {
	owners, err := s.kindOfOwners()
	if err != nil {
		return nil, err
	}
	o := release.Options{
		Stdin: a.input(ctx), Cache: cache, Config: s.config, Name: s.name, Version: s.version,
		Owners: owners, Times: s.times,
		OnProgress: func(files int, bytes int64) { a.progress.show("read "+path, bytes, 0) },
	}
	var spool *disk.Root
	if !manifestOnly {
		o.SpoolDir = spoolDir(a)
		if spool, err = disk.Open(o.SpoolDir); err != nil {
			return nil, err
		}
		o.Spool = spool
	}
	rel, err := release.Open(ctx, path, o)
	if err != nil {
		return nil, err
	}
	for _, note := range rel.Notes {
		a.remark("%s", note)
	}
	return rel, nil
}

// spoolDir is for what may be large: /tmp is often in memory.
func spoolDir(a *app) string {
	if dir := a.getenv("TMPDIR"); dir != "" {
		return dir
	}
	return "/var/tmp"
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
