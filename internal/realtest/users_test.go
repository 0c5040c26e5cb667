package realtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"moult.example/internal/deploy"
	"moult.example/internal/testneed"
)

// usage is one way to use a generation.
type usage struct {
	name  string
	start func(t *testing.T, target string) *exec.Cmd
	check func(t *testing.T, p *holder) // that nothing was taken from it
	vague bool                          // it may use any generation that has the same file
}

// holds is the same program in all generations, as hard links.
const holds = "/bin/hold"

var usages = []usage{
	{name: "loads late", start: func(t *testing.T, target string) *exec.Cmd {
		return exec.Command(target+"/bin/late", "asked")
	}, check: func(t *testing.T, p *holder) {
		if got := p.ask("load"); got != "1" {
			t.Errorf("plugin: got version %s, want 1", got)
		}
	}},
	{name: "executes", start: func(t *testing.T, target string) *exec.Cmd {
		return exec.Command(target + holds)
	}},
	{name: "working directory", start: func(t *testing.T, target string) *exec.Cmd {
		cmd := exec.Command(compileHold(t))
		cmd.Dir = target + "/lib"
		return cmd
	}, check: func(t *testing.T, p *holder) {
		wantVersion(t, p.proc("cwd/plugin.so"), 1)
	}},
	{name: "open file", start: func(t *testing.T, target string) *exec.Cmd {
		f, err := os.Open(target + "/lib/plugin.so")
		must(t, err)
		t.Cleanup(func() { f.Close() })
		cmd := exec.Command(compileHold(t))
		cmd.ExtraFiles = []*os.File{f}
		return cmd
	}, check: func(t *testing.T, p *holder) {
		wantVersion(t, p.proc("fd/3"), 1)
	}},
	{name: "root directory", start: func(t *testing.T, target string) *exec.Cmd {
		root, err := filepath.EvalSymlinks(target + "/.moult/live")
		must(t, err)
		return exec.Command(compileHold(t), "chroot", root)
	}, check: func(t *testing.T, p *holder) {
		wantVersion(t, p.proc("root/lib/plugin.so"), 1)
	}},
	{name: "mounts of its own", start: func(t *testing.T, target string) *exec.Cmd {
		at := t.TempDir()
		return exec.Command("unshare", "-m", "sh", "-c", `mount --bind "$0" "$1" && exec "$1"/bin/late asked`, target, at)
	}, check: func(t *testing.T, p *holder) {
		if got := p.ask("load"); got != "1" {
			t.Errorf("plugin: got version %s, want 1", got)
		}
	}},
	{name: "target hidden from it", start: func(t *testing.T, target string) *exec.Cmd {
		return exec.Command(target+holds, "hide", target)
	}, vague: true},
}

func compileHold(t testing.TB) string { return compile(t, "hold", "hold.c", "-static") }

// proc is a path below the process's directory in /proc, not cleaned: cwd/.. is
// for the kernel to follow.
func (h *holder) proc(name string) string {
	return "/proc/" + itoa(h.pid()) + "/" + name
}

// A generation that a process uses, in whatever way, is not collected, however
// little is to be kept, and others are. When the process has ended it goes.
func TestGenerationInUse(t *testing.T) {
	testneed.Root(t)
	testneed.Tool(t, "unshare")
	dir := t.TempDir()
	releases := programs(t, dir, 4)
	for _, r := range releases {
		stampHold(t, r)
	}
	for _, u := range usages {
		t.Run(u.name, func(t *testing.T) {
			h := newHost(t)
			target := h.path("app")
			h.ok("apply", releases[0], target)
			p := startHolder(t, u.start(t, target))
			for _, r := range releases[1:] {
				h.ok("apply", r, target)
			}
			c := collect(t, target, h.path("state"), time.Nanosecond)
			if k := kept(c, 1); k.Why != "in use" || !slices.Contains(k.PIDs, p.pid()) {
				t.Errorf("generation 1: got %+v, want it in use by %d", k, p.pid())
			}
			if !u.vague && !slices.Equal(c.Collected, []int{2}) {
				t.Errorf("collected %v, want 2 alone: 3 was live before 4 is; kept: %+v", c.Collected, c.Kept)
			}
			if u.check != nil {
				u.check(t, p)
			}
			p.end()
			eventually(t, "generation 1 is collected", func() bool {
				return slices.Contains(collect(t, target, h.path("state"), time.Nanosecond).Collected, 1)
			})
			wantGone(t, target+"/.moult/generations/1")
		})
	}
}

// stampHold adds the static program to a release.
func stampHold(t testing.TB, release string) {
	t.Helper()
	writeFile(t, release+holds, read(t, compileHold(t)), 0o755)
}

