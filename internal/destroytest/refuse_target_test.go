package destroytest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk/disktest"
	"moult.example/internal/testneed"
)

// What can be in the way of a release on a target. Each is refused with the
// file's name and a reason, with status 1, and nothing has changed: the same
// release, otherwise, is applied.

// way is a release r for the target app, and what is in its way there.
var way = files{"bin/tool": "0755:tool", "lib/libx.so.1": "x", "VERSION": "1"}

type obstacle struct {
	name   string
	layout string // owned, shared, or both
	root   bool   // only root can make it
	make   func(h *host)
	says   []string
	clear  func(h *host) // takes it away; nil if there is no need to try
}

func remove(name string) func(h *host) {
	return func(h *host) { must(h, os.RemoveAll(h.path(name))) }
}

func obstacles() []obstacle {
	in := func(f files) func(h *host) { return func(h *host) { f.write(h, h.path("app")) } }
	return []obstacle{
		{"fifo", "shared", false, func(h *host) {
			in(files{"bin/other": ""})(h)
			must(h, unix.Mkfifo(h.path("app/bin/tool"), 0o644))
		}, []string{"bin/tool", "neither a file nor a symbolic link"}, remove("app/bin/tool")},
		{"device", "shared", true, func(h *host) {
			in(files{"bin/other": ""})(h)
			must(h, unix.Mknod(h.path("app/bin/tool"), unix.S_IFCHR|0o644, int(unix.Mkdev(1, 3))))
		}, []string{"bin/tool", "neither a file nor a symbolic link"}, remove("app/bin/tool")},
		{"fifo for a directory", "shared", false, func(h *host) {
			must(h, unix.Mkfifo(h.path("app/bin"), 0o644))
		}, []string{"bin", "is a directory in the release"}, remove("app/bin")},
		{"fifo at the top", "owned", false, func(h *host) {
			must(h, unix.Mkfifo(h.path("app/bin"), 0o644))
		}, []string{"bin", "is in the target already"}, remove("app/bin")},
		{"directory at the top", "owned", false, in(files{"lib/mine": "mine"}), []string{"lib", "is in the target already"}, remove("app/lib")},
		{"directory for a file", "shared", false, in(files{"bin/tool/mine": "mine"}), []string{"bin/tool", "a directory on the target"}, remove("app/bin")},
		{"file for a directory", "shared", false, in(files{"lib": "mine"}), []string{"lib", "a file on the target"}, remove("app/lib")},
		{"somebody's link", "shared", false, in(files{"bin/tool": "->/usr/bin/env"}), []string{"bin/tool", "symbolic link", "/usr/bin/env"}, remove("app/bin/tool")},
		{"link that leads out", "shared", false, func(h *host) {
			files{"f": ""}.write(h, h.path("elsewhere"))
			in(files{"bin": "->../elsewhere"})(h)
		}, []string{"bin", "leads out of the target", "elsewhere"}, remove("app/bin")},
		{"link to nowhere", "shared", false, in(files{"lib": "->gone"}), []string{"lib", "leads nowhere"}, remove("app/lib")},
		{"link to a file", "shared", false, in(files{"f": "", "lib": "->f"}), []string{"lib", "not a directory"}, remove("app/lib")},
		{"all at once", "shared", false, in(files{"lib": "mine", "VERSION/x": "", "bin/tool": "->x"}), []string{"lib", "VERSION", "bin/tool"}, nil},
	}
}

func TestInTheWay(t *testing.T) {
	for _, o := range obstacles() {
		t.Run(o.layout+" "+o.name, func(t *testing.T) {
			t.Parallel()
			if o.root {
				testneed.Root(t)
			}
			h := newHost(t)
			h.meet(o)
		})
	}
}

// meet applies against an obstacle, and again without it.
func (h *host) meet(o obstacle) {
	h.Helper()
	way.write(h, h.path("r"))
	must(h, os.MkdirAll(h.path("app"), 0o755))
	o.make(h)
	args := []string{"apply", "--packaged", "--layout", o.layout, "r", "app"}
	h.unchanged(func() { h.refused(o.says, args...) })
	h.unchanged(func() { h.refused(o.says, append(args, "--dry-run")...) })
	var d struct {
		Status   int
		Error    string
		Problems []struct{ Path, Why string }
	}
	h.unchanged(func() { h.document(&d, 1, args...) })
	if d.Status != 1 || d.Error == "" {
		h.Errorf("the document says %+v", d)
	}
	if o.clear != nil {
		o.clear(h)
		h.ok(args...)
		h.ok("verify", "app")
	}
}

