package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
	"moult.example/internal/disk"
	"moult.example/internal/release"
)

// packed is what pack has made.
type packed struct {
	File        deploy.Path `json:"file"` // "-" is standard output
	Name        string      `json:"name,omitempty"`
	Version     string      `json:"version,omitempty"`
	Release     string      `json:"release"`
	Files       int         `json:"files"`
	Bytes       int64       `json:"bytes"`
	PackedBytes int64       `json:"packed_bytes"`
}

func newPackCommand(a *app) *cobra.Command {
	var source sourceFlags
	var out string
	var level int
	c := &cobra.Command{
		Use:   "pack [FLAGS] DIR -o FILE",
		Short: "make one file of a release",
		Long: `Make one file of a release: its manifest and its bytes, compressed. Other hosts
apply it, and find the same release id. tar --zstd -t lists it. The file gets
its name when it is whole and on the disk; - writes it to standard output.

DIR may also be a tar, or - for one on standard input.`,
		Example: `  moult pack ./build -o app-2.1.moult
  moult pack --owners names /srv/tree -o - | ssh host moult apply - /opt/app`,
		Annotations: exits(),
		Args:        operands("DIR"),
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if out == "" {
			return &usageError{message: "want -o FILE", hint: "-o - writes to standard output"}
		}
		if level < 0 || level > 22 {
			return &usageError{message: fmt.Sprintf("--level %d: want 1 to 22", level)}
		}
		return source.with(cmd.Context(), a, args[0], nil, false, func(rel *release.Release) error {
			o := release.PackOptions{Level: level, OnProgress: func(_ int, bytes int64) { a.progress.show("pack", bytes, total(rel)) }}
			if out == "-" {
				return a.packToOutput(cmd.Context(), rel, o)
			}
			return a.packToFile(cmd.Context(), rel, args[0], out, o)
		})
	}
	c.Flags().StringVarP(&out, "output", "o", "", "the `FILE` to make")
	c.Flags().IntVar(&level, "level", 3, "of compression, `N` from 1 (fast) to 22 (small)")
	source.add(c.Flags())
	return c
}

// packToOutput writes the release itself to standard output, so that there is no
// room for a report.
func (a *app) packToOutput(ctx context.Context, rel *release.Release, o release.PackOptions) error {
	if isTerminal(a.stdout) {
		return &usageError{message: "standard output is a terminal", hint: "-o FILE, or a pipe"}
	}
	a.printed = true
	return release.Pack(ctx, rel, a.stdout, o)
}

func (a *app) packToFile(ctx context.Context, rel *release.Release, source, out string, o release.PackOptions) error {
	file, err := toReplace(out)
	if err != nil {
		return err
	}
	if err := outside(source, file); err != nil {
		return err
	}
	fsys, err := a.openDisk(filepath.Dir(file))
	if err != nil {
		return err
	}
	defer closeDisk(fsys)
	n, err := packTo(ctx, fsys, filepath.Base(file), rel, o)
	if err != nil {
		return err
	}
	m := rel.Manifest
	p := packed{File: deploy.Path(out), Name: m.Name, Version: m.Version, Release: m.ID().String(), Bytes: total(rel), PackedBytes: n}
	for i := range m.Entries {
		if m.Entries[i].Type != release.Dir {
			p.Files++
		}
	}
	return a.print(p, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, %s, packed %s%s\n", p.File.Quoted(), count(p.Files, "file"), size(p.Bytes), size(n), identity(p.Name, p.Version, p.Release))
	})
}

// packTo makes the file under another name, which it loses when it is durable.
func packTo(ctx context.Context, fsys disk.FS, name string, rel *release.Release, o release.PackOptions) (int64, error) {
	temporary := fmt.Sprintf(".%s.%08x.new", name, rand.Uint32())
	f, err := fsys.Create(temporary)
	if err != nil {
		return 0, err
	}
	n := &counter{w: f}
	err = release.Pack(ctx, rel, n, o)
	if err == nil {
		err = f.SetMeta(disk.Meta{UID: -1, GID: -1, Mode: 0o666 &^ umask()})
	}
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = fsys.Rename(temporary, name)
	}
	if err != nil {
		return 0, errors.Join(err, fsys.Remove(temporary))
	}
	return n.n, fsys.SyncDir(".")
}

// umask is the user's word on who may read what is made here: a release can hold
// files that not everybody may.
func umask() uint32 {
	mask := unix.Umask(0o77)
	unix.Umask(mask)
	return uint32(mask)
}

// toReplace is the file that out means, behind a symbolic link as for any program
// that writes. What is there must be a file: a new one takes its name, and that of
// a device is not for us to take.
func toReplace(out string) (string, error) {
	st, err := os.Lstat(out)
	if err != nil {
		return out, nil // whether it can be made is found out
	}
	file := out
	if st.Mode().Type() == os.ModeSymlink {
		if file, err = filepath.EvalSymlinks(out); err == nil {
			st, err = os.Lstat(file)
		}
		if err != nil {
			return "", &usageError{message: out + " is a symbolic link that leads to no file", hint: "-o - writes to standard output"}
		}
	}
	switch {
	case st.IsDir():
		return "", &usageError{message: out + " is a directory", hint: "-o wants the name of a file"}
	case !st.Mode().IsRegular():
		return "", &usageError{message: out + " is not a regular file", hint: "-o - writes to standard output"}
	}
	return file, nil
}

// outside refuses to make the packed file where it would be a part of the next
// release itself.
func outside(source, out string) error {
	dir, err := filepath.EvalSymlinks(filepath.Dir(out))
	if err != nil {
		return err
	}
	source, err = filepath.EvalSymlinks(source)
	if err != nil {
		return nil // standard input
	}
	source, _ = filepath.Abs(source)
	dir, _ = filepath.Abs(dir)
	if dir == source || strings.HasPrefix(dir, source+"/") {
		return &usageError{message: out + " would be a part of the release", hint: "make it outside " + source}
	}
	return nil
}

func total(rel *release.Release) (bytes int64) {
	for i := range rel.Manifest.Entries {
		if e := &rel.Manifest.Entries[i]; e.HardLink == "" {
			bytes += e.Size
		}
	}
	return bytes
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
