package stale

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"moult.example/internal/testneed"
)

// programs is a directory for what the tests compile.
var programs string

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "report" {
		printReport(os.Args[2:])
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "find" {
		printFound()
		return
	}
	var err error
	if programs, err = os.MkdirTemp("", "moult-stale-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(programs)
	os.Exit(code)
}

// compile makes programs/hold, programs/static (the same, static) and
// programs/libx.so.
var compile = sync.OnceValue(func() error {
	lib := filepath.Join(programs, "x.c")
	err := os.WriteFile(lib, []byte("int x(void) { return 42; }\n"), 0o644)
	if err != nil {
		return err
	}
	for _, args := range [][]string{
		{"-o", "hold", "testdata/hold.c", "-pthread", "-ldl"},
		{"-o", "static", "testdata/hold.c", "-static", "-pthread"},
		{"-o", "libx.so", "-shared", "-fPIC", lib},
	} {
		args[1] = filepath.Join(programs, args[1])
		out, err := exec.Command("cc", append(args, "-O1", "-w")...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("cc %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return nil
})

// generations makes two trees, gen/41 and gen/42, whose files are hard links
// of each other, under a new directory whose resolved path is returned.
func generations(t *testing.T) (dir string, trees []Tree) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return dir, generationsIn(t, dir)
}

func generationsIn(t *testing.T, dir string) []Tree {
	t.Helper()
	testneed.Tool(t, "cc")
	if err := compile(); err != nil {
		t.Fatal(err)
	}
	first, second := filepath.Join(dir, "gen/41"), filepath.Join(dir, "gen/42")
	for _, d := range []string{"bin", "lib/deep", "etc"} {
		mkdir(t, filepath.Join(first, d))
		mkdir(t, filepath.Join(second, d))
	}
	for name, from := range map[string]string{
		"bin/hold":     "hold",
		"bin/static":   "static",
		"lib/libx.so":  "libx.so",
		"etc/big":      "hold",
		"lib/deep/one": "libx.so",
	} {
		copyFile(t, filepath.Join(programs, from), filepath.Join(first, name))
		if err := os.Link(filepath.Join(first, name), filepath.Join(second, name)); err != nil {
			t.Fatal(err)
		}
	}
	return []Tree{{Dir: first}, {Dir: second}}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	// Closed before anybody can fork, so that it can be executed (ETXTBSY).
	syscall.ForkLock.RLock()
	err = os.WriteFile(to, data, 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
}

// start runs a command that prints "ready", and kills it after the test.
func start(t *testing.T, cmd *exec.Cmd) (pid int) {
	t.Helper()
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("%s said %q, %v", cmd, line, err)
	}
	return cmd.Process.Pid
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

// users asks who uses the trees and returns what this process uses, one use a
// string: "0 exe gen/41/bin/hold", with paths below dir made relative.
func users(t *testing.T, dir string, trees []Tree, pid int) []string {
	t.Helper()
	rep, err := Users(t.Context(), Options{}, trees)
	if err != nil {
		t.Fatal(err)
	}
	return usesOf(rep, dir, pid)
}

func usesOf(rep Usage, dir string, pid int) []string {
	var out []string
	for _, u := range rep.Users {
		if u.PID != pid {
			continue
		}
		for _, x := range u.Uses {
			out = append(out, fmt.Sprintf("%d %s %s", x.Of, x.By, strings.TrimPrefix(x.Path, dir+"/")))
		}
	}
	return out
}

func wantUses(t *testing.T, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
