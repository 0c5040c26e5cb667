package reexecload

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Example is one of the servers in examples/.
type Example struct {
	Name     string
	Compiler string // what builds it
	build    func(out, version string) *exec.Cmd
	args     func(port string) []string
	parse    func(a Answer) Said
}

// Said is what an example's answer says.
type Said struct {
	Version    string
	PID        int
	Generation int    // how often it was replaced
	Body       string // that was sent
}

// Examples are those that there are. root is the repository.
func Examples(root string) []Example {
	all := []Example{
		{"go-server", "go", func(out, version string) *exec.Cmd {
			cmd := exec.Command("go", "build", "-ldflags", "-X main.version="+version, "-o", out, "./examples/go-server")
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			return cmd
		}, func(port string) []string { return []string{"-addr", "127.0.0.1:" + port} }, fromText},
		{"c-server", "cc", func(out, version string) *exec.Cmd {
			return exec.Command("cc", "-std=c99", "-O2", "-Iinclude", `-DVERSION="`+version+`"`, "examples/c-server/server.c", "-o", out)
		}, func(port string) []string { return []string{"-p", port} }, fromHeaders},
		{"cpp-epoll-server", "c++", func(out, version string) *exec.Cmd {
			return exec.Command("c++", "-std=c++11", "-O2", "-Iinclude", `-DVERSION="`+version+`"`, "examples/cpp-epoll-server/server.cc", "-o", out)
		}, func(port string) []string { return []string{"--port", port} }, fromHeaders},
	}
	return slices.DeleteFunc(all, func(e Example) bool {
		files, err := filepath.Glob(filepath.Join(root, "examples", e.Name, "*"))
		return err != nil || len(files) == 0
	})
}

// fromText reads "version=1 pid=2 generation=3 body=…".
func fromText(a Answer) (s Said) {
	fmt.Sscanf(string(a.Body), "version=%s pid=%d generation=%d", &s.Version, &s.PID, &s.Generation)
	_, body, _ := strings.Cut(string(a.Body), " body=")
	s.Body = strings.TrimSuffix(body, "\n")
	return s
}

// fromHeaders reads X-Version, X-Pid and X-Generation, and a body that has the
// version before what was sent.
func fromHeaders(a Answer) (s Said) {
	s.Version = a.Header["x-version"]
	s.PID, _ = strconv.Atoi(a.Header["x-pid"])
	s.Generation, _ = strconv.Atoi(a.Header["x-generation"])
	s.Body, _ = strings.CutPrefix(string(a.Body), s.Version+" ")
	return s
}

// Build builds a version of the example.
func (e Example) Build(ctx context.Context, root, out, version string) error {
	cmd := e.build(out, version)
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", e.Name, err, text)
	}
	return ctx.Err()
}

// BuildBroken builds a successor for all examples that aborts before it is ready.
func BuildBroken(ctx context.Context, root, out string) error {
	cmd := exec.Command("cc", "-std=gnu99", "-w", "-Iinclude", "-DBROKEN=abort()", "examples/c-server/server.c", "-o", out)
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build a broken server: %w\n%s", err, text)
	}
	return ctx.Err()
}

// Serve is a program that has versions of the example, built into files, take
// turns. It listens at the port of 127.0.0.1, and has the directory dir on the file
// system of the files.
func (e Example) Serve(dir string, port int, files, versions []string) Program {
	number := strconv.Itoa(port)
	return Program{
		Name: e.Name, Files: files, Dir: dir, Addr: "127.0.0.1:" + number, Args: e.args(number),
		Said: e.parse,
		Check: func(sent []byte, a Answer) error {
			s := e.parse(a)
			if a.Status != 200 || s.Body != string(sent) || !slices.Contains(versions, s.Version) {
				return fmt.Errorf("status %d, version %q, body %.40q; want 200, one of %v and the body that was sent",
					a.Status, s.Version, s.Body, versions)
			}
			return nil
		},
		File: func(a Answer) int { return slices.Index(versions, e.parse(a).Version) },
	}
}
