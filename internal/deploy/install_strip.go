package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// errStrip is why a file is not installed though it could be.
var errStrip = errors.New("strip failed")

// stripInto fills the staged file with what strip(1) makes of the source.
//
// strip changes a file in place, or puts another one under its name, and makes
// files of its own beside it. So it gets a copy in a directory where nobody else
// is, and what is there when it has ended is the source.
func (in *installer) stripInto(ctx context.Context, it *installItem, src *os.File) error {
	dir := it.temp + ".d"
	if err := in.fs.Mkdir(dir); err != nil {
		return err
	}
	defer removeTempDir(in.fs, in.dir, dir)
	name := dir + "/" + it.base
	copied, err := in.fs.Create(name)
	if err != nil {
		return err
	}
	err = copySource(ctx, copied, src)
	if closeErr := copied.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	if err := in.strip(ctx, it, name); err != nil {
		return err
	}
	fd, err := unix.Open(in.look(name), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: it.dest, Err: err}
	}
	stripped := os.NewFile(uintptr(fd), name)
	defer stripped.Close()
	if st, err := stripped.Stat(); err != nil || !st.Mode().IsRegular() {
		return fmt.Errorf("%w: it left no file", errStrip)
	}
	return copySource(ctx, it.file, stripped)
}

// strip runs the program. It inherits nothing that is open for writing.
func (in *installer) strip(ctx context.Context, it *installItem, name string) error {
	program := in.o.StripProgram
	if program == "" {
		program = "strip"
	}
	file := in.path + "/" + name
	if file[0] == '-' {
		file = "./" + file
	}
	cmd := exec.CommandContext(ctx, program, file)
	out, err := cmd.CombinedOutput()
	said := strings.ReplaceAll(strings.TrimSpace(string(out)), file, it.dest)
	if err != nil {
		if cause := ctx.Err(); cause != nil {
			return cause
		}
		if said != "" {
			said = ": " + said
		}
		return fmt.Errorf("%w: %s %s: %w%s", errStrip, program, it.source, err, said)
	}
	if said != "" {
		in.warn(program + ": " + said)
	}
	return nil
}
