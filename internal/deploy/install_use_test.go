package deploy_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/deploy"
	"moult.example/internal/testneed"
)

const (
	useMain = `#include <stdio.h>
int lib_version(void);
int main(void) {
	char line[16];
	while (fgets(line, sizeof line, stdin)) {
		printf("%d %d\n", PROG, lib_version());
		fflush(stdout);
	}
	return 0;
}
`
	useLib = "int lib_version(void) { return LIB; }\n"
)

// buildVersions compiles a program and its library in n versions, into 1, 2, ….
func buildVersions(t testing.TB, n int) string {
	t.Helper()
	gcc := testneed.Tool(t, "gcc")
	dir := t.TempDir()
	put(t, dir+"/main.c", useMain, 0o600)
	put(t, dir+"/lib.c", useLib, 0o600)
	for v := 1; v <= n; v++ {
		out := fmt.Sprintf("%s/%d", dir, v)
		if err := os.Mkdir(out, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{fmt.Sprintf("-DLIB=%d", v), "-shared", "-fPIC", "-o", out + "/libuse.so", dir + "/lib.c"},
			{fmt.Sprintf("-DPROG=%d", v), "-o", out + "/use", dir + "/main.c", "-L" + out, "-luse", "-Wl,-rpath,$ORIGIN"},
		} {
			if msg, err := exec.Command(gcc, args...).CombinedOutput(); err != nil {
				t.Fatalf("gcc %q: %v: %s", args, err, msg)
			}
		}
	}
	return dir
}

// running is a program that answers each line with the versions it runs.
type running struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func start(t testing.TB, path string) *running {
	t.Helper()
	r := &running{cmd: exec.Command(path)}
	var err error
	if r.in, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.out = bufio.NewReader(out)
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.in.Close()
		if err := r.cmd.Wait(); err != nil {
			t.Errorf("%s ended with %v", path, err)
		}
	})
	return r
}

func (r *running) says(t testing.TB, want string) {
	t.Helper()
	fmt.Fprintln(r.in)
	got, err := r.out.ReadString('\n')
	if err != nil || strings.TrimSpace(got) != want {
		t.Errorf("process %d says %q (%v), want %q", r.cmd.Process.Pid, got, err, want)
	}
}

// TestInstallInUse replaces a program and its library under running processes,
// version after version: each process keeps the code that it began with, and a
// new one gets the new.
func TestInstallInUse(t *testing.T) {
	const versions = 4
	src, dir := buildVersions(t, versions), t.TempDir()
	var all []*running
	for v := 1; v <= versions; v++ {
		from := filepath.Join(src, fmt.Sprint(v))
		install(t, deploy.InstallOptions{Sources: []string{from + "/libuse.so", from + "/use"}, TargetDir: dir})
		all = append(all, start(t, dir+"/use"))
		for i, r := range all {
			r.says(t, fmt.Sprintf("%d %d", i+1, i+1))
		}
	}
	noLeftovers(t, dir)
}

// TestInstallNeverBusy: whoever executes the file at any moment gets it, old or
// new. A descriptor that can write, left open a moment too long, would give
// ETXTBSY; a name that is missing for a moment, ENOENT. The one who executes is
// another process, since a fork of this one would itself hold descriptors.
func TestInstallNeverBusy(t *testing.T) {
	for _, tool := range []string{"sh", "true"} {
		testneed.Tool(t, tool)
	}
	prog, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	dir, stop := t.TempDir(), filepath.Join(t.TempDir(), "stop")
	install(t, deploy.InstallOptions{Sources: []string{prog}, Dest: dir + "/x"})
	cmd := exec.Command("sh", "-c", `n=0; while ! [ -e "$2" ]; do "$1" || { echo "status $?"; exit 1; }; n=$((n+1)); done; echo $n`, "sh", dir+"/x", stop)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 300 {
		install(t, deploy.InstallOptions{Sources: []string{prog}, Dest: dir + "/x", NoSync: true})
	}
	put(t, stop, "", 0o600)
	said, _ := io.ReadAll(out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("executing it while it was replaced: %s (%v)", said, err)
	}
	if strings.TrimSpace(string(said)) == "0" {
		t.Error("it was never executed")
	}
}
