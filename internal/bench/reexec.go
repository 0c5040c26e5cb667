package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"moult.example/internal/reexecload"
)

// What is asked of a server that replaces itself, at scale 1.
const (
	reexecUpgrades = 1000
	reexecBroken   = 100 // of them with code that does not get ready
	reexecEvery    = 100 * time.Millisecond
	reexecThink    = 5 * time.Millisecond
	reexecGap      = 15   // ms, in 99 of 100 upgrades
	reexecBack     = 1000 // ms, until the old code answers again, in all
)

// reexecServer is one that is upgraded under load.
type reexecServer struct {
	name     string
	ours     bool
	broken   bool // each upgrade is taken back
	upgrades int
	lack     string
	start    func() (*reexecload.Server, error)
}

func (b *bench) reexecServers(ctx context.Context) []reexecServer {
	upgrades := b.scaled(reexecUpgrades, 10)
	var all, broken []reexecServer
	for _, e := range reexecload.Examples(moduleRoot()) {
		s := reexecServer{name: "moult, " + e.Name, ours: true, upgrades: upgrades, lack: missing(e.Compiler)}
		s.start = func() (*reexecload.Server, error) { return b.startExample(ctx, e, false) }
		// Right after each other, so that both have the same machine.
		alone := s
		alone.name, alone.ours = s.name+", left alone", false
		alone.start = func() (*reexecload.Server, error) { return leaveAlone(s.start()) }
		all = append(all, s, alone)
		back := s
		back.name, back.broken, back.upgrades = s.name+", taken back", true, b.scaled(reexecBroken, 5)
		back.start = func() (*reexecload.Server, error) { return b.startExample(ctx, e, true) }
		broken = append(broken, back)
	}
	all = append(all, broken...)
	haproxy := func(name, option string) reexecServer {
		return reexecServer{name: name, upgrades: upgrades, lack: missing("haproxy"), start: func() (*reexecload.Server, error) {
			return b.startHAProxy(ctx, name, option)
		}}
	}
	return append(all,
		reexecServer{name: "nginx, USR2 and QUIT", upgrades: upgrades, lack: missing("nginx"), start: func() (*reexecload.Server, error) { return b.startNginx(ctx) }},
		haproxy("HAProxy, USR2", ""),
		haproxy("HAProxy, idle-close-on-response", "option idle-close-on-response"))
}

// leaveAlone makes a server that is not replaced: what is seen then is the
// machine's own doing.
func leaveAlone(s *reexecload.Server, err error) (*reexecload.Server, error) {
	if err != nil {
		return nil, err
	}
	s.Upgrade, s.Upgraded = func(int) error { return nil }, nil
	return s, nil
}

// moduleRoot is where the examples' sources are: the bench is run from there, or
// from anywhere below.
func moduleRoot() string {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "."
	}
	return filepath.Dir(strings.TrimSpace(string(out)))
}

// startExample starts one of moult's own servers, in two versions, or in one that
// has nothing but a broken successor.
func (b *bench) startExample(ctx context.Context, e reexecload.Example, broken bool) (*reexecload.Server, error) {
	dir, port, err := b.serverPlace(e.Name)
	if err != nil {
		return nil, err
	}
	versions := []string{"1", "2"}
	var files []string
	for _, v := range versions {
		files = append(files, filepath.Join(dir, "version-"+v))
		if err := e.Build(ctx, moduleRoot(), files[len(files)-1], v); err != nil {
			return nil, err
		}
	}
	p := e.Serve(dir, port, files, versions)
	if broken {
		p.Broken = filepath.Join(dir, "taken-back")
		if err := reexecload.BuildBroken(ctx, moduleRoot(), p.Broken); err != nil {
			return nil, err
		}
	}
	run, err := p.Start(ctx)
	if err != nil {
		return nil, err
	}
	return run.Server, nil
}

// measureReexec upgrades servers under load, again and again, and counts what
// gets lost.
func (b *bench) measureReexec(ctx context.Context, s *Section) error {
	s.Title = "requests lost while a server is replaced under load"
	s.Method = fmt.Sprintf("16 workers, half of them with a new connection for each request; POST, %v think time, nothing sent twice; "+
		"an upgrade every %v", reexecThink, reexecEvery)
	s.Unit = "lost"
	for _, server := range b.reexecServers(ctx) {
		if server.lack != "" {
			s.skip(server.name, server.lack)
			continue
		}
		b.say("reexec: %s, %d upgrades", server.name, server.upgrades)
		r, err := runTrial(ctx, server)
		if err != nil {
			return err
		}
		s.addTrial(server, r)
	}
	return nil
}

func runTrial(ctx context.Context, server reexecServer) (reexecload.TrialResult, error) {
	s, err := server.start()
	if err != nil {
		return reexecload.TrialResult{}, err
	}
	defer s.Stop()
	return reexecload.Trial{Think: reexecThink, Upgrades: server.upgrades, Every: reexecEvery}.Run(ctx, s)
}

// addTrial makes a row of a trial, and targets if it is ours.
func (s *Section) addTrial(server reexecServer, r reexecload.TrialResult) {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	all := r.All()
	lost := all.Lost + all.Wrong
	note := fmt.Sprintf("%d kept (%d closed before), %d new, of %d; p99.9 %.1f ms", r.Kept.Lost+r.Kept.Wrong, r.Kept.Closed,
		lost-r.Kept.Lost-r.Kept.Wrong, lost+all.Answered, ms(all.Took(0.999)))
	if r.Upgrades.Done > 0 {
		note += fmt.Sprintf("; %d times, gap p50 %.1f ms, p99 %.1f ms, longest %.1f ms", r.Upgrades.Done, ms(r.Upgrades.Gap(0.5)), ms(r.Upgrades.Gap(0.99)), ms(r.Upgrades.Gap(1)))
	}
	s.Rows = append(s.Rows, Row{Name: server.name, Value: float64(lost), Note: note})
	if server.ours {
		s.check(server.name, float64(lost), 0, "lost")
		if server.broken {
			s.check(server.name+", deaf at the longest", ms(r.Upgrades.Gap(1)), reexecBack, "ms")
		} else {
			s.check(server.name+", listener gap p99", ms(r.Upgrades.Gap(0.99)), reexecGap, "ms")
		}
	}
}
