package realtest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"moult.example/internal/deploy"
)

// launches is what the launcher has seen.
type launches struct {
	Launches, Late, Mixed, Failed int
	Reasons                       map[string]int // of those that failed
	Said                          string         // the last of them
}

// launcher starts the programs of a target back to back, until stop.
type launcher struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.Closer
	out   bytes.Buffer
	began time.Time
}

func startLauncher(t testing.TB, target string) *launcher {
	t.Helper()
	l := &launcher{t: t, began: time.Now()}
	l.cmd = exec.Command(compile(t, "launcher", "launcher.c", "-static", "-pthread"),
		target+"/bin/quick", target+"/bin/late", "4")
	l.cmd.Stdout, l.cmd.Stderr = &l.out, os.Stderr
	l.cmd.SysProcAttr = anybody()
	stdin, err := l.cmd.StdinPipe()
	must(t, err)
	l.stdin = stdin
	must(t, l.cmd.Start())
	t.Cleanup(func() {
		stdin.Close()
		l.cmd.Wait()
	})
	return l
}

// anybody is a user without rights, if we are root: root may go where others may
// not, and would not see that a generation is closed.
func anybody() *syscall.SysProcAttr {
	if os.Geteuid() != 0 {
		return nil
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
}

// goesOn says whether there is to be another change, which would be number i: up
// to most, and after a few for no longer than a test may take on a busy machine.
func (l *launcher) goesOn(i, most int) bool {
	return i <= most && (i <= 10 || time.Since(l.began) < time.Duration(most)*time.Second/15)
}

func (l *launcher) stop(what string, changes int) (n launches) {
	l.t.Helper()
	took := time.Since(l.began)
	l.stdin.Close()
	must(l.t, l.cmd.Wait())
	if err := json.Unmarshal(l.out.Bytes(), &n); err != nil {
		l.t.Fatalf("launcher: %q: %v", l.out.String(), err)
	}
	delete(n.Reasons, "")
	l.t.Logf("%s: %d changes in %v; %d launches (%.0f/s), %d of them load late; %d mixed, %d failed %v %s",
		what, changes, took.Round(time.Millisecond), n.Launches, float64(n.Launches)/took.Seconds(), n.Late, n.Mixed, n.Failed, n.Reasons, n.Said)
	if n.Launches < 5*changes || n.Late == 0 || changes < 5 {
		l.t.Errorf("%s: %d launches, %d of them late, for %d changes: too few to prove anything", what, n.Launches, n.Late, changes)
	}
	return n
}

// No launch sees two releases of an owned target, and none fails, while
// releases are applied and rolled back and old generations are collected.
func TestLaunchOwned(t *testing.T) {
	h := newHost(t)
	releases := programs(t, h.dir, 5)
	target := h.path("app")
	h.ok("apply", releases[0], target)
	h.ok("pin", target, "1")
	l := startLauncher(t, target)
	changes, collected, closed := 0, 0, false
	// Without root there are processes that may not be looked into.
	shown := func() bool { return os.Geteuid() != 0 || collected > 0 && closed }
	for i := 1; l.goesOn(i, 300) || !shown() && time.Since(l.began) < 5*time.Minute; i++ {
		changes = i
		switch {
		case i%25 == 24 && mode(t, target+"/.moult/generations/1") == 0o700:
			closed = true
			h.ok("rollback", target, "1")
		case i%5 == 4:
			h.ok("rollback", target)
		default:
			h.ok("apply", releases[i%len(releases)], target)
		}
		if i%20 == 0 {
			c := collect(t, target, h.path("state"), 5*time.Second)
			collected += len(c.Collected)
		}
	}
	n := l.stop("owned", changes)
	if n.Mixed+n.Failed > 0 {
		t.Errorf("owned: got %d mixed and %d failed launches %v, want none", n.Mixed, n.Failed, n.Reasons)
	}
	if !shown() {
		t.Errorf("among the launches %d generations were collected, and one was closed before it came back: %v", collected, closed)
	}
}

// collect is moult gc that keeps as little as it can, with a time of grace that
// the command line does not offer.
func collect(t testing.TB, target, state string, grace time.Duration) deploy.Collection {
	t.Helper()
	d, err := deploy.Open(target, deploy.Options{StateDir: state, Grace: grace, Command: "test", Wait: time.Minute})
	must(t, err)
	defer d.Close()
	c, err := d.GC(context.Background(), deploy.GCOptions{Retention: deploy.Retention{Generations: -1}})
	must(t, err)
	return c
}

// No launch from a shared target fails. Some may be mixed: this layout cannot
// prevent it. A set that is replaced by mv mixes one launch in ten; see below.
func TestLaunchShared(t *testing.T) {
	const rounds = 3 // a commit that has to wait for a processor, in the middle, mixes many
	for round := 1; ; round++ {
		n := launchShared(t)
		if n.Failed > 0 {
			t.Errorf("shared: got %d failed launches %v, want none", n.Failed, n.Reasons)
		}
		if n.Mixed <= n.Launches/20 || t.Failed() {
			return
		}
		if round == rounds {
			t.Fatalf("shared: %d of %d launches were mixed, want few", n.Mixed, n.Launches)
		}
	}
}

func launchShared(t *testing.T) launches {
	h := newHost(t)
	releases := programs(t, h.dir, 5)
	target := h.path("app")
	h.ok("apply", "--layout", "shared", releases[0], target)
	l := startLauncher(t, target)
	changes := 0
	for i := 1; l.goesOn(i, 150); i++ {
		changes = i
		if i%5 == 4 {
			h.ok("rollback", target)
		} else {
			h.ok("apply", releases[i%len(releases)], target)
		}
	}
	return l.stop("shared", changes)
}

// No launch fails while a directory is adopted. One that had begun before may
// be mixed, as the one exception to the rule.
func TestLaunchAdopt(t *testing.T) {
	h := newHost(t)
	releases := programs(t, h.dir, 2)
	for _, r := range releases {
		// Names between bin and lib, so that launches come between these.
		for i := range 400 {
			writeFile(t, fmt.Sprintf("%s/data%03d", r, i), "", 0o644)
		}
	}
	for i := range 5 {
		target := h.path("app" + itoa(i))
		run(t, "cp", "-a", releases[0], target)
		l := startLauncher(t, target)
		changes := 0
		for ; changes < 5; changes++ {
			switch {
			case changes == 0:
				h.ok("apply", "--adopt", releases[1], target)
			case changes%2 == 0:
				h.ok("apply", releases[1], target)
			default:
				h.ok("rollback", target, "0")
			}
		}
		n := l.stop("adopt", changes)
		if n.Failed > 0 {
			t.Errorf("adopt: got %d failed launches %v, want none", n.Failed, n.Reasons)
		}
		if most := 8; n.Mixed > most {
			t.Errorf("adopt: got %d mixed launches, want only those that had begun before, %d at most", n.Mixed, most)
		}
	}
}

// The launcher sees what goes wrong, where something does: under mv, launches
// are mixed, and under cp they fail too.
func TestLaunchSeesFaults(t *testing.T) {
	for name, replace := range map[string]string{
		"mv": `for f in bin/quick bin/late lib/liba.so.1 lib/libb.so.1 lib/plugin.so; do cp "$1/$f" "$2/$f.tmp" && mv "$2/$f.tmp" "$2/$f"; done`,
		"cp": `cp -a "$1/." "$2"`,
	} {
		t.Run(name, func(t *testing.T) {
			// Once more, and for longer, where the machine is too busy.
			for length := 1500 * time.Millisecond; ; length *= 4 {
				n := launchFaults(t, name, replace, length)
				if n.Mixed > 0 && (name != "cp" || n.Failed > 0) {
					return
				}
				if length > 20*time.Second {
					t.Fatalf("%s: got %d mixed and %d failed launches, want some", name, n.Mixed, n.Failed)
				}
			}
		})
	}
}

func launchFaults(t *testing.T, name, replace string, length time.Duration) launches {
	h := newHost(t)
	releases := programs(t, h.dir, 2)
	target := h.path("app")
	run(t, "cp", "-a", releases[0], target)
	l := startLauncher(t, target)
	changes := 0
	for ; changes < 5 || time.Since(l.began) < length; changes++ {
		// cp is refused the running program (ETXTBSY) and goes on.
		finish(t, exec.Command("sh", "-c", replace, "sh", releases[(changes+1)%2], target))
	}
	return l.stop(name, changes)
}

// A process that was started from a generation and loads its plugin after later
// ones are live gets its own generation's.
func TestLateLoad(t *testing.T) {
	h := newHost(t)
	releases := programs(t, h.dir, 4)
	target := h.path("app")
	h.ok("apply", releases[0], target)
	var running []*holder
	for v := 2; v <= len(releases); v++ {
		running = append(running, startHolder(t, exec.Command(target+"/bin/late", "asked")))
		h.ok("apply", releases[v-1], target)
	}
	h.ok("gc", "--generations", "0", target)
	for i, p := range running {
		if got, want := p.first+" "+p.ask("load"), fmt.Sprintf("%d %d", i+1, i+1); got != want {
			t.Errorf("program and plugin: got %s, want %s", got, want)
		}
	}
	want := fmt.Sprintf("%d", len(releases))
	p := startHolder(t, exec.Command(target+"/bin/late", "asked"))
	if got := p.ask("load"); p.first != want || got != want {
		t.Errorf("a new process: got %s and %s, want %s", p.first, got, want)
	}
}