func kept(c deploy.Collection, n int) deploy.Kept {
	for _, k := range c.Kept {
		if k.Generation == n {
			return k
		}
	}
	return deploy.Kept{Generation: n, Why: "not kept"}
}

// A generation that was live a moment ago stays, as does one that is pinned,
// for as long as it is.
func TestGenerationKept(t *testing.T) {
	testneed.Root(t)
	h := newHost(t)
	releases := programs(t, h.dir, 4)
	target := h.path("app")
	for _, r := range releases {
		h.ok("apply", "--generations", "0", r, target)
	}
	var v struct {
		Targets []deploy.Collection `json:"targets"`
	}
	h.document(&v, 0, "gc", "--generations", "0", target)
	if c := v.Targets[0]; len(c.Collected) > 0 {
		t.Errorf("collected %v of what was live less than a minute ago", c.Collected)
	}
	h.ok("pin", target, "1")
	c := collect(t, target, h.path("state"), time.Nanosecond)
	if k := kept(c, 1); k.Why != "pinned" || !slices.Equal(c.Collected, []int{2}) {
		t.Errorf("got %+v, want 1 pinned and 2 collected", c)
	}
	h.ok("rollback", target, "1")
	want(t, target+"/lib/libc.so.1.1", read(t, releases[0]+"/lib/libc.so.1.1"))
	h.ok("rollback", target, "4")
	h.ok("pin", "--remove", target, "1")
	// 1 is the one before now: apply another, so that it is not.
	h.ok("apply", releases[1], target)
	if c := collect(t, target, h.path("state"), time.Nanosecond); !slices.Contains(c.Collected, 1) {
		t.Errorf("got %+v, want 1 collected when it is pinned no longer", c)
	}
}

// A retired generation that nobody uses is closed to others, so that an old
// set-user-id program cannot be reached, and is open again when it is live.
func TestGenerationClosed(t *testing.T) {
	testneed.Root(t)
	h := newHost(t)
	releases := programs(t, h.dir, 3)
	target := h.path("app")
	for _, r := range releases[:2] {
		h.ok("apply", r, target)
	}
	p := startHolder(t, exec.Command(target+"/bin/late", "asked"))
	h.ok("apply", releases[2], target)
	collectAll := func() {
		t.Helper()
		d, err := deploy.Open(target, deploy.Options{StateDir: h.path("state"), Grace: time.Nanosecond})
		must(t, err)
		defer d.Close()
		_, err = d.GC(t.Context(), deploy.GCOptions{})
		must(t, err)
	}
	wantMode := func(n int, want os.FileMode) {
		t.Helper()
		if got := mode(t, target+"/.moult/generations/"+itoa(n)); got != want {
			t.Errorf("generation %d: got mode %04o, want %04o", n, got, want)
		}
	}
	collectAll()
	wantMode(1, 0o700)
	wantMode(2, 0o755) // in use
	wantMode(3, 0o755)
	if got := p.ask("load"); got != "2" {
		t.Errorf("plugin: got version %s, want 2", got)
	}
	p.end()
	eventually(t, "generation 2 is closed", func() bool {
		collectAll()
		return mode(t, target+"/.moult/generations/2") == 0o700
	})
	h.ok("rollback", target, "1")
	wantMode(1, 0o755)
	cmd := exec.Command(target + "/bin/late")
	cmd.SysProcAttr = anybody()
	if got := finish(t, cmd); got.status != 0 {
		t.Errorf("a program of the generation that came back: %v", got)
	}
}

// In a shared target a file that a process maps, and that the new release does
// not have, stays until the process has ended, and is removed by gc then.
func TestRemovedLater(t *testing.T) {
	testneed.Root(t)
	h := newHost(t)
	releases := programs(t, h.dir, 2)
	target := h.path("app")
	h.ok("apply", "--layout", "shared", releases[0], target)
	p := startHolder(t, exec.Command(target+"/bin/late", "asked"))
	var r deploy.Result
	h.document(&r, 0, "apply", releases[1], target)
	if len(r.Deferred) != 1 || r.Deferred[0] != "lib/libc.so.1.1" {
		t.Errorf("deferred: got %v, want lib/libc.so.1.1", r.Deferred)
	}
	h.ok("gc", target)
	wantVersion(t, target+"/lib/libc.so.1.1", 1)
	p.end()
	eventually(t, "the file is removed", func() bool {
		h.ok("gc", target)
		_, err := os.Lstat(target + "/lib/libc.so.1.1")
		return os.IsNotExist(err)
	})
	h.ok("rollback", target)
	wantVersion(t, target+"/lib/libc.so.1.1", 1)
	h.ok("verify", target)
}
