package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/stale"
)

// terminal is a pseudo terminal, of which this test is the person before it.
type terminal struct {
	person *os.File
	device *os.File
	mu     sync.Mutex
	seen   bytes.Buffer
}

func openTerminal(t *testing.T, width, height uint16) *terminal {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(person.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(int(person.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	device, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &terminal{person: person, device: device}
	p.resize(t, width, height)
	t.Cleanup(func() { device.Close(); person.Close() })
	go func() {
		b := make([]byte, 4096)
		for {
			n, err := person.Read(b)
			p.mu.Lock()
			p.seen.Write(b[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *terminal) resize(t *testing.T, width, height uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(p.person.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		t.Fatal(err)
	}
}

func (p *terminal) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.seen.String()
}

// shows waits until a text has come since the mark, and returns the next mark.
func (p *terminal) shows(t *testing.T, mark int, want string) int {
	t.Helper()
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if i := strings.Index(p.text()[mark:], want); i >= 0 {
			return mark + i + len(want)
		}
	}
	t.Fatalf("the terminal does not show %q, but %q", want, p.text()[mark:])
	return 0
}

// fakeFind gives one report after the other, the last for ever.
func fakeFind(now *atomic.Pointer[stale.Report]) func(context.Context, stale.Options) (*stale.Report, error) {
	return func(context.Context, stale.Options) (*stale.Report, error) { return now.Load(), nil }
}

func psOld(pids ...int) *stale.Report {
	r := &stale.Report{Scanned: 9}
	for _, pid := range pids {
		r.Processes = append(r.Processes, stale.Process{
			PID: pid, Ticks: uint64(pid), User: "ann", Command: []string{fmt.Sprint("job-", pid)},
			Files: []stale.File{{Path: "/lib/x.so", Verdict: stale.Stale, Why: "another file has its name"}},
		})
	}
	return r
}

// TestPSScreen wants a live view that marks what changes, follows the size of
// its terminal, and leaves it as it was, however it ends.
func TestPSScreen(t *testing.T) {
	for _, end := range []string{"q", "interrupt", "error", "gone"} {
		t.Run(end, func(t *testing.T) {
			p := openTerminal(t, 80, 24)
			before, err := unix.IoctlGetTermios(int(p.device.Fd()), unix.TCGETS)
			if err != nil {
				t.Fatal(err)
			}
			a := newApp(p.device, p.device, p.device, []string{"TERM=xterm"})
			var report atomic.Pointer[stale.Report]
			report.Store(psOld(11, 12))
			fail := errors.New("no /proc")
			f := psFlags{sort: "verdict", interval: 20 * time.Millisecond}
			look := fakeFind(&report)
			f.find = func(ctx context.Context, o stale.Options) (*stale.Report, error) {
				r, err := look(ctx, o)
				if r == nil {
					err = fail
				}
				return r, err
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- a.psWatch(ctx, &f) }()

			mark := p.shows(t, 0, "\x1b[?1049h")
			mark = p.shows(t, mark, "job-12")
			mark = p.shows(t, mark, "2 processes run old code: 2 STALE; 9 looked at.")
			raw, err := unix.IoctlGetTermios(int(p.device.Fd()), unix.TCGETS)
			if err != nil || raw.Lflag&(unix.ICANON|unix.ECHO) != 0 || raw.Lflag&unix.ISIG == 0 {
				t.Errorf("the terminal's flags are %o (%v), want single keys without echo, and Ctrl-C", raw.Lflag, err)
			}
			report.Store(psOld(12, 13))
			mark = p.shows(t, mark, "\x1b[1;32m+")
			if !strings.Contains(p.text()[mark:], "13") {
				mark = p.shows(t, mark, "job-13")
			}
			p.resize(t, 40, 10)
			for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
				text := p.text()
				frame := text[max(0, strings.LastIndex(text[:max(0, strings.LastIndex(text, "q ends"))], "\x1b[H")):]
				if lines := strings.Split(frame, "\r\n"); len(lines) > 3 && len(lines) <= 10 && strings.Contains(frame, "\x1b[10;1H") {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the view does not follow the size: %q", frame)
				}
			}
			if cleared := regexp.MustCompile(`[^\x1b\r\nmHJ]\x1b\[K`).FindString(p.text()); cleared != "" {
				t.Errorf("%q: a line is cleared after it was written: a full one loses its end", cleared)
			}
			want := error(nil)
			switch end {
			case "q":
				fmt.Fprint(p.person, "xq")
			case "interrupt":
				cancel()
			case "error":
				want = fail
				report.Store(nil)
			case "gone":
				p.person.Close()
			}
			select {
			case err := <-done:
				if end != "gone" && !errors.Is(err, want) {
					t.Errorf("ends with %v, want %v", err, want)
				}
			case <-time.After(limit):
				t.Fatal("it does not end")
			}
			if end == "gone" {
				return
			}
			p.shows(t, mark, "\x1b[?25h\x1b[?1049l")
			if after, err := unix.IoctlGetTermios(int(p.device.Fd()), unix.TCGETS); err != nil || !reflect.DeepEqual(before, after) {
				t.Errorf("the terminal is left as %+v (%v), was %+v", after, err, before)
			}
		})
	}
}

// buffer is a bytes.Buffer for two goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) text() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// TestPSWatchLines wants a line, or with --json a document on one line, for each
// change and for nothing else.
func TestPSWatchLines(t *testing.T) {
	for _, asJSON := range []bool{false, true} {
		var out buffer
		a := newApp(strings.NewReader(""), &out, &out, nil)
		a.json = asJSON
		var report atomic.Pointer[stale.Report]
		var looks atomic.Int64
		report.Store(psOld())
		f := psFlags{sort: "verdict", interval: time.Millisecond}
		look := fakeFind(&report)
		f.find = func(ctx context.Context, o stale.Options) (*stale.Report, error) {
			defer looks.Add(1)
			return look(ctx, o)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.psWatch(ctx, &f) }()
		step := func(r *stale.Report) {
			report.Store(r)
			for n, deadline := looks.Load()+3, time.Now().Add(limit); looks.Load() < n; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("it does not look any more")
				}
			}
		}
		step(psOld())
		step(psOld(7))
		step(psOld(7, 8))
		step(psOld(8))
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ends with %v, want nothing", err)
		}
		lines := strings.Split(strings.TrimSpace(out.text()), "\n")
		if len(lines) != 4 {
			t.Fatalf("%d lines, want 4: %q", len(lines), lines)
		}
		if asJSON {
			for i, want := range []int{0, 1, 2, 1} {
				var d struct {
					Schema    int
					Processes []any
				}
				if err := json.Unmarshal([]byte(lines[i]), &d); err != nil || d.Schema != 1 || len(d.Processes) != want {
					t.Errorf("line %d (%v) is %q, want %d processes", i, err, lines[i], want)
				}
			}
			continue
		}
		for i, want := range []string{"no process runs old code", "new    7  ann  STALE  job-7: /lib/x.so", "new    8  ann  STALE", "over   7  ann"} {
			if !strings.Contains(lines[i], want) {
				t.Errorf("line %d is %q, want %q", i, lines[i], want)
			}
		}
	}
}

// TestPSWatchUnit wants it to be said, once, that nobody is in the unit and
// systemd does not know it: whoever watches it has typed its name wrongly.
func TestPSWatchUnit(t *testing.T) {
	var out buffer
	a := newApp(strings.NewReader(""), &out, &out, nil)
	var report atomic.Pointer[stale.Report]
	report.Store(psOld())
	f := psFlags{sort: "verdict", interval: time.Millisecond, unit: "typo-of-moult", unitDirs: []string{t.TempDir()}, find: fakeFind(&report)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.psWatch(ctx, &f) }()
	says := func(text string) {
		for deadline := time.Now().Add(limit); !strings.Contains(out.text(), text); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("it says %q, want %q", out.text(), text)
			}
		}
	}
	says("No process is in a unit typo-of-moult, and systemd has none of that name\n")
	if err := os.WriteFile(filepath.Join(f.unitDirs[0], "typo-of-moult.service"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	says("typo-of-moult: systemd has it, but it does not run\n")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ends with %v, want nothing", err)
	}
	if n := strings.Count(out.text(), "\n"); n != 2 {
		t.Errorf("%d lines, want 2: %q", n, out.text())
	}
}
