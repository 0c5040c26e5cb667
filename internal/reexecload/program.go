package reexecload

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Program is a server that executes its own file again when that was replaced
// and it is sent SIGUSR2, as those in examples/ do.
type Program struct {
	Name  string
	Files []string // executables, on one file system, that take turns
	Args  []string
	Env   []string // added to that of this process
	Dir   string   // an existing directory on that file system, for the program's path
	Addr  string   // where it listens, as in Server

	// Broken is an executable that does not get ready, if it is not "". Each
	// upgrade tries it then, and is over when the old code is back.
	Broken string

	Check func(sent []byte, a Answer) error // as in Server

	File func(a Answer) int  // which of the Files has answered; -1 is none
	Said func(a Answer) Said // what the answer says
}

// Process is a running Program.
type Process struct {
	*Server
	PID  int
	Path string // the executable as the process sees it

	cmd  *exec.Cmd
	said said
}

// said is the end of what a process has written. It does not go to a file: a
// server that logs would wait for the disk.
type said struct {
	mu   sync.Mutex
	text []byte
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p...)
	s.text = s.text[max(0, len(s.text)-2000):]
	return len(p), nil
}

// Start starts the program from the first of its files, and waits until it
// answers. Upgrade n gives it the file n modulo their number: a new name of a
// file that is there, renamed over the path, so that no time is spent on bytes.
func (p Program) Start(ctx context.Context) (*Process, error) {
	run := &Process{Path: filepath.Join(p.Dir, p.Name)}
	if err := p.place(p.Files[0], run.Path); err != nil {
		return nil, err
	}
	run.cmd = exec.Command(run.Path, p.Args...)
	run.cmd.Env = append(os.Environ(), p.Env...)
	run.cmd.Stdout, run.cmd.Stderr = &run.said, &run.said
	if err := run.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	run.PID = run.cmd.Process.Pid
	var first atomic.Int64 // the generation before upgrade 1, of this trial
	run.Server = &Server{Name: p.Name, Addr: p.Addr, Check: p.Check, Stop: run.stop, Says: run.Said,
		Upgrade: func(n int) error {
			if n == 1 {
				first.Store(math.MaxInt32)
				a, err := run.Ask()
				if err != nil {
					return err
				}
				first.Store(int64(p.Said(a).Generation))
			}
			next := p.Files[n%len(p.Files)]
			if p.Broken != "" {
				next = filepath.Join(p.Dir, "broken")
				if err := another(p.Broken, next, n); err != nil {
					return err
				}
			}
			if err := p.place(next, run.Path); err != nil {
				return err
			}
			return syscall.Kill(run.PID, syscall.SIGUSR2)
		},
		Upgraded: func(n int, a Answer) bool {
			if p.Broken != "" { // it was one generation, and the old code is the next
				return p.Said(a).Generation >= 2*n
			}
			// An answer of long ago may come only now, and be of the same file.
			return p.File(a) == n%len(p.Files) && int64(p.Said(a).Generation) >= first.Load()+int64(n)
		},
	}
	if err := run.Await(ctx); err != nil {
		run.stop()
		return nil, fmt.Errorf("%w; it says %q", err, run.Said())
	}
	return run, nil
}

// another makes a copy of an executable that has bytes of its own: what was taken
// back once is not tried again.
func another(file, path string, n int) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, fmt.Appendf(text, "%d", n), 0o755)
}

// place gives the program's path to a file.
func (p Program) place(file, path string) error {
	next := path + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Link(file, next); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// stop ends the process: by SIGTERM, and if that takes more than five seconds by
// SIGKILL.
func (p *Process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(5*time.Second, func() { p.cmd.Process.Kill() })
	p.cmd.Wait()
	kill.Stop()
}

// Said returns the end of what the process has written to its standard streams.
func (p *Process) Said() string {
	p.said.mu.Lock()
	defer p.said.mu.Unlock()
	return string(p.said.text)
}

// Descriptors lists what the process has open, by number and name.
func (p *Process) Descriptors() ([]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", p.PID)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []string
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err == nil {
			all = append(all, e.Name()+" "+to)
		}
	}
	return all, nil
}

// RSS is the memory of the process that is in RAM, in bytes.
func (p *Process) RSS() (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 10, 64)
			return kb << 10, err
		}
	}
	return 0, errors.New("no VmRSS")
}
