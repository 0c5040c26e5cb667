package destroytest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"moult.example/internal/disk/disktest"
	"moult.example/internal/testneed"
)

// TestPowerCut works on real file systems, on a target of each layout and with
// moult install, and takes snapshots of the disk below at random moments: what a
// power cut would leave there. Each is mounted, which replays the file system's
// own log, and must show an old or a new release; and never one that is older
// than what moult had reported as done when the snapshot began.
func TestPowerCut(t *testing.T) {
	testneed.Root(t)
	for _, fsType := range []string{"ext4", "xfs", "btrfs"} {
		t.Run(fsType, func(t *testing.T) {
			t.Parallel()
			loop := disktest.LoopFS(t, fsType, 400)
			h := newHostIn(t, loop.Dir)
			campaigns := []*campaign{newCampaign(h, "owned", h.dir), newCampaign(h, "shared", h.dir), newCampaign(h, installed, h.dir)}
			cuts, hits := number(t, "MOULT_CUTS", 12), map[string]int{}
			for round := 0; round == 0 || round < 3 && hits["owned: the commit"]+hits["shared: the commit"] == 0; round++ {
				var snapshots []snapshot
				if round < 2 {
					snapshots = snapshotWhile(t, loop, campaigns, cuts)
				} else { // the machine is too busy to meet a commit
					campaigns[0].cutShort()
					snapshots = []snapshot{take(t, loop, campaigns)}
				}
				loop.Unmount(t)
				for n, s := range snapshots {
					s.judge(t, h, campaigns, n, hits)
				}
				if t.Failed() {
					return
				}
				loop.Mount(t)
			}
			t.Logf("%d, %d and %d commands; hits: %v", campaigns[0].begun, campaigns[1].begun, campaigns[2].begun, hits)
			if hits["owned: the commit"]+hits["shared: the commit"] == 0 {
				t.Errorf("no cut was in the middle of a commit: %v", hits)
			}
		})
	}
}

// writeStep makes a small release, the n-th of several that differ.
func writeStep(t testing.TB, dir string, n int) string {
	t.Helper()
	f := files{"VERSION": fmt.Sprint(n), "lib/libx.so": fmt.Sprintf("->libx.so.%d", n), fmt.Sprintf("lib/libx.so.%d", n): fmt.Sprint("x ", n)}
	for i := range 20 {
		f[fmt.Sprintf("d%d/same%d", i%4, i)] = strings.Repeat("same ", 100*i)
		f[fmt.Sprintf("d%d/each%d", i%4, i)] = strings.Repeat(fmt.Sprintf("%d ", n), 300*i)
	}
	f[fmt.Sprintf("only%d/f", n)] = "only in one"
	f["bin/tool"] = fmt.Sprintf("0755:tool %d", n)
	f["bin/alias"] = "=bin/tool"
	return f.write(t, dir)
}

// A campaign is one target on which moult is at work all the time.
type campaign struct {
	*host
	name     string // of the target, and its layout
	src      string // the directory of the releases
	releases []*disktest.Tree

	mu     sync.Mutex
	states []*disktest.Tree // what people see after each command; the first is before all
	begun  int              // the number of the command that runs, or has run last
	done   int              // the last that has reported success
}

// steps is how many releases a campaign goes through, again and again.
const steps = 5

// installed is the campaign of moult install, which replaces one file.
const installed = "installed"

func newCampaign(h *host, layout, src string) *campaign {
	h.Helper()
	c := &campaign{host: h, name: layout, src: src}
	must(h, os.Mkdir(h.path(layout), 0o755))
	files{"mine": "mine"}.write(h, h.path(layout))
	mine := view(h, h.path(layout))
	for n := range steps {
		dir := c.release(n)
		if layout == installed {
			files{"tool": "0755:" + strings.Repeat(fmt.Sprint("tool ", n), 10_000)}.write(h, dir)
		} else {
			writeStep(h, dir, n)
		}
		home := atHome(h, dir)
		home.Entries["mine"] = mine.Entries["mine"]
		c.releases = append(c.releases, home)
	}
	c.states = []*disktest.Tree{mine}
	return c
}

// release is where the n-th release lies.
func (c *campaign) release(n int) string {
	return filepath.Join(c.src, fmt.Sprintf("r%d-%s", n%steps, c.name))
}

// next is what to do next: three times out of four a release is applied, then
// the way back is taken.
func (c *campaign) next() (args []string, after *disktest.Tree) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := len(c.states)
	if c.name == installed {
		return []string{"install", c.release(n) + "/tool", c.name}, c.releases[n%steps]
	}
	if n%4 == 0 {
		return []string{"rollback", c.name}, c.states[n-2]
	}
	return []string{"apply", "--packaged", "--layout", c.name, c.release(n), c.name}, c.releases[n%steps]
}

// work does one command after the other.
func (c *campaign) work(stop <-chan bool) error {
	for {
		select {
		case <-stop:
			return nil
		default:
		}
		args, after := c.next()
		cmd := c.command(args...)
		c.mu.Lock()
		c.states = append(c.states, after)
		c.begun++
		c.mu.Unlock()
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w\n%s", args, err, out)
		}
		c.mu.Lock()
		c.done = c.begun
		c.mu.Unlock()
	}
}

