package restart

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxOutput is how much of a command's output is kept, in bytes; what comes
// after it is refused to the command.
const maxOutput = 64 << 10

// runCommand runs a command in a process group of its own, which is killed if
// ctx ends first. An error ends with the last that the command said. If we are
// killed, a command that restarts something goes on: half done is worse.
//
// Its output goes to a piece of memory of fixed size, not to a pipe: a daemon
// that the command leaves behind has our end of a pipe as its standard error,
// and would be killed by SIGPIPE when we are gone.
func runCommand(ctx context.Context, cmd *exec.Cmd) error {
	out, err := outputMemory()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() == context.DeadlineExceeded:
		err = errors.New("not done in time, killed")
	case ctx.Err() != nil:
		err = errors.New("interrupted, killed")
	}
	return fmt.Errorf("%w%s", err, lastLines(out))
}

// outputMemory is an anonymous file that cannot grow: a write beyond its end
// fails with EPERM (memfd_create(2), F_SEAL_GROW).
func outputMemory() (*os.File, error) {
	fd, err := unix.MemfdCreate("moult-output", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), "moult-output")
	if _, err = f.Write(make([]byte, maxOutput)); err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// lastLines is the end of what a command said, for an error. The command has
// moved the offset, which it shares with us.
func lastLines(f *os.File) string {
	n, err := f.Seek(0, io.SeekCurrent)
	if err != nil || n <= 0 {
		return ""
	}
	b := make([]byte, min(n, 2048))
	got, _ := f.ReadAt(b, max(0, min(n, maxOutput)-int64(len(b))))
	lines := strings.Split(strings.TrimSpace(string(b[:got])), "\n")
	text := strings.Join(lines[max(0, len(lines)-3):], " | ")
	if text == "" {
		return ""
	}
	return ": " + text
}
