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
