// Package hostfacts answers what a preflight asks about this host: mounts,
// free space, flags of files, whose packages a path belongs to, labels.
//
// The rule of this room: it only reads, and decides nothing. A fact that this
// kernel or file system does not have is none and no error; a fact that could
// not be found out is an error.
package hostfacts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Options say which host is asked. The zero value is this one.
type Options struct {
	// Root is a directory that stands for "/" where this package looks for
	// the host's own files, such as /var/lib/dpkg; "" means the real one. The
	// paths that are asked about are meant as seen from there.
	Root string

	// Run runs a program and returns what it printed; nil means that it is
	// looked up in PATH and run. Without such a program the error is
	// exec.ErrNotFound, with a status that is not 0 an *exec.ExitError.
	Run func(ctx context.Context, name string, args ...string) (stdout, stderr []byte, err error)
}

func (o Options) path(name string) string { return filepath.Join("/", o.Root, name) }

func (o Options) run(ctx context.Context, name string, args ...string) (stdout, stderr []byte, err error) {
	if o.Run != nil {
		return o.Run(ctx, name, args...)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C") // the messages that we read are English
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	err = cmd.Run()
	return out.Bytes(), messages.Bytes(), err
}

// said makes an error of a program that failed and what it said.
func said(name string, stderr []byte, err error) error {
	line, _, _ := strings.Cut(strings.TrimSpace(string(stderr)), "\n")
	if line == "" || errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return fmt.Errorf("%s: %w: %s", name, err, line)
}

// batches cuts arguments into pieces that one command line can hold. The
// kernel allows a quarter of the stack limit, 2 MB usually, with environment.
func batches(args []string) [][]string {
	const limit = 512 << 10
	var out [][]string
	from, size := 0, 0
	for i, a := range args {
		if size += len(a) + 9; size > limit && i > from { // its NUL and its pointer
			out = append(out, args[from:i])
			from, size = i, len(a)+9
		}
	}
	if from < len(args) {
		out = append(out, args[from:])
	}
	return out
}
