package include_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"moult.example/internal/testneed"
)

// Successors that start, pass the preflight, and fail before they are ready. The
// old code runs again in the same process, with the same connections, within a
// second of the failure; and does not try that file again.
func TestTakenBack(t *testing.T) {
	t.Parallel()
	all := t.TempDir()
	bad := compile(t, "gcc", cServer, filepath.Join(all, "bad"), "-std=gnu99", "-O0", "-w", "-pthread",
		filepath.Join(root, "include/testdata/fault.c"), "-DBROKEN=extern int fault(int (*)(const char *)); if (fault(moult_rollback)) return 3",
		version("bad"))
	for _, fault := range []struct{ name, why string }{
		{"segfault", "segmentation fault"},
		{"abort", "aborted"},
		{"divide", "arithmetic error"},
		{"illegal", "illegal instruction"},
		{"bus", "bus error"},
		{"exit", "exited"},
		{"return", "exited"},
		{"state", "the saved state is of version 9"},
		{"overflow", "segmentation fault"},
		{"thread", "segmentation fault"},
		{"fork", "exited"}, // after a child crashed, which is not the program
	} {
		t.Run(fault.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			path := filepath.Join(dir, "server")
			os.WriteFile(filepath.Join(dir, "fault"), []byte(fault.name), 0o644)
			place(t, server(t, version("1")), path)
			p := start(t, path)
			c, err := dial(p.port)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := c.post("before"); err != nil {
				t.Fatal(err)
			}
			place(t, bad, path)
			p.says("the new version was taken back: ")
			if a, err := c.post("after"); err != nil || a.version != "1" || a.body != "after" || a.pid != p.cmd.Process.Pid {
				t.Fatalf("on the old connection: got %+v, %v, want version 1 of process %d", a, err, p.cmd.Process.Pid)
			}
			if out := p.out.String(); !strings.Contains(out, "taken back: "+fault.why) {
				t.Errorf("want the reason %q in:\n%s", fault.why, out)
			}
			if name, _ := os.ReadFile("/proc/" + itoa(p.cmd.Process.Pid) + "/comm"); strings.TrimSpace(string(name)) != "server" {
				t.Errorf("the process is called %q, want server", name)
			}
			p.says("rejected: ")
			generation := p.serves("1").generation
			place(t, bad, path) // the same bytes once more
			time.Sleep(400 * time.Millisecond)
			if a := p.serves("1"); a.generation != generation || strings.Count(p.out.String(), "taken back") != 1 {
				t.Errorf("generation %d, want %d: tried again\n%s", a.generation, generation, p.out.String())
			}
			place(t, server(t, version("2")), path)
			p.serves("2")
			if a, err := c.post("last"); err != nil || a.version != "2" {
				t.Errorf("on the old connection: got %+v, %v, want version 2", a, err)
			}
		})
	}
}

// A successor that hangs is taken back when its time is over.
func TestHangs(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "server")
	bad := compile(t, "gcc", cServer, filepath.Join(dir, "bad"), "-std=c99", "-w", "-DBROKEN=for (;;) pause()", "-DREADY_MS=400", version("bad"))
	place(t, server(t, version("1")), path)
	p := start(t, path)
	place(t, bad, path)
	p.says("taken back: not ready in time")
	p.serves("1")
}

// New code shows that it is not ready yet, and may be taken back.
func TestStarting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "server")
	bad := compile(t, "gcc", cServer, filepath.Join(dir, "bad"), "-std=gnu99", "-w", `-DBROKEN=while (access("end", F_OK) != 0) usleep(2000); abort()`)
	place(t, server(t, version("1")), path)
	p := start(t, path)
	shows := func(generation string, starting bool) {
		t.Helper()
		p.wait("sign of generation "+generation, func() bool {
			text := p.mark()
			return strings.Contains(text, "\ngeneration "+generation+"\n") && strings.Contains(text, "\nstarting 1\n") == starting
		})
	}
	shows("0", false)
	place(t, bad, path)
	shows("1", true)
	os.WriteFile(filepath.Join(dir, "end"), nil, 0o644)
	p.says("taken back")
	shows("2", false)
}

