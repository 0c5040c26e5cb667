package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// measureLaunches: how often a program is started of two releases at once.
func (b *bench) measureLaunches(ctx context.Context, s *Section) error {
	s.Title = fmt.Sprintf("mixed launches under back-to-back updates of %d files", setFiles)
	s.Unit = "for each update"
	s.Method = "a program with three libraries is started without a pause on a processor of its own, and says if it got parts of two releases"
	other, why := lastCPU()
	if why == "" {
		why = missing("cc")
	}
	if why != "" {
		s.skip("all", why)
		return nil
	}
	set, err := b.theSet(ctx)
	if err != nil {
		return err
	}
	all, err := b.switchers(ctx, s, set, 20*b.opt.rounds, 4*b.opt.rounds)
	if err != nil {
		return err
	}
	for _, w := range all {
		if err := b.settle(b.dir); err != nil {
			return err
		}
		l, err := b.launch(ctx, set, other, filepath.Join(w.live(w.p), setProgram))
		if err != nil {
			return err
		}
		err = without(other, func() error {
			for range w.rounds {
				if _, err := w.turn(b, ctx, set); err != nil {
					return err
				}
			}
			return nil
		})
		n, err2 := l.end()
		if err == nil {
			err = err2
		}
		if err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
		each := func(count int) float64 { return float64(count) / float64(w.rounds) }
		note := fmt.Sprintf("%d updates, %d launches, %d failed", w.rounds, n.launches, n.failed)
		if n.failed > 0 {
			note += ": " + n.how
		}
		s.Rows = append(s.Rows, Row{Name: w.name, Value: each(n.mixed), Note: note})
		switch w.name {
		case sharedName:
			s.check(w.name+", mixed", each(n.mixed), 1, "for each update")
			s.check(w.name+", failed", each(n.failed), 0, "for each update")
		case ownedName:
			s.check(w.name+", mixed or failed", each(n.mixed+n.failed), 0, "for each update")
		}
	}
	return nil
}

// launching is a launcher at work; see src/launcher.c.
type launching struct {
	stdin  io.Closer
	stdout *bufio.Reader
	wait   func() error
}

// launches is what a launcher has counted.
type launches struct {
	launches, mixed, failed int
	how                     string // the last one failed
}

func (b *bench) launch(ctx context.Context, set *set, cpu int, program string) (*launching, error) {
	cmd := b.command(ctx, set.launcher, fmt.Sprint(cpu), program)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l := &launching{stdin, bufio.NewReader(stdout), cmd.Wait}
	if line, _ := l.stdout.ReadString('\n'); strings.TrimSpace(line) != "ready" {
		return nil, fmt.Errorf("launcher: %w", l.wait())
	}
	return l, nil
}

func (l *launching) end() (n launches, err error) {
	l.stdin.Close()
	if _, err = fmt.Fscan(l.stdout, &n.launches, &n.mixed, &n.failed); err == nil {
		n.how, err = l.stdout.ReadString('\n')
		n.how = strings.TrimSpace(n.how)
	}
	if err2 := l.wait(); err2 != nil {
		err = err2
	}
	return n, err
}
