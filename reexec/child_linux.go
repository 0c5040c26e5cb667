package reexec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is a process started with the new file.
type child struct {
	proc   *os.Process
	exited chan struct{}
	state  *os.ProcessState // once exited
}

// startChild starts the file with the first arguments and working directory and
// this environment. keep are descriptors that have the same number in the child;
// std are its 0, 1 and 2. A child that is a trial has a process group of its own,
// and does not outlive us: it holds our sockets.
func (p *Process) startChild(path string, env []string, std [3]int, keep []int, trial bool) (*child, error) {
	files := []uintptr{uintptr(std[0]), uintptr(std[1]), uintptr(std[2])}
	for _, fd := range keep {
		for len(files) <= fd {
			files = append(files, ^uintptr(0)) // closed
		}
		files[fd] = uintptr(fd)
	}
	attr := &syscall.ProcAttr{Env: env, Files: files, Sys: &syscall.SysProcAttr{Setpgid: trial}, Dir: p.firstDir()}
	if !trial {
		return forkExec(path, p.args, attr)
	}
	attr.Sys.Pdeathsig = unix.SIGKILL
	started := make(chan struct{})
	var c *child
	var err error
	go func() {
		// What the signal tells is the end of the thread that has forked
		// (prctl(2)): this one stays for as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		c, err = forkExec(path, p.args, attr)
		close(started)
		if err == nil {
			<-c.exited
		}
	}()
	<-started
	return c, err
}

func forkExec(path string, args []string, attr *syscall.ProcAttr) (*child, error) {
	var pid int
	var err error
	// Another thread that forks between our writer's close and its exec holds a
	// file open for writing for a moment: ETXTBSY (golang/go#22315).
	for wait := time.Millisecond; wait < time.Second; wait *= 2 {
		pid, err = syscall.ForkExec(path, args, attr)
		if err != unix.ETXTBSY {
			break
		}
		time.Sleep(wait)
	}
	if err != nil {
		return nil, &os.PathError{Op: "exec", Path: path, Err: err}
	}
	proc, err := os.FindProcess(pid)
	if err != nil {
		return nil, err
	}
	c := &child{proc: proc, exited: make(chan struct{})}
	go func() {
		c.state, _ = proc.Wait()
		close(c.exited)
	}()
	return c, nil
}

// firstDir is the first working directory as a path, "" for the present one.
func (p *Process) firstDir() string {
	want, err := fileStatOf(p.cwd)
	if err != nil {
		return ""
	}
	if st, err := fileStatAt(p.cwdPath); err == nil && st.sameFile(want) {
		return p.cwdPath
	}
	return "/proc/self/fd/" + strconv.Itoa(p.cwd)
}

// end kills the child and all that it has started.
func (c *child) end(group bool) {
	if group {
		unix.Kill(-c.proc.Pid, unix.SIGKILL)
	}
	c.proc.Kill()
	<-c.exited
}

// outcry is what a child says on its standard error: its begin and its end.
type outcry struct {
	mu         sync.Mutex
	head, tail []byte
}

const outcrySize = 4096 // each of head and tail

func (o *outcry) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := min(len(b), outcrySize-len(o.head))
	o.head = append(o.head, b[:n]...)
	o.tail = append(o.tail, b[n:]...)
	o.tail = o.tail[max(0, len(o.tail)-outcrySize):]
	return len(b), nil
}

// reason is the line that most likely says why, without what a terminal obeys:
// the first that a dying Go program writes, else the last one.
func (o *outcry) reason() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	line := ""
	for l := range strings.Lines(string(o.head) + string(o.tail)) {
		if l = strings.TrimSpace(l); l == "" {
			continue
		}
		line = l
		if strings.HasPrefix(l, "panic: ") || strings.HasPrefix(l, "fatal error: ") || strings.HasPrefix(l, "SIG") {
			break
		}
	}
	if line == "" {
		return ""
	}
	line = strings.Map(func(r rune) rune {
		if r < ' ' || r >= 127 && r < 160 {
			return ' '
		}
		return r
	}, line)
	return ": " + line[:min(len(line), 300)]
}

