package deploy_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
	"moult.example/internal/testneed"
)

// TestInstallErrors fails every operation of every job, once and for good. An
// error means that nothing has changed, unless it says that a part has; what is
// there is whole; and no error is swallowed.
func TestInstallErrors(t *testing.T) {
	for _, job := range installJobs {
		t.Run(job.name, func(t *testing.T) {
			for at := 1; ; at++ {
				hit := false
				for _, errno := range []syscall.Errno{unix.EIO, unix.ENOSPC, unix.EXDEV, unix.EROFS, unix.EPERM} {
					for _, on := range []bool{false, true} {
						hit = job.failsAt(t, disktest.Fault{At: at, On: on, Errno: errno}) || hit
					}
				}
				if !hit {
					if at < 4 {
						t.Errorf("only %d operations", at-1)
					}
					return
				}
			}
		})
	}
}

func (job installJob) failsAt(t *testing.T, fault disktest.Fault) (hit bool) {
	src, dir := installTrees(t)
	before := look(t, dir)
	var counters []*disktest.Injector
	// All disks count together: what one has done is left out by the next.
	o := job.options(src, dir, func(_ string, under disk.FS) disk.FS {
		f := fault
		for _, c := range counters {
			f.At -= c.Count()
		}
		if f.At < 1 && fault.On {
			f.At = 1
		}
		in := disktest.Inject(under, f)
		counters = append(counters, in)
		return in
	})
	r, err := deploy.Install(t.Context(), o)
	var op disktest.Op
	for _, c := range counters {
		if o, ok := c.Hit(); ok && !hit {
			op, hit = o, true
		}
	}
	if !hit {
		if err != nil {
			t.Errorf("error %v without a fault", err)
		}
		return false
	}
	why := fmt.Sprintf("%v at operation %d (%v), on: %v: error %v", fault.Errno, fault.At, op, fault.On, err)
	if stateErr := job.state(dir, err == nil); stateErr != nil {
		t.Errorf("%s: %v", why, stateErr)
	}
	partly := errors.Is(err, deploy.ErrInstallPartly)
	if partly != (err != nil && r.Changed) {
		t.Errorf("%s: says partly: %v, changed: %v", why, partly, r.Changed)
	}
	// Only what is swept up may fail in silence.
	if err == nil && op.Kind != disktest.OpRemove && !job.hasFallback(op) {
		t.Errorf("%s: swallowed", why)
	}
	if err != nil && strings.Contains(err.Error(), ".moult-install") {
		t.Errorf("%s: speaks of the temporary file", why)
	}
	if err == nil || partly || fault.On {
		return true // a dead disk lets nobody tidy up
	}
	if diff := before.Diff(look(t, dir)); diff != "" {
		t.Errorf("%s: changed all the same:\n%s", why, diff)
	}
	return true
}

// hasFallback says whether there is another way than the one that failed.
func (job installJob) hasFallback(op disktest.Op) bool { return op.Kind == disktest.OpLink }

// childInstall is what a child process is to install.
type childInstall struct {
	Source, Dest string
	Keep         bool
}

// TestInstallChild is no test: it is the program that others start and kill.
func TestInstallChild(t *testing.T) {
	text := os.Getenv("MOULT_TEST_INSTALL")
	if text == "" {
		return // not a child
	}
	var c childInstall
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		t.Fatal(err)
	}
	_, err := deploy.Install(context.Background(), deploy.InstallOptions{
		Sources: []string{c.Source}, Dest: c.Dest, Keep: c.Keep, Mode: map[bool]string{false: "4711"}[c.Keep],
		Disk: func(path string) (disk.FS, error) {
			root, err := disk.Open(path)
			if err != nil {
				return nil, err
			}
			return disktest.FromEnv(root)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func installChild(t testing.TB, c childInstall, env ...string) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestInstallChild$")
	cmd.Env = append(os.Environ(), append(env, "MOULT_TEST_INSTALL="+string(text))...)
	return cmd
}

// TestInstallKilled kills the real thing before and after each operation: the
// old file or the new one is there, and the next installation leaves nothing
// behind.
func TestInstallKilled(t *testing.T) {
	for _, kill := range []string{"kill", "kill-after"} {
		for at := 1; ; at++ {
			src, dir := installTrees(t)
			err := installChild(t, childInstall{Source: src + "/x", Dest: dir + "/x"}, fmt.Sprintf("MOULT_FAULT=%s:%d", kill, at)).Run()
			if err == nil {
				if at < 6 {
					t.Errorf("%s: only %d operations", kill, at-1)
				}
				break
			}
			if ws, ok := err.(*exec.ExitError); !ok || ws.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("%s:%d: %v", kill, at, err)
			}
			if err := installJobs[0].state(dir, false); err != nil {
				t.Errorf("%s:%d: %v", kill, at, err)
			}
			install(t, installJobs[0].o(src, dir))
			if err := installJobs[0].state(dir, true); err != nil {
				t.Errorf("%s:%d, and installed again: %v", kill, at, err)
			}
			noLeftovers(t, dir)
		}
	}
}

// TestInstallKeepOfOthers: who may not give the file to whom it belonged is
// refused, and gets no set-id file of his own instead.
func TestInstallKeepOfOthers(t *testing.T) {
	testneed.Root(t)
	src, dir := installTrees(t)
	for _, d := range []string{src, dir} {
		if err := errors.Join(os.Chmod(d, 0o777), os.Chmod(filepath.Dir(d), 0o755), os.Chmod(src+"/x", 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Chmod(dir+"/x", 0o4755); err != nil {
		t.Fatal(err)
	}
	before := look(t, dir)
	cmd := installChild(t, childInstall{Source: src + "/x", Dest: dir + "/x", Keep: true})
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	cmd.Dir = "/"
	exe, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	put(t, src+"/test", string(exe), 0o755) // the test's own directory is root's alone
	cmd.Path = src + "/test"
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "operation not permitted") {
		t.Errorf("replacing root's file as nobody: %v: %s, want it refused", err, out)
	}
	if diff := before.Diff(look(t, dir)); diff != "" {
		t.Errorf("and the tree has changed:\n%s", diff)
	}
}

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
