package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/stale"
)

// psMark says what has happened to a process since the last look.
type psMark int

const (
	markNone psMark = iota
	markNew
	markOther // it runs other old code than before
	markOver  // it runs none any more: it has ended, or is up to date
)

func (m psMark) sign() string  { return []string{" ", "+", "~", "-"}[m] }
func (m psMark) style() string { return []string{"", styleNew, styleOther, styleOver}[m] }

// psChanges compares two looks. What is over is to be shown once more.
func psChanges(last, now []stale.Process) (over []stale.Process, marks map[psID]psMark) {
	marks = map[psID]psMark{}
	was := map[psID]stale.Process{}
	for _, p := range last {
		was[psID{p.PID, p.Ticks}] = p
	}
	for _, p := range now {
		id := psID{p.PID, p.Ticks}
		before, known := was[id]
		switch {
		case !known:
			marks[id] = markNew
		case psFilesKey(before) != psFilesKey(p):
			marks[id] = markOther
		}
		delete(was, id)
	}
	for _, p := range last {
		if id := (psID{p.PID, p.Ticks}); was[id].PID != 0 {
			marks[id] = markOver
			over = append(over, p)
		}
	}
	return over, marks
}

// psWatch looks again and again until it is told to end. On a terminal it is a
// live view; elsewhere it prints a line, or with --json a document on one line,
// for each change.
func (a *app) psWatch(ctx context.Context, f *psFlags) error {
	a.printed = true // a document on its own line each, also where an error follows
	if !a.json && isTerminal(a.stdout) && a.getenv("TERM") != "dumb" {
		return a.psScreen(ctx, f)
	}
	var last psFound
	var lastDoc []byte
	for first := true; ; first = false {
		found, err := a.psLook(ctx, f)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		var out []byte
		if a.json {
			out, lastDoc, err = psNewDocument(found, f, lastDoc)
		} else {
			out = psChangeLines(last, found, first)
		}
		if err != nil {
			return err
		}
		if _, err := a.stdout.Write(out); err != nil {
			return fmt.Errorf("print the result: %w", err)
		}
		last = found
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(f.interval):
		}
	}
}

// psNewDocument is the document on one line, or nothing if it says the same as
// the last but for its time.
func psNewDocument(found psFound, f *psFlags, last []byte) (line, same []byte, err error) {
	d := psDocumentOf(found, f)
	at := d.Time
	d.Time = time.Time{}
	d.Scanned = 0
	if same, err = document(d); err != nil || bytes.Equal(same, last) {
		return nil, same, err
	}
	d.Time, d.Scanned = at, found.Scanned
	whole, err := document(d)
	if err != nil {
		return nil, same, err
	}
	var b bytes.Buffer
	if err := json.Compact(&b, whole); err != nil {
		return nil, same, err
	}
	b.WriteByte('\n')
	return b.Bytes(), same, nil
}

// psChangeLines is one line for each change.
func psChangeLines(last, found psFound, first bool) []byte {
	var b bytes.Buffer
	switch {
	case found.empty != nil && (last.empty == nil || *last.empty != *found.empty):
		fmt.Fprintf(&b, "%s  %s\n", when(found.at), strings.TrimSuffix(found.empty.text(), "."))
	case first && len(found.old) == 0 && found.empty == nil:
		fmt.Fprintf(&b, "%s  no process runs old code\n", when(found.at))
	}
	over, marks := psChanges(last.old, found.old)
	for _, p := range slices.Concat(found.old, over) {
		word := map[psMark]string{markNew: "new", markOther: "other", markOver: "over"}[marks[psID{p.PID, p.Ticks}]]
		if word == "" {
			continue
		}
		var names []string
		for _, x := range p.Files {
			if x.Verdict != stale.None {
				names = append(names, publicName(x.Path))
			}
		}
		text := strings.Join(names[:min(len(names), fewFiles)], ", ")
		if more := len(names) - fewFiles; more > 0 {
			text += fmt.Sprintf(" and %d more", more)
		}
		fmt.Fprintf(&b, "%s  %-5s  %d  %s  %s  %s: %s\n", when(found.at), word, p.PID, plain(userName(p.UID, p.User)),
			strings.ToUpper(string(p.Verdict())), cut(psView{}.command(p.Command, p.Comm), columns), text)
	}
	return b.Bytes()
}

// psScreen is the live view.
func (a *app) psScreen(ctx context.Context, f *psFlags) error {
	s, err := openScreen(a)
	if err != nil {
		return err
	}
	defer s.close()
	stops := make(chan os.Signal, 1)
	signal.Notify(stops, syscall.SIGTSTP)
	defer signal.Stop(stops)
	var last, found psFound
	for looked := false; ; looked = true {
		now, err := a.psLook(ctx, f)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		last, found = found, now
		view := a.psView(f)
		if looked {
			view.over, view.marks = psChanges(last.old, found.old)
		}
		for redraw := true; redraw; {
			title := fmt.Sprintf("moult ps, every %s: %s", f.interval, when(found.at))
			if err := s.draw(title, func(width int) []string {
				view.width = width
				return view.lines(found, f)
			}); err != nil {
				return err
			}
			key := s.wait(ctx, stops, found.at.Add(f.interval))
			switch key {
			case keyEnd:
				return nil
			case keyRedraw:
			default:
				redraw = false
			}
		}
	}
}

