package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxUnsynced is how many staged files may be open at once, so that their bytes
// go to the disk together while the descriptors suffice.
const maxUnsynced = 64

// stage makes every file complete under a temporary name, with its metadata, on
// the disk.
func (in *installer) stage(ctx context.Context) error {
	if in.fs == nil {
		if err := in.makeLeading(); err != nil {
			return err
		}
	}
	var todo []*installItem
	for _, it := range in.items {
		if !it.same {
			todo = append(todo, it)
		}
	}
	if len(todo) == 0 {
		return ctx.Err()
	}
	cleanUp(in.fs, in.dir)
	main, err := in.createLocked()
	if err != nil {
		return about("create", todo[0].dest, err)
	}
	if len(todo) == 1 {
		todo[0].file, todo[0].temp, in.temp = main, in.temp, "" // it stands for itself
	} else if err := main.Close(); err != nil {
		return onDest("close", todo[0], err)
	}
	begun := 0 // items before it are synced
	for i, it := range todo {
		if err := in.stageItem(ctx, i, it); err != nil {
			return err
		}
		if i-begun == maxUnsynced {
			if err := in.finishItem(todo[begun]); err != nil {
				return err
			}
			begun++
		}
	}
	for _, it := range todo[begun:] {
		if err := in.finishItem(it); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// stageItem fills a temporary file and gives it what it is to carry.
func (in *installer) stageItem(ctx context.Context, i int, it *installItem) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if it.file == nil {
		name := in.temp + "." + strconv.Itoa(i)
		f, err := in.fs.Create(name)
		if err != nil {
			return about("create", it.dest, err)
		}
		it.file, it.temp = f, name
	}
	src, err := openSource(ctx, it.source, it.st.Mode&unix.S_IFMT == unix.S_IFREG)
	if err != nil {
		return err
	}
	defer src.Close()
	if in.o.Strip {
		err = in.stripInto(ctx, it, src)
	} else {
		err = copySource(ctx, it.file, src)
	}
	if err != nil {
		return onDest("write", it, err)
	}
	if err := it.file.SetMeta(in.wantedMeta(it)); err != nil {
		return onDest("set owner, mode and attributes of", it, err)
	}
	if !in.o.NoSync && len(in.items) > 1 {
		it.file.StartSync()
	}
	return nil
}

// finishItem makes a staged file durable. The descriptor that can write is
// closed before anybody can execute the file.
func (in *installer) finishItem(it *installItem) error {
	if !in.o.NoSync {
		if err := it.file.Sync(); err != nil {
			return onDest("sync", it, err)
		}
	}
	f := it.file
	it.file = nil
	if err := f.Close(); err != nil {
		return onDest("close", it, err)
	}
	return nil
}

// onDest makes an error of the temporary file speak of the destination, and
// leaves alone one of the source.
func onDest(job string, it *installItem, err error) error {
	var p *fs.PathError
	if errors.Is(err, context.Canceled) || errors.Is(err, errStrip) || errors.As(err, &p) && p.Path == it.source {
		return err
	}
	return about(job, it.dest, err)
}

// commit gives the files their names, back to back, and makes that durable.
// Before each the old file has its second name, if it is to be kept, and that
// is durable first: a power cut may lose the new file, but not both.
func (in *installer) commit() error {
	for round, left := 0, true; left; round++ {
		var err error
		if left, err = in.commitRound(round); err != nil {
			in.undo()
			in.reportPlaced()
			return err
		}
	}
	in.reportPlaced()
	if in.temp != "" {
		in.fs.Remove(in.temp)
	}
	if in.o.NoSync || !in.result.Changed {
		return nil
	}
	if err := in.fs.SyncDir("."); err != nil {
		return fmt.Errorf("the files are in place, but a crash may still undo it: %w", err)
	}
	return nil
}

// undo takes away what was not placed, and the directories if nothing was.
func (in *installer) undo() {
	in.discard()
	for _, it := range in.items {
		if it.temp != "" && it.linked != "" {
			in.fs.Remove(it.linked)
		}
	}
	if !in.partly {
		in.unmake()
	}
	in.result.Changed = in.result.Changed || in.partly
}

// commitRound places the files that are the round's in their name: more than one
// has the same name only with numbered backups.
func (in *installer) commitRound(round int) (more bool, err error) {
	var now []*installItem
	for _, it := range in.items {
		if it.round == round {
			now = append(now, it)
		}
		more = more || it.round > round
	}
	if err := in.backUpAll(now, round); err != nil {
		return false, err
	}
	for _, it := range now {
		if !it.same {
			if err := in.place(it); err != nil {
				return false, about("install", it.dest, refusal(err))
			}
			it.temp, it.placed = "", true
			in.partly, in.result.Changed = true, true
		}
	}
	return more, nil
}

func (in *installer) backUpAll(items []*installItem, round int) error {
	if in.o.Backup == BackupNone {
		return nil
	}
	done := false
	for _, it := range items {
		if it.same || !it.exists && round == 0 {
			continue
		}
		if err := in.backUp(it); err != nil {
			return err
		}
		done = true
	}
	if !done || in.o.NoSync {
		return nil
	}
	return in.fs.SyncDir(".")
}

// place gives a staged file its name.
func (in *installer) place(it *installItem) error {
	if it.swap == "" {
		return in.fs.Rename(it.temp, it.base)
	}
	// The old file could not have two names. The new one goes to the backup's
	// name, and the two change places.
	err := in.fs.Place(it.temp, it.swap)
	if errors.Is(err, fs.ErrExist) {
		if err = in.fs.Rename(it.temp, it.swap); err == nil {
			in.partly = true // an older backup is gone
		}
	}
	if err != nil {
		return err
	}
	it.temp = it.swap // to be taken away again if the exchange fails
	return in.fs.Exchange(it.swap, it.base)
}

// refusal names what rename(2) refuses.
func refusal(err error) error {
	if errors.Is(err, unix.EBUSY) {
		return ErrInstallMount
	}
	return err
}