// Files that can never run are found before anything is let go.
func TestNeverExecuted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "server")
	good, err := os.ReadFile(server(t, version("2")))
	if err != nil {
		t.Fatal(err)
	}
	machine := append([]byte(nil), good...)
	machine[18], machine[19] = 0xb7, 0 // e_machine: AArch64
	class := append([]byte(nil), good...)
	class[4] = 1
	hello := filepath.Join(dir, "hello.c")
	os.WriteFile(hello, []byte("int main(void) { return 0; }\n"), 0o644)
	stranger, err := os.ReadFile(compile(t, "gcc", hello, filepath.Join(dir, "hello")))
	if err != nil {
		t.Fatal(err)
	}
	lib, user := filepath.Join(dir, "lib.c"), filepath.Join(dir, "libx.so")
	os.WriteFile(lib, []byte("int missing(void) { return 1; }\n"), 0o644)
	compile(t, "gcc", lib, user, "-shared", "-fPIC")
	missing := compile(t, "gcc", cServer, filepath.Join(dir, "missing"), "-std=gnu99", "-w",
		"-DBROKEN=extern int missing(void); missing()", user, "-Wl,-rpath,"+dir, version("bad"))
	os.WriteFile(lib, []byte("int other(void) { return 1; }\n"), 0o644)
	compile(t, "gcc", lib, user+".new", "-shared", "-fPIC")
	os.Rename(user+".new", user)
	symbol, err := os.ReadFile(missing)
	if err != nil {
		t.Fatal(err)
	}
	exits := compile(t, "gcc", cServer, filepath.Join(dir, "exits"), "-std=gnu99", "-w", "-D_GNU_SOURCE",
		"-include", "stdlib.h", "-include", "unistd.h", version("bad"), "-DEARLY", "-Wl,-init,early_exit", earlyExit(t, dir))
	early, err := os.ReadFile(exits)
	if err != nil {
		t.Fatal(err)
	}

	place(t, server(t, version("1")), path)
	p := start(t, path)
	for _, f := range []struct {
		name string
		data []byte
		mode os.FileMode
		why  string
	}{
		{"not executable", good[:len(good):len(good)], 0o644, "not executable (yet)"},
		{"set-user-id", good[:len(good):len(good)], 0o755 | os.ModeSetuid, "set-user-id"},
		{"truncated", good[:len(good)/2], 0o755, "truncated"},
		{"a few bytes", good[:100], 0o755, "truncated"},
		{"another machine", machine, 0o755, "for another machine"},
		{"another word size", class, 0o755, "for another machine (word size)"},
		{"a script", []byte("#!/bin/sh\nexit 0\n"), 0o755, "not an ELF program"},
		{"without the library", stranger, 0o755, "does not contain moult.h"},
		{"missing symbol", symbol, 0o755, "missing"},
		{"exits at once", early, 0o755, "its preflight ended with status 7"},
	} {
		put(t, f.data, path, f.mode)
		p.says(f.why)
		if a := p.serves("1"); a.generation != 0 {
			t.Errorf("%s: generation %d, want 0", f.name, a.generation)
		}
	}
	put(t, good, path, 0o644)
	p.wait("another refusal", func() bool { return strings.Count(p.out.String(), "not executable") > 1 })
	os.Chmod(path, 0o755) // the rest of an installation
	p.serves("2")
}

// earlyExit is a program that does not come as far as main.
func earlyExit(t testing.TB, dir string) string {
	path := filepath.Join(dir, "early.c")
	os.WriteFile(path, []byte(`#include <stdlib.h>
#include <unistd.h>
__attribute__((constructor)) void early_exit(void) { if (getenv("MOULT_PREFLIGHT")) _exit(7); }
`), 0o644)
	return path
}

// On a file system that is mounted noexec nothing is executed, nor let go.
func TestNoexec(t *testing.T) {
	t.Parallel()
	testneed.Root(t)
	dir := t.TempDir()
	mnt := filepath.Join(dir, "mnt")
	os.Mkdir(mnt, 0o755)
	if err := syscall.Mount("tmpfs", mnt, "tmpfs", syscall.MS_NOEXEC, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(mnt, syscall.MNT_DETACH) })
	place(t, server(t, version("1")), filepath.Join(dir, "one"))
	place(t, server(t, version("2")), filepath.Join(mnt, "two"))
	os.Symlink("one", filepath.Join(dir, "server"))
	p := start(t, filepath.Join(dir, "server"))
	os.Symlink("mnt/two", filepath.Join(dir, "new"))
	os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "server"))
	p.says("mounted noexec")
	if a := p.serves("1"); a.generation != 0 {
		t.Errorf("generation %d, want 0", a.generation)
	}
}

// A version that crashes after it was ready is started again by whoever watches
// over it; after three times its predecessor runs.
func TestBootCounter(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	state := filepath.Join(dir, "state")
	os.Mkdir(state, 0o700)
	path := filepath.Join(dir, "server")
	good := server(t, version("1"))
	bad := compile(t, "gcc", cServer, filepath.Join(dir, "bad"), "-std=gnu99", "-w",
		`-DBROKEN_LATER=static int n; if (n++ > 5) abort()`, version("bad"))
	place(t, good, path)
	p := start(t, path, "-s", state)
	port := p.port
	place(t, bad, path)
	if err := p.ended(); err == nil {
		t.Fatal("the bad version ended with 0, want a crash")
	}
	for i := 2; i <= 3; i++ { // the upgrade was the first start
		if out, err := exec.Command(path, "-p", itoa(port), "-s", state).CombinedOutput(); err == nil || !strings.Contains(string(out), "version bad") {
			t.Fatalf("start %d: %v\n%s", i, err, out)
		}
	}
	p = run(t, path, "-p", itoa(port), "-s", state)
	p.port = port
	p.says("did not survive three starts; going back")
	p.serves("1")
	time.Sleep(300 * time.Millisecond)
	p.serves("1")
	p.cmd.Process.Signal(syscall.SIGTERM)
	p.ended()
	p = run(t, path, "-p", itoa(port), "-s", state) // nor is it tried once more
	p.port = port
	p.serves("1")
	place(t, server(t, version("2")), path)
	p.serves("2")
}
