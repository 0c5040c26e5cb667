package destroytest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk/disktest"
	"moult.example/internal/testneed"
)

// bind mounts a directory or a file over another one, until the end of the test.
func bind(t testing.TB, from, to string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
		testneed.Skip(t, fmt.Sprintf("cannot mount: %v", err))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(to, 0); err != nil && err != unix.EINVAL {
			t.Errorf("unmount %s: %v", to, err)
		}
	})
	if flags != 0 {
		must(t, unix.Mount("", to, "", unix.MS_BIND|unix.MS_REMOUNT|flags, ""))
	}
}

func unbind(name string) func(h *host) {
	return func(h *host) { must(h, unix.Unmount(h.path(name), 0)) }
}

// TestMounts: a release cannot be committed across mounts, nor over one, nor
// where nothing can be written.
func TestMounts(t *testing.T) {
	testneed.Root(t)
	for _, o := range []obstacle{
		{"file mounted over", "shared", true, func(h *host) {
			files{"app/bin/tool": "container's", "over": "host's"}.write(h, h.dir)
			bind(h, h.path("over"), h.path("app/bin/tool"), 0)
		}, []string{"bin/tool", "is a mount point"}, unbind("app/bin/tool")},
		{"mount inside", "shared", true, func(h *host) {
			files{"app/lib/mine": "", "over/mine": ""}.write(h, h.dir)
			bind(h, h.path("over"), h.path("app/lib"), 0)
		}, []string{"lib/libx.so.1", "lies on another mount", "app/lib"}, unbind("app/lib")},
		{"read-only mount inside", "shared", true, func(h *host) {
			files{"app/lib/mine": ""}.write(h, h.dir)
			bind(h, h.path("app/lib"), h.path("app/lib"), unix.MS_RDONLY)
		}, []string{"lib/libx.so.1", "lies on another mount", "app/lib"}, unbind("app/lib")},
		{"another file system inside", "shared", true, func(h *host) {
			must(h, os.MkdirAll(h.path("app/bin"), 0o755))
			bind(h, disktest.Tmpfs(h, 1024), h.path("app/bin"), 0)
		}, []string{"bin/tool", "lies on another mount", "app/bin"}, unbind("app/bin")},
		{"read-only target", "owned", true, func(h *host) {
			bind(h, h.path("app"), h.path("app"), unix.MS_RDONLY)
		}, []string{"app is mounted read-only"}, unbind("app")},
		{"read-only target", "shared", true, func(h *host) {
			bind(h, h.path("app"), h.path("app"), unix.MS_RDONLY)
		}, []string{"app is mounted read-only"}, unbind("app")},
	} {
		t.Run(o.layout+" "+o.name, func(t *testing.T) {
			t.Parallel()
			newHost(t).meet(o)
		})
	}
}

// TestMountsOfUpdate: mounts that come after the first release. A commit that
// meets one is taken back.
func TestMountsOfUpdate(t *testing.T) {
	testneed.Root(t)
	for _, o := range []struct {
		name, layout string
		make         func(h *host)
		says         []string
		commands     []string
	}{
		{"below a generation", "owned", func(h *host) {
			must(h, os.MkdirAll(h.path("over"), 0o755))
			bind(h, h.path("over"), h.path("app/.moult/generations/1/share"), 0)
		}, []string{"generations/1/share", "is mounted below a generation"}, []string{"apply r1 app", "forget --force app"}},
		{"over the library", "shared", func(h *host) {
			files{"over": "other"}.write(h, h.dir)
			bind(h, h.path("over"), h.path("app/lib/libx.so.1.1"), 0)
		}, []string{"lib/libx.so.1.1"}, []string{"apply --packaged r1 app", "rollback app 1"}},
		{"read-only", "owned", func(h *host) { bind(h, h.path("app"), h.path("app"), unix.MS_RDONLY) },
			[]string{"app"}, []string{"apply r1 app", "rollback app 1", "forget app", "pin app 1"}},
		{"read-only", "shared", func(h *host) { bind(h, h.path("app"), h.path("app"), unix.MS_RDONLY) },
			[]string{"app"}, []string{"apply --packaged r1 app", "rollback app 1", "forget --force app"}},
	} {
		t.Run(o.layout+" "+o.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			release1.write(t, h.path("r1"))
			release2.write(t, h.path("r2"))
			must(t, os.Mkdir(h.path("app"), 0o755))
			h.ok("apply", "--packaged", "--layout", o.layout, "r1", "app")
			h.ok("apply", "--packaged", "r2", "app")
			o.make(h)
			before := view(t, h.path("app"))
			for _, command := range o.commands {
				h.refused(o.says, strings.Fields(command)...)
				if diff := before.Diff(view(t, h.path("app"))); diff != "" {
					t.Errorf("%s has changed something:\n%s", command, diff)
				}
			}
			must(t, leftovers(h.path("app")))
			h.ok("status", "app")
		})
	}
}

