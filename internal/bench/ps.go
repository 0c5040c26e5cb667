package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// The host that moult ps is measured on: its processes have 120 mappings each,
// and most of them run one of a few libraries that are replaced.
const (
	psProcesses = 300
	psStale     = 249
	psLibraries = 80
	psReplaced  = 6
	psEach      = 20 // libraries of each process
)

// measurePs: who runs what was replaced. CPU time is what counts here: it is
// taken from the programs that the host is there for.
func (b *bench) measurePs(ctx context.Context, s *Section) error {
	s.Title = fmt.Sprintf("CPU time to find the %d stale of %d processes", psStale, psProcesses)
	s.Unit = "of the floor"
	s.Method = "the floor is a C program that asks the kernel for every mapping with code, and does nothing with the answers"
	if why := missing("cc"); why != "" {
		s.skip("all", why)
		return nil
	}
	h, err := b.newPsHost(ctx)
	if err != nil {
		return err
	}
	defer h.end()
	all := []*entrant{
		{name: "floor", run: func(ctx context.Context) (usage, error) { return b.run(ctx, []string{h.floor}) }},
		{name: "moult ps", run: func(ctx context.Context) (usage, error) { return b.run(ctx, []string{b.moult, "ps", "--json"}) }},
		{name: "grep '(deleted)'", run: func(ctx context.Context) (usage, error) {
			return b.run(ctx, []string{"sh", "-c", "grep -l 'r-xp .*(deleted)' /proc/[0-9]*/maps || true"})
		}},
	}
	if why := missing("lsof"); why != "" {
		s.skip("lsof +L1", why)
	} else {
		all = append(all, &entrant{name: "lsof +L1", run: func(ctx context.Context) (usage, error) {
			return b.run(ctx, []string{"sh", "-c", "lsof +L1 || true"})
		}})
	}
	if err := b.turns(ctx, 4*b.opt.rounds, nil, all...); err != nil {
		return err
	}
	cpu := func(e *entrant) float64 {
		return median(e.samples, func(u usage) float64 { return float64(u.user + u.system) })
	}
	if all[0].failed != nil {
		s.skip("all", "the kernel cannot be asked for mappings (PROCMAP_QUERY, Linux 6.11): "+all[0].failed.Error())
		return nil
	}
	for _, e := range all {
		if e.failed != nil {
			s.skip(e.name, e.failed.Error())
			continue
		}
		s.Rows = append(s.Rows, Row{Name: e.name, Value: cpu(e) / cpu(all[0]), Samples: samplesOf(e.samples),
			Note: fmt.Sprintf("%.0f ms of CPU", cpu(e)/1e6)})
	}
	if all[1].failed == nil {
		s.check("moult ps", cpu(all[1])/cpu(all[0]), 4.4, "of the floor")
		s.check("moult ps, resident", median(all[1].samples, func(u usage) float64 { return float64(u.rss) })/1e6, 20, "MB")
	}
	return h.check(ctx, b)
}

// psHost are the processes.
type psHost struct {
	dir, floor string
	processes  []*exec.Cmd
}

func (b *bench) newPsHost(ctx context.Context) (h *psHost, err error) {
	h = &psHost{dir: filepath.Join(b.dir, "ps")}
	defer func() {
		if err != nil {
			h.end()
		}
	}()
	if err := os.CopyFS(filepath.Join(h.dir, "c"), sources); err != nil {
		return h, err
	}
	src := filepath.Join(h.dir, "c", "src")
	h.floor = filepath.Join(h.dir, "mapfloor")
	holder, before, after := filepath.Join(h.dir, "holder"), filepath.Join(h.dir, "before.so"), filepath.Join(h.dir, "after.so")
	if _, err := b.run(ctx,
		[]string{"cc", "-O2", "-o", h.floor, filepath.Join(src, "mapfloor.c")},
		[]string{"cc", "-O2", "-o", holder, filepath.Join(src, "holder.c"), "-ldl"},
		[]string{"cc", "-O1", "-shared", "-fPIC", `-DHELD="before"`, "-o", before, filepath.Join(src, "held.c")},
		[]string{"cc", "-O1", "-shared", "-fPIC", `-DHELD="after"`, "-o", after, filepath.Join(src, "held.c")},
	); err != nil {
		return h, err
	}
	var libraries []string
	for i := range psLibraries {
		name := filepath.Join(h.dir, fmt.Sprintf("lib%d.so", i))
		if err := copyBytes(before, name); err != nil {
			return h, err
		}
		libraries = append(libraries, name)
	}
	for p := range b.scaled(psProcesses, 10) {
		args := []string{holder}
		if p < b.stalePs() {
			args = append(args, libraries[p%psReplaced])
		}
		for i := range psEach {
			args = append(args, libraries[psReplaced+(p%5*15+i)%(psLibraries-psReplaced)])
		}
		if err := h.start(b.command(ctx, args...)); err != nil {
			return h, err
		}
	}
	time.Sleep(50 * time.Millisecond) // files that change from now on are younger than all of them
	for _, name := range libraries[:psReplaced] {
		if err := copyBytes(after, name+".new"); err != nil {
			return h, err
		}
		if err := os.Rename(name+".new", name); err != nil {
			return h, err
		}
	}
	return h, nil
}

func (b *bench) stalePs() int { return b.scaled(psProcesses, 10) * psStale / psProcesses }

func copyBytes(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}

// start starts a process and waits until it is ready.
func (h *psHost) start(cmd *exec.Cmd) error {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	h.processes = append(h.processes, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		return fmt.Errorf("%s: said %q: %w", cmd.Path, line, errors.Join(err, errors.New("not ready")))
	}
	return nil
}

func (h *psHost) end() {
	for _, cmd := range h.processes {
		// what has ended already is ended
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}

// check makes sure that what was measured found what there was to find.
func (h *psHost) check(ctx context.Context, b *bench) error {
	out, err := b.command(ctx, b.moult, "ps", "--json").Output()
	if err != nil {
		return fmt.Errorf("moult ps --json: %w", err)
	}
	var doc struct {
		Processes []struct {
			PID     int    `json:"pid"`
			Verdict string `json:"verdict"`
		} `json:"processes"`
	}
	if err := json.Unmarshal(out, &doc); err != nil {
		return fmt.Errorf("moult ps --json: %w", err)
	}
	ours := map[int]bool{}
	for _, cmd := range h.processes {
		ours[cmd.Process.Pid] = true
	}
	found := 0
	for _, p := range doc.Processes {
		if ours[p.PID] && p.Verdict == "stale" {
			found++
		}
	}
	if want := b.stalePs(); found != want {
		return fmt.Errorf("moult ps found %d of %d stale processes", found, want)
	}
	return nil
}
