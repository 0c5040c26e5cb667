package deploy_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

// TestInstallSweeps: leftovers of the dead go, also those of a run that staged
// several files or stripped one; what is alive, and what is none of ours, stays.
func TestInstallSweeps(t *testing.T) {
	src, dir := installTrees(t)
	dead := []string{".moult-install.A", ".moult-install.B.0", ".moult-install.B.1", ".moult-install.C", ".moult-install.C.old"}
	stays := []string{".moult-installed", "moult-install.A", ".moult-install.LIVE", ".moult-install.LIVE.0"}
	for _, name := range append(append([]string{}, dead...), stays...) {
		put(t, filepath.Join(dir, name), "left", 0o600)
	}
	for _, d := range []string{".moult-install.C.d", ".moult-install.D"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put(t, dir+"/.moult-install.C.d/stABCD", "left by strip", 0o600)
	if err := os.Symlink("x", dir+"/.moult-install.E"); err != nil {
		t.Fatal(err)
	}
	live, err := os.Open(dir + "/.moult-install.LIVE")
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	if err := unix.Flock(int(live.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	install(t, deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: dir})
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	left := map[string]bool{}
	for _, name := range names {
		left[name.Name()] = true
	}
	for _, name := range dead {
		if left[name] {
			t.Errorf("%s is still there", name)
		}
	}
	for _, name := range append(stays, ".moult-install.E") { // a link is none of ours
		if !left[name] {
			t.Errorf("%s is gone", name)
		}
	}
	if left[".moult-install.C.d"] || left[".moult-install.D"] {
		t.Error("temporary directories are still there")
	}
}

// TestInstallSweepsNobodyAlive: a run that has come to any step survives another
// one that sweeps in the same directory at that moment. Just after it has made
// its temporary file, before the lock is there, or its directory, it may lose
// it, and makes another one.
func TestInstallSweepsNobodyAlive(t *testing.T) {
	for _, job := range installJobs {
		src, dir := installTrees(t)
		unlocked := 0
		o := job.options(src, dir, func(rel string, under disk.FS) disk.FS {
			return disktest.Wrap(under, func(op *disktest.Op, do func() error) error {
				err := do()
				other := deploy.InstallOptions{Sources: []string{src + "/y"}, Dest: filepath.Join(dir, rel, "other"), NoSync: true}
				if op.Kind == disktest.OpMkdir || op.Kind == disktest.OpCreate {
					unlocked++
				}
				if unlocked <= 3 || op.Kind != disktest.OpMkdir && op.Kind != disktest.OpCreate {
					install(t, other)
				}
				return err
			})
		})
		install(t, o)
		if err := job.state(dir, true); err != nil {
			t.Errorf("%s: %v", job.name, err)
		}
		noLeftovers(t, dir)
	}
}

// TestInstallConcurrent lets many install the same file at once, and make the
// same directories: whoever reads it finds it whole, always, and at last it is
// one of theirs.
func TestInstallConcurrent(t *testing.T) {
	const many, rounds, size = 6, 20, 100_000
	src, dir := disktest.TempDir(t), disktest.TempDir(t)
	for i := range many {
		put(t, fmt.Sprintf("%s/%d", src, i), strings.Repeat(string(rune('a'+i)), size), 0o600)
	}
	whole := func(path string) error {
		text, err := os.ReadFile(path)
		if err == nil && (len(text) != size || strings.Trim(string(text), string(text[:1])) != "") {
			err = fmt.Errorf("%s is torn: %d bytes", path, len(text))
		}
		return err
	}
	dest := dir + "/n/o/x"
	var writers, readers sync.WaitGroup
	stop := make(chan struct{})
	for i := range many {
		writers.Go(func() {
			for round := range rounds {
				o := deploy.InstallOptions{
					Sources: []string{fmt.Sprintf("%s/%d", src, i)}, Dest: fmt.Sprintf("%s/n/o/%d", dir, round),
					MakeLeading: true, NoSync: round%2 == 0,
				}
				if _, err := deploy.Install(context.Background(), o); err != nil {
					t.Error(err)
				}
				o.Dest, o.Backup = dest, deploy.BackupKind(round%4)
				if _, err := deploy.Install(context.Background(), o); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 2 {
		readers.Go(func() {
			seen := false
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := whole(dest)
				if seen = seen || err == nil; seen && err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
	close(stop)
	readers.Wait()
	names, err := os.ReadDir(dir + "/n/o")
	if err != nil || len(names) < rounds {
		t.Fatalf("%d files (%v), want %d and the backups", len(names), err, rounds+1)
	}
	for _, name := range names {
		if err := whole(filepath.Join(dir, "n/o", name.Name())); err != nil {
			t.Error(err)
		}
	}
	noLeftovers(t, dir)
}
