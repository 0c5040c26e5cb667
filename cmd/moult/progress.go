package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
)

// progress draws one line on the terminal while a long job runs, and takes it
// away afterwards. It is silent where standard error is not a terminal, with
// --json and with --quiet.
type progress struct {
	app   *app
	width func() int       // of the terminal, 0 if there is none
	now   func() time.Time // the clock

	mu           sync.Mutex
	job          string
	begun, drawn time.Time
	shown        bool // there is a line on the screen
}

const (
	patience = 200 * time.Millisecond // a shorter job shows nothing
	redraw   = 100 * time.Millisecond
	barWidth = 24
)

func newProgress(a *app) *progress {
	return &progress{app: a, now: time.Now, width: func() int { return terminalWidth(a.stderr) }}
}

// event takes a step of the engine.
func (p *progress) event(e deploy.Event) { p.show(e.Job, e.Bytes, e.AllBytes) }

// show says how many bytes of a job are done; all is 0 as long as nobody knows
// how many there are.
func (p *progress) show(job string, done, all int64) {
	p.draw(job, func(passed time.Duration) string {
		speed := int64(float64(done) / passed.Seconds())
		if all <= 0 {
			return fmt.Sprintf("%s  %s  %s/s", job, size(done), size(speed))
		}
		left := ""
		if done > 0 && done < all {
			left = "  " + (time.Duration(float64(passed) * float64(all-done) / float64(done))).Round(time.Second).String()
		}
		return fmt.Sprintf("%s  %s  %s of %s  %s/s%s", job, bar(done, all), size(done), size(all), size(speed), left)
	})
}

// step says how many steps of a job are done, and which is next.
func (p *progress) step(job, next string, done, all int) {
	p.draw(job, func(passed time.Duration) string {
		return fmt.Sprintf("%s  %s  %d of %d  %s  %s", job, bar(int64(done), int64(all)), done, all, passed.Round(time.Second), next)
	})
}

// draw draws the line anew if it is time to. The terminal may have gone away;
// the job goes on.
func (p *progress) draw(job string, line func(passed time.Duration) string) {
	if p.app.json || p.app.quiet || p.app.getenv("TERM") == "dumb" {
		return
	}
	width := p.width()
	if width == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	if p.job != job || p.begun.IsZero() {
		p.job, p.begun = job, now
	}
	if now.Sub(p.begun) < patience || p.shown && now.Sub(p.drawn) < redraw {
		return
	}
	text := []rune(line(now.Sub(p.begun)))
	if len(text) >= width {
		text = text[:width-1]
	}
	fmt.Fprintf(p.app.stderr, "\r%s\x1b[K", string(text))
	p.drawn, p.shown = now, true
}

// finish takes the line away.
func (p *progress) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.app.stderr, "\r\x1b[K")
	}
	p.shown, p.begun = false, time.Time{}
}

func bar(done, all int64) string {
	if all <= 0 {
		return ""
	}
	done = min(max(done, 0), all)
	full := int(float64(done) / float64(all) * barWidth)
	return fmt.Sprintf("[%s%s] %3d%%", strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), int(float64(done)/float64(all)*100))
}

// terminalWidth is how many columns the terminal behind w has; 0 if it is none.
func terminalWidth(w io.Writer) int {
	f, isFile := w.(*os.File)
	if !isFile {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	if size.Col == 0 {
		return columns // a serial line does not say
	}
	return int(size.Col)
}

func isTerminal(w io.Writer) bool { return terminalWidth(w) > 0 }
