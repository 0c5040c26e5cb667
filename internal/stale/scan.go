package stale

import (
	"context"
	"io/fs"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// scan is one pass over all processes.
type scan struct {
	x        *index
	byInode  bool // single files: names do not matter, nor do directories and descriptors
	proc     string
	live     bool // proc is the procfs of our own PID namespace
	patience time.Duration

	r    *resolver
	self int       // our own PID in proc
	boot time.Time // when this host was started
}

func newScan(o Options, x *index, byInode bool) *scan {
	s := &scan{x: x, byInode: byInode, proc: o.Proc, patience: o.Patience}
	if s.proc == "" {
		s.proc, s.live = "/proc", true
	}
	if s.patience == 0 {
		s.patience = defaultPatience
	}
	return s
}

// finding is what one process gave.
type finding struct {
	user       User
	unreadable bool
}

func (s *scan) run(ctx context.Context) (Usage, error) {
	if err := ctx.Err(); err != nil {
		return Usage{}, err
	}
	dir, err := openDir(unix.AT_FDCWD, s.proc, s.proc, 0)
	if err != nil {
		return Usage{}, err
	}
	defer unix.Close(dir)
	var pids []int
	for pid, err := range numbersIn(dir) {
		if err != nil {
			return Usage{}, &fs.PathError{Op: "getdents", Path: s.proc, Err: err}
		}
		pids = append(pids, pid)
	}
	s.r = &resolver{dirs: map[string]directory{}}
	// Both are missing in a recorded tree.
	if text, err := readLink(dir, "self"); err == nil {
		s.self, _ = strconv.Atoi(text)
	}
	s.r.self, _ = readLink(dir, "self/ns/mnt")
	s.boot = bootTime()
	rep, err := s.all(ctx, pids)
	if err != nil {
		return Usage{}, err
	}
	// Process 1 is always there; a mount with hidepid shows only our own.
	_, err = statAt(dir, "1")
	rep.Hidden = err == unix.ENOENT
	return rep, nil
}

// all looks at each process, a few at a time. A process that takes longer than
// our patience is left to its goroutine, which ends when the kernel lets it,
// and uses no descriptor and changes no value that is anybody else's.
func (s *scan) all(ctx context.Context, pids []int) (Usage, error) {
	slots := make(chan struct{}, 2*runtime.GOMAXPROCS(0))
	results := make(chan finding, len(pids))
	for _, pid := range pids {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return Usage{}, ctx.Err()
		}
		go func() {
			var once sync.Once
			answer := func(f finding) {
				once.Do(func() { results <- f; <-slots })
			}
			timer := time.AfterFunc(s.patience, func() {
				answer(finding{User{PID: pid}, true})
			})
			f := s.process(pid)
			timer.Stop()
			answer(f)
		}()
	}
	var rep Usage
	for range pids {
		select {
		case f := <-results:
			if len(f.user.Uses) > 0 {
				rep.Users = append(rep.Users, f.user)
			}
			if f.unreadable {
				rep.Unreadable = append(rep.Unreadable, f.user.PID)
			}
		case <-ctx.Done():
			return Usage{}, ctx.Err()
		}
	}
	slices.SortFunc(rep.Users, func(a, b User) int { return a.PID - b.PID })
	slices.Sort(rep.Unreadable)
	return rep, nil
}

// process finds what one process uses.
func (s *scan) process(pid int) finding {
	p, err := openProcess(s.proc, pid)
	if err != nil {
		return finding{User{PID: pid}, !gone(err)}
	}
	defer p.close()
	l := &look{scan: s, p: p}
	err = l.link(ByExe, "exe")
	if err != nil { // a thread of the kernel has no executable, nor has what has ended
		st, serr := p.status()
		switch {
		case serr != nil:
			err = serr
		case st.kernel || st.ended() && st.threads < 2:
			return finding{}
		case st.ended():
			// The first thread has ended, others run on, and the kernel shows
			// what they have under their own numbers only.
			if l.p, err = runningThread(s.proc, p); err != nil {
				return finding{User{PID: pid}, !gone(err)}
			}
			defer l.p.close()
			err = l.link(ByExe, "exe")
		}
	}
	if err == nil {
		err = l.rest()
	}
	f := finding{User{PID: pid, Uses: l.uses}, err != nil && !gone(err) && !p.over()}
	if len(l.uses) > 0 && !s.describe(&f.user, p, l.p) {
		return finding{} // ended while we looked
	}
	return f
}

// describe says who the user is, from its first thread and one that runs. It
// says false if the process has ended.
func (s *scan) describe(u *User, first, runs *process) bool {
	st, err := first.status()
	if err != nil || st.ended() && first == runs {
		return err != nil && !gone(err)
	}
	u.Comm, u.Ticks = st.comm, st.ticks
	u.Start = s.boot.Add(time.Duration(st.ticks) * tick)
	u.Exe, _ = runs.link("exe")
	slices.SortFunc(u.Uses, compareUses)
	return true
}

// runningThread opens a thread that has not ended. /proc lists no threads, but
// has a directory for each; task/TID would have no map_files.
func runningThread(proc string, p *process) (*process, error) {
	for tid, err := range p.numbers("task") {
		if err != nil {
			return nil, err
		}
		q, err := openProcess(proc, tid)
		if err != nil {
			continue
		}
		if st, err := q.status(); err == nil && !st.ended() {
			return q, nil
		}
		q.close()
	}
	return nil, unix.ESRCH
}

// tick is the unit of times in /proc, which is the same on every Linux but
// Alpha's, whatever the kernel's own (USER_HZ).
const tick = time.Second / 100

// bootTime is when the kernel began to count. It takes two clocks for that, and
// whoever loses the processor in between reads them at two times: so the one is
// read before and after the other, until that is next to nothing, or as little
// as in any of many tries.
func bootTime() (boot time.Time) {
	closest := int64(1<<63 - 1)
	for try := 0; try < 100 && closest > int64(tick/100); try++ {
		var before, after unix.Timespec
		if unix.ClockGettime(unix.CLOCK_BOOTTIME, &before) != nil {
			return time.Time{}
		}
		now := time.Now().Round(0)
		if unix.ClockGettime(unix.CLOCK_BOOTTIME, &after) != nil {
			return time.Time{}
		}
		if apart := after.Nano() - before.Nano(); apart < closest {
			closest, boot = apart, now.Add(-time.Duration(before.Nano()+apart/2))
		}
	}
	return boot
}
