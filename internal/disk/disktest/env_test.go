package disktest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

// The test is its own real program: with this variable it replaces one file in
// the directory that the variable names.
const replaceIn = "DISKTEST_REPLACE_IN"

func TestMain(m *testing.M) {
	if dir := os.Getenv(replaceIn); dir != "" {
		if err := realProgram(dir); err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func realProgram(dir string) error {
	root, err := disk.Open(dir)
	if err != nil {
		return err
	}
	fs, err := disktest.FromEnv(root)
	if err != nil {
		return err
	}
	again, err := disktest.FromEnv(root) // counts together with the first
	if err != nil {
		return err
	}
	if err := again.Symlink("text", "marker"); err != nil {
		return err
	}
	return replaceOne(fs)
}

// program runs it in a new directory and returns that, the log, what it printed
// and how it ended.
func program(t *testing.T, fault string) (dir, log, stderr string, status syscall.WaitStatus) {
	t.Helper()
	dir, logFile := disktest.TempDir(t), filepath.Join(t.TempDir(), "log")
	plant(t, dir, one.initial)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), replaceIn+"="+dir, "MOULT_FAULT="+fault, "MOULT_FAULT_LOG="+logFile)
	var out strings.Builder
	cmd.Stderr = &out
	cmd.Run()
	data, _ := os.ReadFile(logFile)
	return dir, string(data), out.String(), cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func TestKillOfARealProgram(t *testing.T) {
	_, log, _, status := program(t, "")
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if status.ExitStatus() != 0 || len(lines) != 8 || lines[0] != "1 symlink marker -> text" || lines[6] != "7 syncdir ." {
		t.Fatalf("ended with %v; log:\n%s", status, log)
	}
	for n := range lines {
		for _, how := range []string{"kill:", "kill-after:"} {
			fault := how + string(rune('1'+n))
			dir, log, _, status := program(t, fault)
			if status.Signal() != syscall.SIGKILL {
				t.Errorf("%s: ended with %v", fault, status)
			}
			if got := strings.Count(log, "\n"); got != n+1 {
				t.Errorf("%s: %d lines in the log, want %d", fault, got, n+1)
			}
			if err := one.check(dir, false); err != nil {
				t.Errorf("%s: %v", fault, err)
			}
			_, err := os.Lstat(filepath.Join(dir, "marker"))
			if there, want := err == nil, n > 0 || how == "kill-after:"; there != want {
				t.Errorf("%s: the first operation was done: %v, want %v", fault, there, want)
			}
		}
	}
}

func TestFaultOfARealProgram(t *testing.T) {
	for fault, want := range map[string]string{
		"enospc:3":             "write .f.new: no space left on device",
		"eio:1:sync":           "sync .f.new: input/output error",
		"exdev:1:rename:f":     "rename .f.new f: invalid cross-device link",
		"eio:2-":               "create .f.new: input/output error",
		"erofs:1::marker":      "symlink marker: read-only file system",
		"eio:1:sync:other":     "",
		"":                     "",
		"nonsense:1":           `MOULT_FAULT=nonsense:1: unknown fault "nonsense"`,
		"eio":                  "MOULT_FAULT=eio: want WHAT:N",
		"eio:0":                `MOULT_FAULT=eio:0: bad number "0"`,
		"eio:1:sync:[unclosed": `MOULT_FAULT=eio:1:sync:[unclosed: bad pattern "[unclosed"`,
	} {
		if _, _, got, _ := program(t, fault); got != want {
			t.Errorf("MOULT_FAULT=%s: error %q, want %q", fault, got, want)
		}
	}
}