// screen is the terminal while a live view has it.
type screen struct {
	app       *app
	keys      int // descriptor of the keyboard; -1 if there is none
	before    *unix.Termios
	width     int
	height    int
	lastFrame string
}

func openScreen(a *app) (*screen, error) {
	s := &screen{app: a, keys: -1}
	if f, isFile := a.stdin.(*os.File); isFile {
		if t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
			s.keys, s.before = int(f.Fd()), t
		}
	}
	return s, s.enter()
}

// enter takes the terminal: the other screen, no cursor, no wrapping, and keys
// that come one by one and are not echoed. Ctrl-C stays a signal.
func (s *screen) enter() error {
	if s.before != nil {
		t := *s.before
		t.Lflag &^= unix.ICANON | unix.ECHO
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		if err := unix.IoctlSetTermios(s.keys, unix.TCSETS, &t); err != nil {
			return fmt.Errorf("the terminal: %w", err)
		}
	}
	s.lastFrame = ""
	_, err := fmt.Fprint(s.app.stdout, "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J")
	return err
}

// close gives the terminal back as it was. It may be gone.
func (s *screen) close() {
	fmt.Fprint(s.app.stdout, "\x1b[?7h\x1b[?25h\x1b[?1049l")
	if s.before != nil {
		_ = unix.IoctlSetTermios(s.keys, unix.TCSETS, s.before) // it may be gone
	}
}

// draw shows lines below a title, as many as there is room for, the last ones
// always: they are the summary.
func (s *screen) draw(title string, text func(width int) []string) error {
	s.size()
	lines := text(s.width)
	const tail = 3 // blank, summary, what is unseen
	if room := s.height - 3; len(lines) > room && room > tail {
		left := len(lines) - room + 1
		lines = slices.Concat(lines[:room-tail-1], []string{fmt.Sprintf("… %d more lines; --user, --unit and TARGET show fewer", left)}, lines[len(lines)-tail:])
	}
	var b strings.Builder
	// A line is cleared before it is written: after one that is as wide as the
	// screen, its last character would go.
	b.WriteString("\x1b[H\x1b[K\x1b[7m" + cut(title, s.width) + "\x1b[0m\r\n\x1b[K")
	for _, line := range lines[:min(len(lines), max(0, s.height-3))] {
		b.WriteString("\r\n\x1b[K" + line)
	}
	b.WriteString("\r\n\x1b[J")
	fmt.Fprintf(&b, "\x1b[%d;1H\x1b[2m%s\x1b[0m", s.height, cut("q ends, space looks at once", s.width))
	_, err := fmt.Fprint(s.app.stdout, b.String())
	return err
}

// size asks for the size of the terminal, and says whether it has changed.
func (s *screen) size() bool {
	width, height := columns, 24
	if f, isFile := s.app.stdout.(*os.File); isFile {
		if ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 && ws.Row > 0 {
			width, height = int(ws.Col), int(ws.Row)
		}
	}
	changed := width != s.width || height != s.height
	s.width, s.height = width, height
	return changed
}

// key is what ends a wait.
type key int

const (
	keyNone   key = iota // the time is up, or somebody wants to look at once
	keyEnd               // q, Ctrl-C, or a signal
	keyRedraw            // the terminal has another size, or is ours again
)

// wait waits for a key, a signal, another size of the terminal, or the time.
func (s *screen) wait(ctx context.Context, stops <-chan os.Signal, until time.Time) key {
	const glance = 100 * time.Millisecond
	for {
		if ctx.Err() != nil {
			return keyEnd
		}
		select {
		case <-stops:
			s.close()
			_ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP) // until somebody says SIGCONT
			if s.enter() != nil {
				return keyEnd
			}
			return keyRedraw
		default:
		}
		if s.size() {
			return keyRedraw
		}
		left := time.Until(until)
		if left <= 0 {
			return keyNone
		}
		if k, ok := s.pressed(min(left, glance)); ok {
			return k
		}
	}
}

// pressed waits a moment for a key.
func (s *screen) pressed(moment time.Duration) (key, bool) {
	fds := []unix.PollFd{{Fd: int32(s.keys), Events: unix.POLLIN}}
	if s.keys < 0 {
		fds = nil
	}
	n, err := unix.Poll(fds, int(max(1, moment.Milliseconds())))
	if n <= 0 || err != nil {
		return keyNone, false
	}
	var b [64]byte
	got, err := unix.Read(s.keys, b[:])
	if got <= 0 || err != nil {
		return keyEnd, err != unix.EINTR // the terminal is gone
	}
	for _, c := range b[:got] {
		switch c {
		case 'q', 'Q', 3:
			return keyEnd, true
		case ' ', '\r', '\n':
			return keyNone, true
		}
	}
	return keyNone, false
}