// preflight starts the file and wants its answer.
func (p *Process) preflight(ctx context.Context, c *candidate) error {
	if p.opts.Preflight == None {
		return nil
	}
	limit := p.opts.PreflightTimeout
	want := "load"
	if p.opts.Preflight == Trial {
		limit += max(p.opts.ReadyTimeout, 0)
		want = "ready"
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer after %v", limit))
	defer cancel()
	nonce := newNonce()
	env := append(p.trialEnv(), varPreflight+"="+nonce, "LD_BIND_NOW=1")
	var keep []int
	if p.opts.Preflight == Trial {
		h := p.newHandover(c, true)
		fd, err := sealed(handoverName, h.encode())
		if err != nil {
			return fmt.Errorf("%w: %w", errUntried, err)
		}
		defer unix.Close(fd)
		keep = append(h.descriptors(), fd)
		env = append(env, varTrial+"=1", varFD+"="+strconv.Itoa(fd))
	}
	answer, errs, ran, err := p.runTrial(ctx, c.path, env, keep, "moult-preflight 1 "+nonce+" "+want)
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("%w%s", context.Cause(ctx), errs.reason())
	case !answer && ran.Success():
		return fmt.Errorf("it ended before it was %s%s", map[string]string{"load": "loaded", "ready": "ready"}[want], errs.reason())
	case !answer:
		return fmt.Errorf("%v%s", ran, errs.reason())
	}
	return nil
}

// runTrial runs the file until it has answered or ended.
func (p *Process) runTrial(ctx context.Context, path string, env []string, keep []int, want string) (bool, *outcry, *os.ProcessState, error) {
	errs := &outcry{}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return false, errs, nil, fmt.Errorf("%w: %w", errUntried, err)
	}
	defer null.Close()
	outR, outW, err := os.Pipe()
	if err != nil {
		return false, errs, nil, fmt.Errorf("%w: %w", errUntried, err)
	}
	defer outR.Close()
	errR, errW, err := os.Pipe()
	if err != nil {
		outW.Close()
		return false, errs, nil, fmt.Errorf("%w: %w", errUntried, err)
	}
	defer errR.Close()
	std := [3]int{}
	for i, f := range []*os.File{null, outW, errW} {
		std[i] = rawFD(f)
	}
	c, err := p.startChild(path, env, std, keep, true)
	outW.Close()
	errW.Close()
	if err != nil && !isUnfit(err) {
		err = fmt.Errorf("%w: %w", errUntried, err)
	}
	if err != nil {
		return false, errs, nil, err
	}
	answered := make(chan bool, 1)
	go func() { answered <- readAnswer(&remains{File: outR}, want) }()
	read := make(chan struct{})
	go func() { io.Copy(errs, &remains{File: errR}); close(read) }()
	select {
	case <-c.exited:
	case <-ctx.Done():
	}
	c.end(true)
	// What it has started may have escaped the group, and hold the pipes.
	for _, f := range []*os.File{outR, errR} {
		f.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	}
	<-read
	return <-answered, errs, c.state, nil
}

// remains is the end of a pipe that is read until its deadline, and then once more
// for what it holds: whoever reads may be so late that the deadline is over before
// the first read, and would miss what was said in time.
type remains struct {
	*os.File
	late int // bytes that were read after the deadline
}

func (r *remains) Read(p []byte) (n int, err error) {
	if n, err = r.File.Read(p); !errors.Is(err, os.ErrDeadlineExceeded) || r.late > 128<<10 {
		return n, err
	}
	raw, rawErr := r.File.SyscallConn()
	if rawErr != nil {
		return 0, err
	}
	raw.Control(func(fd uintptr) { n, rawErr = unix.Read(int(fd), p) })
	if n <= 0 || rawErr != nil {
		return 0, err
	}
	r.late += n
	return n, nil
}

// readAnswer looks for a line in the first 64 KiB of output, and swallows the
// rest, so that nobody waits for us to read.
func readAnswer(r io.Reader, want string) bool {
	head, _ := io.ReadAll(io.LimitReader(r, 64<<10))
	io.Copy(io.Discard, r)
	for line := range bytes.Lines(head) {
		line, whole := bytes.CutSuffix(line, []byte("\n"))
		if whole && (string(line) == want || bytes.HasPrefix(line, []byte(want+" "))) {
			return true
		}
	}
	return false
}

// answerPreflight says that we were loaded, or are ready.
func answerPreflight(nonce, what string) {
	line := []byte("moult-preflight 1 " + nonce + " " + what + "\n")
	for len(line) > 0 {
		n, err := unix.Write(1, line)
		if err != nil && err != unix.EINTR {
			return
		}
		line = line[max(n, 0):]
	}
}

// trialEnv is the first environment without what only the real one may use.
func (p *Process) trialEnv() []string {
	return slices.DeleteFunc(slices.Clone(p.env), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LD_BIND_NOW":
			return true
		}
		return false
	})
}

// rawFD is the number of a file, which stays open as long as it is reachable.
// os.File.Fd would set it to blocking mode.
func rawFD(f *os.File) int {
	fd := -1
	if raw, err := f.SyscallConn(); err == nil {
		raw.Control(func(n uintptr) { fd = int(n) })
	}
	return fd
}

var errChildEnded = errors.New("it ended before it was ready")
