package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// measureClone: the first apply again, on file systems that can share blocks.
func (b *bench) measureClone(ctx context.Context, s *Section) error {
	s.Title = "first apply where files can be cloned"
	s.Method = "each on a file system of its own in an image, loop-mounted; cp clones too, rsync copies"
	s.Unit = "of rsync -a"
	for _, kind := range []string{"xfs", "btrfs"} {
		why := missing("mkfs."+kind, "mount", "umount", "rsync", "cp", "sync")
		if os.Geteuid() != 0 {
			why = "it takes root"
		}
		if why != "" {
			s.skip(kind, why)
			continue
		}
		if err := b.cloneOn(ctx, s, kind); err != nil {
			if ctx.Err() != nil {
				return err
			}
			s.skip(kind, err.Error())
		}
	}
	return nil
}

// cloneOn measures on one kind of file system.
func (b *bench) cloneOn(ctx context.Context, s *Section, kind string) (err error) {
	mnt, unmount, err := b.image(ctx, kind)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unmount()) }()

	// everything that is made from here on is below the mount point
	on := *b
	on.dir, on.places, on.source = mnt, map[string]*place{}, nil
	source, err := on.theSource()
	if err != nil {
		return err
	}
	var all []*entrant
	for _, w := range []*way{moultWay("moult apply", ""), rsyncWay("rsync -a"), copyWay()} {
		all = append(all, on.first(w, source))
	}
	if err := on.turns(ctx, max(1, b.opt.rounds*3/5), nil, all...); err != nil {
		return err
	}
	for _, e := range all {
		e.name += ", " + kind
	}
	rsync := "rsync -a, " + kind
	s.compare(rsync, all...)
	s.Unit = "of rsync -a"
	s.hold("moult apply, "+kind, rsync, 0.55, all...)
	s.hold("moult apply, "+kind, "cp -a + sync -f, "+kind, 1.1, all...)
	return nil
}

// image makes a file system in a file and mounts it.
func (b *bench) image(ctx context.Context, kind string) (mnt string, unmount func() error, err error) {
	dir, err := os.MkdirTemp(b.dir, kind+"-")
	if err != nil {
		return "", nil, err
	}
	image, mnt := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o755); err != nil {
		return "", nil, err
	}
	f, err := os.Create(image)
	if err != nil {
		return "", nil, err
	}
	err = f.Truncate(1<<30 + int64(5*b.opt.scale*treeBytes))
	if err = errors.Join(err, f.Close()); err != nil {
		return "", nil, err
	}
	if _, err := b.run(ctx, []string{"mkfs." + kind, "-q", image}, []string{"mount", "-o", "loop", image, mnt}); err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return mnt, func() error {
		// not with ctx: what was mounted has to go, above all after an interrupt
		if out, err := exec.Command("umount", mnt).CombinedOutput(); err != nil {
			// killed programs may need a moment to let go of it
			if err2 := unix.Unmount(mnt, unix.MNT_DETACH); err2 != nil {
				return fmt.Errorf("umount %s: %w: %s", mnt, err, out)
			}
		}
		return os.RemoveAll(dir)
	}, nil
}
