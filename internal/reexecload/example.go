package reexecload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Example is one of the servers in examples/. All take -p PORT, and answer with
// their version, a space and the body that was sent.
type Example struct {
	Name     string
	Compiler string // what builds it
	build    func(root, out, version string) *exec.Cmd
}

// Examples are those that there are. root is the repository.
func Examples(root string) []Example {
	all := []Example{
		{"go-server", "go", func(root, out, version string) *exec.Cmd {
			cmd := exec.Command("go", "build", "-ldflags", "-X main.version="+version, "-o", out, "./examples/go-server")
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
			return cmd
		}},
		{"c-server", "cc", func(root, out, version string) *exec.Cmd {
			return exec.Command("cc", "-std=c99", "-O2", "-Iinclude", `-DVERSION="`+version+`"`,
				"examples/c-server/server.c", "-o", out)
		}},
		{"cpp-epoll-server", "c++", func(root, out, version string) *exec.Cmd {
			return exec.Command("c++", "-std=c++11", "-O2", "-Iinclude", `-DVERSION="`+version+`"`,
				"examples/cpp-epoll-server/server.cpp", "-o", out)
		}},
	}
	return slices.DeleteFunc(all, func(e Example) bool {
		_, err := os.Stat(filepath.Join(root, "examples", e.Name))
		return err != nil
	})
}

// Build builds a version of the example.
func (e Example) Build(ctx context.Context, root, out, version string) error {
	cmd := e.build(root, out, version)
	cmd.Dir = root
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", e.Name, err, text)
	}
	return ctx.Err()
}

// Serve is a program that has these versions of examples, built into files, take
// turns. It gets a free port and the directory dir, where the files are too.
func Serve(name, dir string, files, versions []string) (Program, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return Program{}, err
	}
	addr := ln.Addr().String()
	if err := ln.Close(); err != nil {
		return Program{}, err
	}
	_, port, err := net.SplitHostPort(addr)
	return Program{
		Name: name, Files: files, Dir: dir, Addr: addr, Args: []string{"-p", port},
		Check: func(sent []byte, a Answer) error {
			version, body, _ := strings.Cut(string(a.Body), " ")
			if a.Status != 200 || body != string(sent) || version != a.Header["x-version"] || !slices.Contains(versions, version) {
				return fmt.Errorf("status %d, version %q, body %.40q; want 200, one of %v and the body that was sent",
					a.Status, a.Header["x-version"], a.Body, versions)
			}
			return nil
		},
		Version: func(a Answer) (int, error) {
			i := slices.Index(versions, a.Header["x-version"])
			if i < 0 {
				return 0, errors.New("an unknown version")
			}
			return i, nil
		},
	}, err
}

// Generation is what an example's answer says of how often it was replaced.
func Generation(a Answer) (int, error) { return strconv.Atoi(a.Header["x-generation"]) }