// cutShort does the next command in an owned target, up to the moment right
// before the switch.
func (c *campaign) cutShort() {
	c.Helper()
	args, after := c.next()
	c.states = append(c.states, after)
	c.begun++
	if got := c.finish(c.faulty([]string{"MOULT_FAULT=kill:1:rename:live"}, args...)); !got.killed {
		c.Fatalf("not killed: %v", got)
	}
}

// decided says whether there is a journal in the live target.
func (c *campaign) decided() bool {
	_, err := os.Lstat(c.path(strings.Replace(books(c.name), "app", c.name, 2) + "/journal"))
	return err == nil
}

// A snapshot is a disk as it was at one moment, and what it may show: for each
// campaign the states from the first to the last.
type snapshot struct {
	disk        *disktest.Loop
	first, last []int
}

// snapshotWhile takes snapshots at random moments while all campaigns are at
// work, half of them when one of them has just decided a commit.
func snapshotWhile(t *testing.T, loop *disktest.Loop, campaigns []*campaign, n int) (all []snapshot) {
	t.Helper()
	stop := make(chan bool)
	var workers sync.WaitGroup
	for _, c := range campaigns {
		workers.Go(func() {
			if err := c.work(stop); err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		})
	}
	for i := range n {
		pause := time.Duration(rand.Int64N(int64(200 * time.Millisecond)))
		if c := campaigns[i/2%2]; i%2 == 0 {
			for end := time.Now().Add(10 * time.Second); !c.decided() && time.Now().Before(end); {
				time.Sleep(100 * time.Microsecond)
			}
			pause = time.Duration(rand.Int64N(int64(20 * time.Millisecond)))
		}
		time.Sleep(pause)
		all = append(all, take(t, loop, campaigns))
	}
	close(stop)
	workers.Wait()
	return all
}

// take takes one snapshot.
func take(t *testing.T, loop *disktest.Loop, campaigns []*campaign) (s snapshot) {
	t.Helper()
	for _, c := range campaigns {
		c.mu.Lock()
		s.first = append(s.first, c.done)
		c.mu.Unlock()
	}
	s.disk = loop.Snapshot(t)
	for _, c := range campaigns {
		c.mu.Lock()
		s.last = append(s.last, c.begun)
		c.mu.Unlock()
	}
	return s
}

// judge mounts a snapshot where the original was, as after a reboot, and holds
// both targets to what was promised.
func (s snapshot) judge(t *testing.T, h *host, campaigns []*campaign, n int, hits map[string]int) {
	t.Helper()
	s.disk.Dir = h.dir
	s.disk.Mount(t)
	defer s.disk.Remove(t)
	for i, c := range campaigns {
		if c.name == "shared" || s.first[i] == 0 {
			continue // people may see a mixture; or nothing at all
		}
		if err := c.isWithin(s.first[i], s.last[i]); err != nil {
			t.Errorf("cut %d: %s: before recovery: %v", n, c.name, err)
		}
	}
	recovered := h.moult("recover", "--all")
	if recovered.status != 0 {
		t.Errorf("cut %d: %v", n, recovered)
		return
	}
	for i, c := range campaigns {
		if err := c.isWithin(s.first[i], s.last[i]); err != nil {
			t.Errorf("cut %d: %s: %v", n, c.name, err)
		}
		if c.name == installed {
			continue // what it has left, the next one removes
		}
		// It is registered before its first release is staged, but not before its
		// own books are made: what is there until then goes with the next command
		// that is about this target.
		if !strings.Contains(h.moult("targets").stdout, h.path(c.name)) {
			if _, err := os.Lstat(filepath.Join(h.path(c.name), ".moult/layout")); err != nil {
				continue
			}
			if got := h.moult("recover", c.name); got.status != 0 {
				t.Errorf("cut %d: %v", n, got)
			}
		}
		if err := leftovers(h.path(c.name)); err != nil {
			t.Errorf("cut %d: %v", n, err)
		}
		if _, err := os.Lstat(filepath.Join(h.path(c.name), ".moult/live")); err == nil {
			if got := h.moult("verify", c.name); got.status != 0 {
				t.Errorf("cut %d: %v", n, got)
			}
		}
		hits[c.name+": "+whatWasFound(recovered.stdout, h.path(c.name))]++
	}
	before := capture(t, h.dir)
	again := h.moult("recover", "--all")
	if diff := before.Diff(capture(t, h.dir)); diff != "" || again.status != 0 || again.stdout != "" {
		t.Errorf("cut %d: the second recover: %v\n%s", n, again, diff)
	}
}

// isWithin wants people to see one of the states from the first to the last.
func (c *campaign) isWithin(first, last int) error {
	got, err := viewOf(c.path(c.name))
	if err != nil {
		return err
	}
	var diffs []string
	for i := first; i <= last; i++ {
		diff := c.states[i].Diff(got)
		if diff == "" {
			return nil
		}
		diffs = append(diffs, fmt.Sprintf("not the state after command %d:\n%s", i, diff))
	}
	return fmt.Errorf("%s", strings.Join(diffs, "\n"))
}

// whatWasFound is what recovery says of one target.
func whatWasFound(report, target string) string {
	for line := range strings.Lines(report) {
		if !strings.HasPrefix(line, target+":") && !strings.HasPrefix(line, target+" ") {
			continue
		}
		if strings.Contains(line, "cut short") {
			return "the commit"
		}
		return "the stage"
	}
	return "nothing"
}
