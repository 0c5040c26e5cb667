package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long the lab waits: for a program to answer before it is said to hang,
// to end when its input does, and for a tool to do its work.
const (
	answerTime = 30 * time.Second
	endTime    = 2 * time.Second
	toolTime   = 5 * time.Minute
)

// errHung is a program that gives no answer in time.
var errHung = errors.New("no answer")

// process is one running program of the lab.
type process struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  chan string
	stderr bytes.Buffer
	ended  chan struct{} // closed when the process has been waited for
}

// start runs path in serve mode and waits until it is ready.
func (l *lab) start(ctx context.Context, path string) (*process, error) {
	p := &process{cmd: exec.Command(path, "serve"), lines: make(chan string, 16), ended: make(chan struct{})}
	p.cmd.Dir = l.dir
	p.cmd.Env = l.env
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt at the keyboard is for us to pass on
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
		p.cmd.Wait() // what it says is read from ProcessState
		close(p.ended)
	}()
	if _, err := p.answer(ctx); err != nil {
		p.end()
		return nil, err
	}
	return p, nil
}

// ask sends a line and returns the answer: io.EOF if the program ended instead.
func (p *process) ask(ctx context.Context, line string) (string, error) {
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		<-p.ended // nobody reads: it has died, or is about to
		return "", io.EOF
	}
	return p.answer(ctx)
}

func (p *process) answer(ctx context.Context) (string, error) {
	t := time.NewTimer(answerTime)
	defer t.Stop()
	select {
	case line, ok := <-p.lines:
		if !ok {
			<-p.ended
			return "", io.EOF
		}
		return line, nil
	case <-t.C:
		return "", errHung
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// end ends the process, by closing its input and then by force, and waits.
func (p *process) end() {
	p.in.Close()
	t := time.NewTimer(endTime)
	defer t.Stop()
	select {
	case <-p.ended:
	case <-t.C:
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// fate says how the process ended. It may be called after io.EOF only.
func (p *process) fate() Fate {
	f := Fate{Running: Nothing, Said: trim(firstLineOf(p.stderr.Bytes()))}
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		f.Outcome, f.Signal = Killed, unix.SignalName(status.Signal())
	} else {
		f.Outcome, f.Status = Exited, status.ExitStatus()
	}
	return f
}

// tool runs a program to its end and returns what it printed. When ctx ends,
// it and all that it started are killed.
func (l *lab) tool(ctx context.Context, name string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, toolTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = l.dir
	cmd.Env = l.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = answerTime
	return cmd.CombinedOutput()
}

// shell runs a script of a method with its two arguments.
func (l *lab) shell(ctx context.Context, script, one, two string) ([]byte, error) {
	return l.tool(ctx, "sh", "-euc", "umask 022; "+script, "sh", one, two)
}

func firstLineOf(out []byte) string {
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return strings.TrimSpace(line)
}

// reason is why a tool failed: what it said, else how it ended.
func reason(out []byte, err error) string {
	if line := firstLineOf(out); line != "" {
		return trim(line)
	}
	return err.Error()
}

// below is the path of a target, or of a tree, in the work directory.
var below = pattern(`[^\s'"]*(?:moult-lab-[^/\s]*|target-[0-9]+)(?:/target\b|/aside\b)?/?`)

// trim takes the work directory's random name out of a message.
func trim(line string) string {
	return strings.ReplaceAll(below().ReplaceAllString(line, ""), "bin/../", "")
}

// errnoOf names the errno whose text a tool printed, "" for none that is known.
func errnoOf(said string) string {
	said = strings.ToLower(said)
	for _, e := range []syscall.Errno{unix.ETXTBSY, unix.EACCES, unix.EPERM, unix.EROFS, unix.ENOSPC, unix.EEXIST, unix.EXDEV} {
		if strings.Contains(said, strings.ToLower(e.Error())) {
			return unix.ErrnoName(e)
		}
	}
	return ""
}