// TestSubvolume: a btrfs subvolume inside a shared target is another file system
// to rename(2) and link(2), which no list of mounts shows.
func TestSubvolume(t *testing.T) {
	testneed.Root(t)
	btrfs := testneed.Tool(t, "btrfs")
	h := newHostIn(t, disktest.LoopFS(t, "btrfs", 200).Dir)
	release1.write(t, h.path("r1"))
	release2.write(t, h.path("r2"))
	files{"mine": "mine"}.write(t, h.path("app"))
	run(t, btrfs, "subvolume", "create", h.path("app/lib"))
	before := view(t, h.path("app"))
	got := h.moult("apply", "--packaged", "r1", "app")
	switch got.status {
	case 0:
		for _, args := range [][]string{{"apply", "--packaged", "r2", "app"}, {"verify", "app"}, {"rollback", "app", "1"}, {"verify", "app"}} {
			if got := h.moult(args...); got.status != 0 {
				t.Errorf("the first release was let in, and then: %v", got)
			}
		}
	case 1:
		h.tells(got, "lib")
		if diff := before.Diff(view(t, h.path("app"))); diff != "" {
			t.Errorf("status 1, but:\n%s%v", diff, got)
		}
	default:
		t.Error(got)
	}
	must(t, leftovers(h.path("app")))
}

// TestImmutable: what not even root may change.
func TestImmutable(t *testing.T) {
	testneed.Root(t)
	chattr := testneed.Tool(t, "chattr")
	set := func(flag, name string) func(h *host) {
		return func(h *host) {
			h.Cleanup(func() { exec.Command(chattr, "-R", "-ia", h.path("app")).Run() }) // so that it can be removed
			run(h, chattr, flag, h.path(name))
		}
	}
	unset := func(name string) func(h *host) { return func(h *host) { run(h, chattr, "-ia", h.path(name)) } }
	there := files{"bin/tool": "old", "lib/libx.so.1": "old", "mine": "mine"}
	for _, o := range []struct {
		flag, name, layout string
		says               []string
	}{
		{"+i", "bin/tool", "shared", []string{"bin/tool", "immutable"}},
		{"+a", "bin/tool", "shared", []string{"bin/tool", "append-only"}},
		{"+i", "bin", "shared", []string{"bin", "immutable"}},
		{"+i", ".", "shared", []string{"app", "immutable"}},
		{"+i", ".", "owned", []string{"app", "immutable"}},
		{"+a", ".", "owned", []string{"app", "append-only"}},
		{"+i", "bin", "adopt", []string{"bin", "immutable"}},
	} {
		t.Run(o.layout+" "+o.flag+" "+o.name, func(t *testing.T) {
			h := newHostIn(t, attributedDir(t))
			way.write(t, h.path("r"))
			must(t, os.Mkdir(h.path("app"), 0o755))
			if o.layout != "owned" {
				there.write(t, h.path("app"))
			}
			set(o.flag, filepath.Join("app", o.name))(h)
			args := []string{"apply", "--packaged", "--layout", o.layout, "r", "app"}
			if o.layout == "adopt" {
				args = []string{"apply", "--packaged", "--adopt", "r", "app"}
			}
			h.unchanged(func() { h.refused(o.says, args...) })
			unset(filepath.Join("app", o.name))(h)
			h.ok(args...)
		})
	}
	t.Run("shared, to be removed", func(t *testing.T) {
		h := newHostIn(t, attributedDir(t))
		release1.write(t, h.path("r1"))
		release2.write(t, h.path("r2"))
		there.write(t, h.path("app"))
		h.ok("apply", "--packaged", "r1", "app")
		set("+i", "app/lib/libx.so.1.0")(h)
		h.unchanged(func() { h.refused([]string{"lib/libx.so.1.0", "immutable"}, "apply", "--packaged", "r2", "app") })
		before := view(t, h.path("app"))
		h.refused([]string{"lib/libx.so.1.0"}, "rollback", "app", "0")
		if diff := before.Diff(view(t, h.path("app"))); diff != "" {
			t.Errorf("it has changed something:\n%s", diff)
		}
		must(t, leftovers(h.path("app")))
	})
	t.Run("owned, in the live generation", func(t *testing.T) {
		// It cannot be linked to, but the same bytes will do.
		h := newHostIn(t, attributedDir(t))
		release1.write(t, h.path("r1"))
		release2.write(t, h.path("r2"))
		h.ok("apply", "r1", "app")
		set("+i", "app/.moult/generations/1/share/same")(h)
		h.ok("apply", "r2", "app")
		h.ok("verify", "app")
		h.ok("rollback", "app")
		if diff := atHome(t, h.path("r1")).Diff(view(t, h.path("app"))); diff != "" {
			t.Error(diff)
		}
	})
}

// attributedDir is a directory on a file system that knows such attributes.
func attributedDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	return dir
}

// TestHidden: what a mount hides is not taken for gone, and forgotten.
func TestHidden(t *testing.T) {
	testneed.Root(t)
	h := newHost(t)
	files{"one/data/d": "d", "one/tool": "1", "two/tool": "2", "app/theirs": ""}.write(h, h.dir)
	h.ok("apply", "--layout", "shared", "--name", "x", "one", "app")
	must(t, unix.Mount("none", h.path("app/data"), "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(h.path("app/data"), 0) })
	for _, args := range [][]string{{"rollback", "app", "0"}, {"apply", "--name", "x", "two", "app"}} {
		got := h.status(1, args...)
		if !strings.Contains(got.stderr, "data/d: is hidden by another mount") {
			t.Errorf("%v, want it to say what is hidden", got)
		}
	}
	must(t, unix.Unmount(h.path("app/data"), 0))
	h.ok("rollback", "app", "0")
	for _, name := range []string{"app/data", "app/tool"} {
		if _, err := os.Lstat(h.path(name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}
