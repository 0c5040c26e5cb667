package main

import (
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"moult.example/internal/deploy"
)

// progress draws one line on the terminal while a long job runs. It is silent
// where standard error is not a terminal, with --json and with --quiet.
type progress struct {
	app *app
	mu  sync.Mutex
	job string
	bar *progressbar.ProgressBar
}

func newProgress(a *app) *progress { return &progress{app: a} }

// event takes a step of the engine.
func (p *progress) event(e deploy.Event) { p.show(e.Job, e.Bytes, e.AllBytes) }

// show says how far a job is; all is 0 as long as nobody knows how much it is.
func (p *progress) show(job string, done, all int64) {
	if !p.wanted() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar == nil || p.job != job {
		p.clear()
		p.job = job
		p.bar = progressbar.NewOptions64(-1,
			progressbar.OptionSetWriter(p.app.stderr),
			progressbar.OptionSetDescription(job),
			progressbar.OptionShowBytes(true),
			progressbar.OptionSetWidth(24),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionSetRenderBlankState(false),
		)
	}
	if all > 0 {
		p.bar.ChangeMax64(all + 1) // a full bar draws no more
	}
	_ = p.bar.Set64(done) // the terminal may go away; the job goes on
}

// finish takes the line away.
func (p *progress) finish() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear()
		p.bar = nil
	}
}

func (p *progress) wanted() bool {
	return !p.app.json && !p.app.quiet && p.app.getenv("TERM") != "dumb" && isTerminal(p.app.stderr)
}

func isTerminal(w io.Writer) bool {
	f, isFile := w.(*os.File)
	return isFile && term.IsTerminal(int(f.Fd()))
}
