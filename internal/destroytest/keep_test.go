package destroytest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// content is what is at paths below the target, "" for nothing.
func (h *host) content(want files) {
	h.Helper()
	for name, w := range want {
		got, err := os.ReadFile(filepath.Join(h.path("app"), name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			h.Error(err)
		}
		if string(got) != w || errors.Is(err, fs.ErrNotExist) != (w == "") {
			h.Errorf("%s: got %q (%v), want %q", name, got, err, w)
		}
	}
}

// edit changes a file of the target as an editor may: in place.
func (h *host) edit(name, content string) {
	h.Helper()
	must(h, os.WriteFile(h.path("app/"+name), []byte(content), 0o644))
}

// kept is a release with files that the user may change. Each is called after
// what the user does with it, and what the release does.
func kept(version string) files {
	f := files{
		"bin/tool": "0755:tool " + version, "moult.toml": "[[file]]\nmatch = \"etc/**\"\nkeep = true",
		"etc/none-none": "same", "etc/none-new": "release " + version,
		"etc/changed-none": "same", "etc/changed-new": "release " + version, "etc/changed-equal": "release " + version,
		"etc/deleted-none": "same", "etc/deleted-new": "release " + version,
	}
	if version == "1" {
		f["etc/none-gone"], f["etc/changed-gone"] = "same", "same"
	}
	return f
}

// TestKeep: three versions, and the user, at files that are theirs to change.
func TestKeep(t *testing.T) {
	forLayouts(t, func(t *testing.T, layout string) {
		h := newHost(t)
		for _, v := range []string{"1", "2", "3"} {
			kept(v).write(t, h.path("r"+v))
		}
		files{"mine": "mine"}.write(t, h.path("app"))
		h.ok("apply", "--packaged", "--layout", layout, "r1", "app")
		for _, name := range []string{"changed-none", "changed-new", "changed-gone"} {
			h.edit("etc/"+name, "the user's")
		}
		h.edit("etc/changed-equal", "release 2")
		for _, name := range []string{"deleted-none", "deleted-new"} {
			must(t, os.Remove(h.path("app/etc/"+name)))
		}
		h.status(0, "verify", "app") // what is changed here is theirs to change

		var r struct{ Kept, New []string }
		h.document(&r, 0, "apply", "--packaged", "r2", "app")
		after := files{
			"bin/tool": "tool 2", "etc/none-none": "same", "etc/none-new": "release 2", "etc/none-gone": "",
			"etc/changed-none": "the user's", "etc/changed-none.new": "", "etc/changed-new": "the user's", "etc/changed-new.new": "release 2",
			"etc/changed-equal": "release 2", "etc/changed-equal.new": "",
			"etc/deleted-none": "", "etc/deleted-none.new": "", "etc/deleted-new": "", "etc/deleted-new.new": "release 2",
		}
		if layout == "shared" {
			after["etc/changed-gone"] = "the user's" // it is no longer the release's to remove
		}
		h.content(after)
		for _, name := range []string{"etc/changed-new", "etc/deleted-new", "etc/changed-none", "etc/deleted-none"} {
			if !contains(r.Kept, name) {
				t.Errorf("kept: %v, want %s in it", r.Kept, name)
			}
		}
		if len(r.New) != 2 || !contains(r.New, "etc/changed-new.new") || !contains(r.New, "etc/deleted-new.new") {
			t.Errorf("new: %v, want the two that differ", r.New)
		}
		h.status(0, "verify", "app")
		h.unchangedView(func() { h.ok("apply", "--packaged", "r2", "app") })

		// The user merges, and takes the new one away.
		h.edit("etc/changed-new", "merged")
		must(t, os.Remove(h.path("app/etc/changed-new.new")))
		h.ok("apply", "--packaged", "r3", "app")
		h.content(files{
			"bin/tool": "tool 3", "etc/none-new": "release 3", "etc/changed-none": "the user's",
			"etc/changed-new": "merged", "etc/changed-new.new": "release 3", "etc/deleted-new": "", "etc/deleted-none": "",
		})

		// Back to the first: the program goes back, what is theirs stays.
		h.ok("rollback", "app", "1")
		h.content(files{
			"bin/tool": "tool 1", "etc/none-none": "same", "etc/none-new": "release 1",
			"etc/changed-none": "the user's", "etc/changed-new": "merged",
		})
		h.status(0, "verify", "app")
		must(t, leftovers(h.path("app")))
	})
}

// unchangedView does something that nobody may notice.
func (h *host) unchangedView(do func()) {
	h.Helper()
	before := view(h, h.path("app"))
	do()
	if diff := before.Diff(view(h, h.path("app"))); diff != "" {
		h.Errorf("people see a difference:\n%s", diff)
	}
}

// TestKeepFirst: what the user has there before the first release comes.
func TestKeepFirst(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	kept("1").write(t, h.path("r1"))
	files{"etc/none-new": "the user's", "etc/none-none": "same", "bin/tool": "0755:old"}.write(t, h.path("app"))
	h.ok("apply", "--packaged", "r1", "app")
	h.content(files{"bin/tool": "tool 1", "etc/none-new": "the user's", "etc/none-new.new": "release 1", "etc/none-none": "same"})
	h.ok("rollback", "app", "0")
	h.content(files{"bin/tool": "old", "etc/none-new": "the user's", "etc/none-none": "same"})
}

// TestTimes: the time of a file is carried along, and counts only where asked.
func TestTimes(t *testing.T) {
	forLayouts(t, func(t *testing.T, layout string) {
		h := newHost(t)
		same := files{"a": "a", "dir/b": "b"}
		times := []time.Time{{}, time.Unix(1e9, 7), time.Unix(12e8, 999999999), time.Unix(13e8, 1)}
		for _, n := range []int{1, 2, 3} {
			dir := same.write(t, h.path([]string{"", "r1", "r2", "r3"}[n]))
			for name := range same {
				must(t, os.Chtimes(filepath.Join(dir, name), times[n], times[n]))
			}
		}
		files{"mine": "mine"}.write(t, h.path("app"))
		step := func(wantUnchanged bool, wantTime int, args ...string) {
			t.Helper()
			var r struct{ Unchanged bool }
			h.document(&r, 0, args...)
			if r.Unchanged != wantUnchanged {
				t.Errorf("%v: unchanged %v, want %v", args, r.Unchanged, wantUnchanged)
			}
			for name := range same {
				st, err := os.Stat(h.path("app/" + name))
				must(t, err)
				if !st.ModTime().Equal(times[wantTime]) {
					t.Errorf("%v: %s has the time %v, want that of release %d, %v", args, name, st.ModTime(), wantTime, times[wantTime])
				}
			}
			h.status(0, "verify", "app")
		}
		step(false, 1, "apply", "--packaged", "--layout", layout, "r1", "app")
		step(true, 1, "apply", "--packaged", "r2", "app") // the same bytes are the same release
		step(false, 2, "apply", "--packaged", "--times", "r2", "app")
		step(true, 2, "apply", "--packaged", "--times", "r2", "app")
		step(false, 3, "apply", "--packaged", "--times", "r3", "app")
		step(false, 2, "rollback", "app")
	})
}
