package include_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"moult.example/internal/testneed"
)

// root is the root of the module.
var root = func() string {
	dir, err := filepath.Abs("..")
	if err != nil {
		panic(err)
	}
	return dir
}()

const (
	cServer   = "examples/c-server/server.c"
	cppServer = "examples/cpp-epoll-server/server.cc"
)

// strict are the warnings that the header and the examples have to be free of.
var strict = []string{"-Wall", "-Wextra", "-pedantic", "-Wconversion", "-Werror", "-g"}

// compile makes a program of a file in the module, or of one by absolute path.
func compile(t testing.TB, compiler, source, out string, flags ...string) string {
	t.Helper()
	testneed.Tool(t, compiler)
	if !filepath.IsAbs(source) {
		source = filepath.Join(root, source)
	}
	args := append([]string{"-I", filepath.Join(root, "include"), source, "-o", out}, flags...)
	cmd := exec.Command(compiler, args...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", compiler, strings.Join(args, " "), err, text)
	}
	return out
}

// built makes the C server once for each set of flags; the tests copy it.
var built struct {
	sync.Mutex
	dir  string
	done map[string]string
}

func server(t testing.TB, flags ...string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	key := strings.Join(flags, " ")
	if path, ok := built.done[key]; ok {
		return path
	}
	path := filepath.Join(built.dir, fmt.Sprintf("server%d", len(built.done)))
	compile(t, "gcc", cServer, path, append([]string{"-std=c99", "-O1", "-Wall", "-Wextra", "-Werror"}, flags...)...)
	built.done[key] = path
	return path
}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "moult-include-")
	if err != nil {
		panic(err)
	}
	built.dir, built.done = dir, map[string]string{}
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// version is the flag that makes a server say this version.
func version(v string) string { return `-DVERSION="` + v + `"` }

// place puts a copy of a file at path as one should: a new file, and a rename.
func place(t testing.TB, from, path string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	put(t, data, path, 0o755)
}

func put(t testing.TB, data []byte, path string, mode os.FileMode) {
	t.Helper()
	// A descriptor of a file that is being written, inherited by a process that
	// another test forks at this moment, makes it busy: the lock of package syscall.
	syscall.ForkLock.RLock()
	err := os.WriteFile(path+".new", data, mode)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path+".new", mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// output is the file to which a program says what it says; it may be read while
// it runs, and nobody has to wait for a successor to close it.
type output struct{ path string }

func (o output) String() string {
	text, _ := os.ReadFile(o.path)
	return string(text)
}

// process is a server that runs.
type process struct {
	testing.TB
	cmd  *exec.Cmd
	out  output
	port int
	path string
	done chan error
	gone bool
}

// start runs the program at path with a free port, and waits until it answers.
func start(t testing.TB, path string, args ...string) *process {
	t.Helper()
	port := testneed.Port(t)
	p := run(t, path, append([]string{"-p", fmt.Sprint(port)}, args...)...)
	p.port = port
	p.wait("an answer", func() bool { _, err := get(p.port); return err == nil })
	return p
}

// run starts a program and sees to it that it is gone in the end.
func run(t testing.TB, path string, args ...string) *process {
	t.Helper()
	return runCommand(t, exec.Command(path, args...))
}

func runCommand(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	return runIn(t, cmd, filepath.Dir(cmd.Path))
}

func runIn(t testing.TB, cmd *exec.Cmd, dir string) *process {
	t.Helper()
	said, err := os.CreateTemp(t.TempDir(), "said-")
	if err != nil {
		t.Fatal(err)
	}
	defer said.Close()
	p := &process{TB: t, cmd: cmd, out: output{said.Name()}, path: cmd.Path, done: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = said, said
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- cmd.Wait() }()
	t.Cleanup(func() {
		if !p.gone {
			cmd.Process.Kill()
			<-p.done
		}
		if t.Failed() {
			t.Logf("%s said:\n%s", cmd.Path, p.out.String())
		}
	})
	return p
}

// ended waits for the end of the process itself.
func (p *process) ended() error {
	p.Helper()
	select {
	case err := <-p.done:
		p.gone = true
		return err
	case <-time.After(limit):
		p.Fatalf("still there after %v; it said:\n%s", limit, p.out.String())
		return nil
	}
}

// limit is how long a test waits for what must come.
const limit = 5 * time.Minute

// wait waits for a condition.
func (p *process) wait(what string, is func() bool) {
	p.Helper()
	for end := time.Now().Add(limit); ; {
		if is() {
			return
		}
		select {
		case err := <-p.done:
			p.gone = true
			p.Fatalf("waiting for %s, the process ended: %v\n%s", what, err, p.out.String())
		default:
		}
		if time.Now().After(end) {
			p.Fatalf("no %s in %v; it said:\n%s", what, limit, p.out.String())
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// says waits until the program has said something.
func (p *process) says(text string) {
	p.Helper()
	p.wait(fmt.Sprintf("%q", text), func() bool { return strings.Contains(p.out.String(), text) })
}

// serves waits until this version answers, and wants it to be the same process.
func (p *process) serves(version string) answer {
	p.Helper()
	var a answer
	p.wait("version "+version, func() bool {
		var err error
		a, err = get(p.port)
		return err == nil && a.version == version
	})
	if a.pid != p.cmd.Process.Pid {
		p.Fatalf("version %s answers as process %d, want %d", version, a.pid, p.cmd.Process.Pid)
	}
	return a
}

// fds lists what the process has open.
func (p *process) fds() []string {
	p.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid)
	names, err := os.ReadDir(dir)
	if err != nil {
		p.Fatal(err)
	}
	var list []string
	for _, n := range names {
		if to, err := os.Readlink(filepath.Join(dir, n.Name())); err == nil { // or closed by now
			list = append(list, to)
		}
	}
	return list
}
