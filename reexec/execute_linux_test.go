package reexec

import (
	"bytes"
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFailedExec: an exec that fails leaves limit, descriptor flags, signal
// actions, timers and the working directory as they were, and can be repeated.
func TestFailedExec(t *testing.T) {
	if os.Getenv("MOULT_TEST_LIMITED") == "" {
		// Go raises the soft limit when a program starts, if it can.
		cmd := exec.Command("/bin/sh", "-c", `ulimit -Sn 256 && exec "$0" -test.run='^TestFailedExec$'`, os.Args[0])
		cmd.Env = append(os.Environ(), "MOULT_TEST_LIMITED=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("with a low soft limit: %v\n%s", err, out)
		}
		return
	}
	caught := make(chan os.Signal, 10)
	signal.Notify(caught, unix.SIGUSR2)
	defer signal.Stop(caught)
	path := filepath.Join(t.TempDir(), "nonsense")
	if err := os.WriteFile(path, []byte("nonsense"), 0o755); err != nil {
		t.Fatal(err)
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	kept, _ := unix.Eventfd(0, unix.EFD_CLOEXEC)
	leaky, _ := unix.Eventfd(0, 0)
	defer unix.Close(kept)
	defer unix.Close(leaky)
	root, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	if _, err := unix.Setitimer(unix.ITIMER_VIRTUAL, unix.Itimerval{Value: unix.Timeval{Sec: 1000}}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setitimer(unix.ITIMER_VIRTUAL, unix.Itimerval{})

	type state struct {
		limit       unix.Rlimit
		kept, leaky int
		dir         string
		actions     [65]sigaction
		timer       int64
		fds         int
	}
	now := func() (s state) {
		unix.Getrlimit(unix.RLIMIT_NOFILE, &s.limit)
		s.kept, _ = unix.FcntlInt(uintptr(kept), unix.F_GETFD, 0)
		s.leaky, _ = unix.FcntlInt(uintptr(leaky), unix.F_GETFD, 0)
		s.dir, _ = os.Getwd()
		for n := 1; n <= 64; n++ {
			setAction(n, nil, &s.actions[n])
		}
		timer, _ := unix.Getitimer(unix.ITIMER_VIRTUAL)
		s.timer = timer.Value.Sec / 100
		s.fds = len(openFDs())
		return s
	}
	p := &Process{opts: Options{}.withDefaults()}
	p.args, p.env = []string{"nonsense"}, os.Environ()
	before := now()
	for range 3 {
		h := &handover{pid: os.Getpid(), generation: 1, cwd: root, ready: -1, previous: namedFD{fd: -1}, fds: []namedFD{{"x", kept}}}
		err := p.execute(path, rawFD(file), h, "")
		if !errors.Is(err, unix.ENOEXEC) || !isUnfit(err) {
			t.Fatalf("execute: %v, want ENOEXEC", err)
		}
		if after := now(); after != before {
			t.Fatalf("after: %+v\nwant %+v", after, before)
		}
	}
	unix.Kill(os.Getpid(), unix.SIGUSR2)
	if got := <-caught; got != unix.SIGUSR2 {
		t.Errorf("got %v, want SIGUSR2", got)
	}
	if !syscall.ForkLock.TryLock() {
		t.Fatal("nobody can fork any more")
	}
	syscall.ForkLock.Unlock()
}

// TestMarker: the linker keeps the marker where it is looked for, in what calls
// Start, and the bytes of this very program are found fit.
func TestMarker(t *testing.T) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	st, err := self.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := inspectELF(self, st.Size(), self); err != nil {
		t.Errorf("this program: %v, want it fit", err)
	}
	f, err := os.Open("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if st, err = f.Stat(); err != nil {
		t.Fatal(err)
	}
	if err := inspectELF(f, st.Size(), self); err == nil {
		t.Error("/bin/sh is found fit, want it refused")
	}
}

// FuzzELF: whatever a file holds, looking at it ends.
func FuzzELF(f *testing.F) {
	head := make([]byte, 200)
	copy(head, elf.ELFMAG)
	head[4], head[5], head[6] = 2, 1, 1
	f.Add(head)
	f.Fuzz(func(t *testing.T, data []byte) {
		inspectELF(bytes.NewReader(data), int64(len(data)), nil)
	})
}

func TestMovedRoots(t *testing.T) {
	for _, test := range [][4]string{
		{"/g/41/bin/app", "/g/42/bin/app", "/g/41", "/g/42"},
		{"/g/41/bin/app", "/g/41/bin/app", "", ""},
		{"/a/app", "/b/c/app", "/a", "/b/c"},
		{"/a/app", "/a/app2", "/a/app", "/a/app2"},
	} {
		if from, to := movedRoots(test[0], test[1]); from != test[2] || to != test[3] {
			t.Errorf("movedRoots(%q, %q) = %q, %q; want %q, %q", test[0], test[1], from, to, test[2], test[3])
		}
	}
}

// TestNotForUs: a hand-over that was inherited by mistake, or was made by
// somebody who does not seal it.
func TestNotForUs(t *testing.T) {
	h := sample()
	fd, err := sealed(handoverName, h.encode())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if got, err := readHandover(strconv.Itoa(fd)); got != nil || err != nil {
		t.Errorf("of another process: %v, %v; want nothing", got, err)
	}
	h.pid = os.Getpid()
	open, err := unix.MemfdCreate(handoverName, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(open)
	unix.Write(open, h.encode())
	for _, number := range []string{strconv.Itoa(open), "2", "x", "-1", "100000"} {
		if got, err := readHandover(number); got != nil || err == nil {
			t.Errorf("%s: %v, %v; want an error", number, got, err)
		}
	}
}

// TestGate: it is shut when the last one inside has come out, and not before.
func TestGate(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	g := newGate(func(time.Time) error { return nil })
	out, shut := make(chan struct{}), make(chan struct{})
	go func() {
		g.through(func() error { close(inside); <-leave; return nil })
		close(out)
	}()
	<-inside
	go func() { g.close(); close(shut) }()
	select {
	case <-shut:
		t.Fatal("shut with somebody inside, want it to wait")
	case <-time.After(20 * time.Millisecond):
	}
	close(leave)
	<-shut
	<-out
	entered := make(chan struct{})
	go g.through(func() error { close(entered); return nil })
	select {
	case <-entered:
		t.Fatal("somebody went through, want it shut")
	case <-time.After(20 * time.Millisecond):
	}
	g.open()
	<-entered
}

// TestRemains: what a pipe holds is read even if the deadline is over before.
func TestRemains(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close() // as a child's child holds it
	if _, err := w.WriteString("moult-preflight 1 abc load\n"); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if !readAnswer(&remains{File: r}, "moult-preflight 1 abc load") {
		t.Error("the answer was missed")
	}
}
