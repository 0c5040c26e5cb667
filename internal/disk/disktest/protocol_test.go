package disktest_test

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

// The two protocols that moult stands on, small: one file, and a set under a
// journal. They show that the crash test passes what is right and catches each
// step that is left out.

// replaceOne puts new bytes under a name.
func replaceOne(fs disk.FS) error {
	f, err := fs.Create(".f.new")
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write([]byte("the new one")); err != nil {
		return err
	}
	if err := f.SetMeta(disk.Meta{UID: -1, GID: -1, Mode: 0o755}); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := fs.Rename(".f.new", "f"); err != nil {
		return err
	}
	return fs.SyncDir(".")
}

// The set: one file in each of two directories.
var set = []string{"d1/a", "d2/b"}

const isNew = "the new one"

func temp(name string) string { return path.Join(path.Dir(name), "."+path.Base(name)+".new") }

func replaceSet(fs disk.FS) error {
	for _, name := range set {
		f, err := fs.Create(temp(name))
		if err != nil {
			return err
		}
		if _, err = f.Write([]byte(isNew)); err == nil {
			err = f.SetMeta(disk.Meta{UID: -1, GID: -1, Mode: 0o755})
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if err := fs.SyncFS(); err != nil {
		return err
	}
	if err := writeJournal(fs); err != nil {
		return err
	}
	for _, name := range set {
		if err := fs.Exchange(temp(name), name); err != nil {
			return err
		}
	}
	return finishSet(fs)
}

func writeJournal(fs disk.FS) error {
	j, err := fs.Create("journal.new")
	if err != nil {
		return err
	}
	if _, err = j.Write([]byte("whole")); err == nil {
		err = j.Sync()
	}
	if err = errors.Join(err, j.Close()); err != nil {
		return err
	}
	if err := fs.Rename("journal.new", "journal"); err != nil {
		return err
	}
	return fs.SyncDir(".")
}

// finishSet makes the names durable, then forgets the journal, then the old.
func finishSet(fs disk.FS) error {
	for _, name := range set {
		if err := fs.SyncDir(path.Dir(name)); err != nil {
			return err
		}
	}
	if err := fs.Remove("journal"); err != nil {
		return err
	}
	if err := fs.SyncDir("."); err != nil {
		return err
	}
	return removeTemps(fs)
}

func removeTemps(fs disk.FS) error {
	for _, name := range append([]string{"journal"}, set...) {
		t := temp(name)
		if name == "journal" {
			t = "journal.new"
		}
		if err := fs.Remove(t); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// recoverSet decides by content, and can be repeated.
func recoverSet(dir string, fs disk.FS) error {
	if _, err := os.Stat(filepath.Join(dir, "journal")); errors.Is(err, os.ErrNotExist) {
		return removeTemps(fs)
	}
	// A kill may have come before the journal's name was synced: without this
	// sync the next power cut could keep an exchange and lose the journal.
	if err := fs.SyncDir("."); err != nil {
		return err
	}
	for _, name := range set {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if string(got) == isNew {
			continue
		}
		if got, err := os.ReadFile(filepath.Join(dir, temp(name))); err != nil || string(got) != isNew {
			return fmt.Errorf("%s is lost: %q %v", name, got, err)
		}
		if err := fs.Exchange(temp(name), name); err != nil {
			return err
		}
	}
	return finishSet(fs)
}

// A protocol, how to recover it, and what it may leave.
type protocol struct {
	initial string
	do      func(fs disk.FS) error
	recover func(dir string, fs disk.FS) error
	files   []string
}

var (
	one = protocol{initial: "f=old g=other", do: replaceOne, files: []string{"f"},
		recover: func(string, disk.FS) error { return nil }}
	many = protocol{initial: "d1/a=old d2/b=old", do: replaceSet, files: set, recover: recoverSet}
)

// check is the oracle: all old or all new, and new once it was said to be done.
func (p protocol) check(dir string, mustBeNew bool) error {
	var got []string
	for _, name := range p.files {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		got = append(got, fmt.Sprintf("%s %04o", data, info.Mode().Perm()))
	}
	slices.Sort(got)
	switch got = slices.Compact(got); {
	case len(got) == 1 && got[0] == isNew+" 0755":
		return nil
	case len(got) == 1 && got[0] == "old 0644" && !mustBeNew:
		return nil
	}
	return fmt.Errorf("holds %q, must be new: %v", got, mustBeNew)
}

// run records the protocol, with a fault seeded by mutate, and checks every state.
func (p protocol) run(t *testing.T, mutate func(disk.FS) disk.FS) disktest.Result {
	t.Helper()
	dir := disktest.TempDir(t)
	plant(t, dir, p.initial)
	rec := disktest.Record(t, dir, open(t, dir))
	if err := p.do(mutate(rec)); err != nil {
		t.Fatal(err)
	}
	rec.Mark("done")
	return disktest.Try(t, rec.States(disktest.Options{}), func(dir string, s disktest.State) error {
		root, err := disk.Open(dir)
		if err != nil {
			return err
		}
		defer root.Close()
		fs := disktest.NoSync(root)
		if err := p.recover(dir, fs); err != nil {
			return err
		}
		if err := p.check(dir, s.After("done")); err != nil {
			return err
		}
		before, err := disktest.Capture(dir)
		if err != nil {
			return err
		}
		if err := p.recover(dir, fs); err != nil {
			return fmt.Errorf("second recovery: %w", err)
		}
		after, err := disktest.Capture(dir)
		if err != nil {
			return err
		}
		if d := before.Diff(after); d != "" {
			return fmt.Errorf("second recovery changes something:\n%s", d)
		}
		return nil
	})
}

func same(fs disk.FS) disk.FS { return fs }

func TestProtocolsStand(t *testing.T) {
	for name, p := range map[string]protocol{"one file": one, "a set under a journal": many} {
		t.Run(name, func(t *testing.T) {
			r := p.run(t, same)
			t.Log(r)
			if len(r.Bad) > 0 || r.States < 10 {
				t.Error(r)
			}
		})
	}
}

// Each step of the protocols left out, and each order that matters reversed.
func TestMutantsAreCaught(t *testing.T) {
	is := disktest.Is
	drop := func(match func(disktest.Op) bool) func(disk.FS) disk.FS {
		return func(fs disk.FS) disk.FS { return disktest.Drop(fs, match) }
	}
	delay := func(match, until func(disktest.Op) bool) func(disk.FS) disk.FS {
		return func(fs disk.FS) disk.FS { return disktest.Delay(fs, match, until) }
	}
	for name, m := range map[string]struct {
		p      protocol
		mutate func(disk.FS) disk.FS
	}{
		"one: file not synced":                   {one, drop(is(disktest.OpSync, ""))},
		"one: directory not synced":              {one, drop(is(disktest.OpSyncDir, ""))},
		"one: nothing written":                   {one, drop(is(disktest.OpWrite, ""))},
		"one: metadata not set":                  {one, drop(is(disktest.OpFileMeta, ""))},
		"one: metadata after the sync":           {one, delay(is(disktest.OpFileMeta, ""), is(disktest.OpSync, ""))},
		"one: metadata after the rename":         {one, delay(is(disktest.OpFileMeta, ""), is(disktest.OpRename, ""))},
		"one: sync after the rename":             {one, delay(is(disktest.OpSync, ""), is(disktest.OpRename, ""))},
		"one: rename after the directory's sync": {one, delay(is(disktest.OpRename, ""), is(disktest.OpSyncDir, ""))},
		"set: files not synced":                  {many, drop(is(disktest.OpSyncFS, ""))},
		"set: journal not synced":                {many, drop(is(disktest.OpSyncDir, "."))},
		"set: d1 not synced":                     {many, drop(is(disktest.OpSyncDir, "d1"))},
		"set: d2 not synced":                     {many, drop(is(disktest.OpSyncDir, "d2"))},
		"set: no journal":                        {many, drop(is("", "journal"))},
		"set: journal after the first exchange":  {many, delay(is(disktest.OpRename, "journal"), is(disktest.OpExchange, ""))},
		"set: files synced after the journal":    {many, delay(is(disktest.OpSyncFS, ""), is(disktest.OpSyncDir, "."))},
		"set: journal removed before d2's sync": {many, func(fs disk.FS) disk.FS {
			return disktest.Delay(fs, is(disktest.OpSyncDir, "d2"), is(disktest.OpRemove, "journal"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			if r := m.p.run(t, m.mutate); len(r.Bad) == 0 {
				t.Errorf("not caught in %s", r)
			} else {
				t.Log(strings.Split(r.String(), "\n\t")[0])
			}
		})
	}
}

// A recovery that found the names right and trusted them would lose them in the
// next power cut: nobody has synced what the killed process did.
func TestPowerCutAfterARecoveryAfterAKill(t *testing.T) {
	dir := disktest.TempDir(t)
	plant(t, dir, many.initial)
	rec := disktest.Record(t, dir, open(t, dir))
	must(t, many.do(rec))
	initial, log := rec.Initial(), rec.Log()

	bad := func(mutate func(disk.FS) disk.FS) (n int) {
		for s := range disktest.Kills(initial, log) {
			dir := disktest.TempDir(t)
			must(t, s.Materialize(dir))
			again := disktest.Record(t, dir, open(t, dir))
			must(t, recoverSet(dir, mutate(again)))
			isNow := many.check(dir, true) == nil
			again.Mark("done")
			both := slices.Concat(log[:s.First], again.Log())
			states := slices.Collect(disktest.States(initial, both, disktest.Options{From: s.First}))
			r := disktest.Try(t, states, func(dir string, s disktest.State) error {
				if err := recoverSet(dir, disktest.NoSync(open(t, dir))); err != nil {
					return err
				}
				return many.check(dir, isNow && s.After("done"))
			})
			n += len(r.Bad)
		}
		return n
	}
	if n := bad(same); n > 0 {
		t.Errorf("%d bad states", n)
	}
	for what, forget := range map[string]func(disktest.Op) bool{
		"what it finds done": func(o disktest.Op) bool { return o.Kind == disktest.OpSyncDir && o.Name != "." },
		"the journal":        disktest.Is(disktest.OpSyncDir, "."),
	} {
		if bad(func(fs disk.FS) disk.FS { return disktest.Drop(fs, forget) }) == 0 {
			t.Errorf("a recovery that does not sync %s is not caught", what)
		}
	}
}
