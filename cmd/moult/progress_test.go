package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"moult.example/internal/restart"
)

// TestProgress wants one line on a terminal of sixty columns: not before there
// is something to wait for, not more often than anyone can read, and gone in the
// end.
func TestProgress(t *testing.T) {
	var screen bytes.Buffer
	now := time.Unix(1000, 0)
	a := newApp(nil, nil, &screen, nil)
	a.progress.width = func() int { return 60 }
	a.progress.now = func() time.Time { return now }
	drawn := func() string {
		defer screen.Reset()
		return screen.String()
	}

	a.progress.show("stage", 0, 10e6)
	if got := drawn(); got != "" {
		t.Errorf("at once: %q, want nothing", got)
	}
	now = now.Add(time.Second)
	a.progress.show("stage", 5e6, 10e6)
	if got, want := drawn(), "\rstage  [============            ]  50%  5.0 MB of 10 MB  5.\x1b[K"; got != want {
		t.Errorf("after a second: %q, want %q", got, want)
	}
	now = now.Add(10 * time.Millisecond)
	a.progress.show("stage", 6e6, 10e6)
	if got := drawn(); got != "" {
		t.Errorf("too soon: %q, want nothing", got)
	}
	now = now.Add(time.Second)
	a.progress.show("stage", 6e6, 0)
	if got := drawn(); !strings.Contains(got, "stage  6.0 MB  3.0 MB/s") {
		t.Errorf("of an unknown whole: %q", got)
	}
	a.progress.finish()
	if got, want := drawn(), "\r\x1b[K"; got != want {
		t.Errorf("in the end: %q, want %q", got, want)
	}
	a.progress.step("lab", "mv", 3, 17)
	now = now.Add(time.Second)
	a.progress.step("lab", "mv", 3, 17)
	if got := drawn(); !strings.Contains(got, "lab  [====                    ]  17%  3 of 17  1s  mv") {
		t.Errorf("steps: %q", got)
	}
	a.progress.finish()
	for range 2 {
		a.progress.restarting(restart.Event{State: restart.Done, Done: 1, All: 1})
		now = now.Add(3 * time.Second)
	}
	if got := drawn(); !strings.Contains(got, "restart  is all well?  3s") {
		t.Errorf("while the health is asked: %q", got)
	}
	for name, silence := range map[string]func(){
		"--json":      func() { a.json = true },
		"--quiet":     func() { a.json, a.quiet = false, true },
		"no terminal": func() { a.quiet, a.progress.width = false, func() int { return 0 } },
	} {
		silence()
		now = now.Add(time.Minute)
		a.progress.show("stage", 1, 2)
		if got := drawn(); got != "" {
			t.Errorf("%s: %q, want nothing", name, got)
		}
	}
}