// TestInTheWayOfUpdate: the same, of a target that has a release already.
func TestInTheWayOfUpdate(t *testing.T) {
	for _, o := range []struct {
		name, layout string
		make         files
		says         []string
	}{
		{"name taken", "owned", files{"extra": "mine"}, []string{"extra", "is in the target already"}},
		{"file for a new directory", "shared", files{"extra": "mine"}, []string{"extra", "a file on the target"}},
		{"own file becomes a directory", "shared", nil, []string{"turns", "a file on the target"}},
		{"own directory becomes a file", "shared", nil, []string{"folds", "a directory on the target"}},
	} {
		t.Run(o.layout+" "+o.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			one, two := files{"VERSION": "1"}, files{"VERSION": "2", "extra/new": "new"}
			if o.make == nil {
				one, two = files{"turns": "file", "folds/f": "file"}, files{"turns/f": "file", "folds": "file"}
			}
			one.write(t, h.path("r1"))
			two.write(t, h.path("r2"))
			files{"mine": "mine"}.write(t, h.path("app"))
			h.ok("apply", "--packaged", "--layout", o.layout, "r1", "app")
			o.make.write(t, h.path("app"))
			h.unchanged(func() { h.refused(o.says, "apply", "--packaged", "r2", "app") })
			h.ok("verify", "app")
			h.ok("status", "app")
		})
	}
}

// TestTypeChanges: in an owned target everything may become anything.
func TestTypeChanges(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	versions := []files{
		{"a": "file", "b": "->a", "c/f": "dir", "top": "0755:x"},
		{"a/f": "dir", "b": "file", "c": "->b", "top": "->b"},
		{"a": "->b", "b/f": "dir", "c": "file", "top/f": "x"},
		{"a": "file", "b": "->a", "c/f": "dir", "top": "0755:x"},
	}
	var seen []*disktest.Tree
	for i, f := range versions {
		dir := f.write(t, h.path("r"+string(rune('1'+i))))
		h.ok("apply", "--generations", "9", dir, "app")
		seen = append(seen, view(t, h.path("app")))
		h.ok("verify", "app")
	}
	for i, n := range []string{"1", "3", "2", "4"} {
		h.ok("rollback", "app", n)
		if diff := seen[n[0]-'1'].Diff(view(t, h.path("app"))); diff != "" {
			t.Errorf("rollback %d, to %s:\n%s", i, n, diff)
		}
	}
}

// TestTargetItself: a target that is none, or that cannot be one.
func TestTargetItself(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]struct {
		target string
		make   files
		says   []string
	}{
		"a file":                             {"f", files{"f": "file"}, []string{"f is not a directory"}},
		"a link to nowhere":                  {"l", files{"l": "->gone"}, []string{"l", "symbolic link to nowhere"}},
		"no parent":                          {"no/app", nil, []string{"/no", "there is no", "mkdir"}},
		"below a file":                       {"f/app", files{"f": "file"}, []string{"f", "not a directory"}},
		"a name of a product that leads out": {"app", nil, []string{"a/../b", "a name has"}},
	} {
		h := newHost(t)
		way.write(t, h.path("r"))
		o.make.write(t, h.dir)
		args := []string{"apply", "r", o.target}
		if strings.Contains(name, "product") {
			args = append(args, "--name", "a/../b")
		}
		h.unchanged(func() { h.refused(o.says, args...) })
	}
}

// TestTargetThroughLink: a target may be named by a symbolic link. It is one
// target, known by its real path.
func TestTargetThroughLink(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"owned", "shared"} {
		h := newHost(t)
		release1.write(t, h.path("r1"))
		release2.write(t, h.path("r2"))
		must(t, os.MkdirAll(h.path("real/app"), 0o755))
		files{"link": "->real/app", "dir": "->real"}.write(t, h.dir)
		h.ok("apply", "--packaged", "--layout", layout, "r1", "link")
		h.ok("apply", "--packaged", "r2", "dir/app")
		var v struct{ Targets []struct{ Path string } }
		h.document(&v, 0, "targets")
		if len(v.Targets) != 1 || v.Targets[0].Path != h.path("real/app") {
			t.Errorf("%s: targets: %+v, want %s alone", layout, v.Targets, h.path("real/app"))
		}
		h.ok("rollback", "link", "1")
		if diff := view(t, h.path("real/app")).Diff(atHome(t, h.path("r1"))); diff != "" {
			t.Errorf("%s:\n%s", layout, diff)
		}
	}
}

// TestAdministratorsLinks: a directory that the administrator has made a
// symbolic link, inside the target, stays one.
func TestAdministratorsLinks(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	release1.write(t, h.path("r1"))
	release2.write(t, h.path("r2"))
	files{"lib": "->lib64", "lib64/other": "other", "deep/share/x": "", "share": "->" + h.path("app/deep/share")}.write(t, h.path("app"))
	for _, args := range [][]string{{"apply", "--packaged", "r1", "app"}, {"apply", "--packaged", "r2", "app"}, {"rollback", "app", "1"}, {"rollback", "app", "0"}} {
		h.ok(args...)
		if text, err := os.Readlink(h.path("app/lib")); err != nil || text != "lib64" {
			t.Fatalf("%v: lib: %q %v, want the link to lib64", args, text, err)
		}
		h.ok("verify", "app")
	}
	h.ok("rollback", "app", "2")
	if got, err := os.ReadFile(h.path("app/lib64/libx.so.1.1")); err != nil || string(got) != "x 2" {
		t.Errorf("lib64/libx.so.1.1: %q %v", got, err)
	}
	left, err := filepath.Glob(h.path("app/*/.moult-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
