package deploy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
)

// tree is what a test writes: path → content. A content that begins with "->"
// is a symbolic link, one that begins with "0755:" sets the mode.
type tree map[string]string

func (tr tree) write(t testing.TB, dir string) string {
	t.Helper()
	for path, content := range tr {
		full := filepath.Join(dir, path)
		must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		if text, ok := strings.CutPrefix(content, "->"); ok {
			must(t, os.Symlink(text, full))
			continue
		}
		mode := os.FileMode(0o644)
		if rest, ok := strings.CutPrefix(content, "0755:"); ok {
			content, mode = rest, 0o755
		}
		must(t, os.WriteFile(full, []byte(content), mode))
		must(t, os.Chmod(full, mode))
	}
	return dir
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// open opens a target whose registry is the test's own.
func open(t testing.TB, path string, change ...func(*Options)) *Target {
	t.Helper()
	o := Options{StateDir: filepath.Join(filepath.Dir(path), "state"), Grace: time.Nanosecond, Command: "test"}
	for _, c := range change {
		c(&o)
	}
	target, err := Open(path, o)
	must(t, err)
	t.Cleanup(func() { target.Close() })
	return target
}

func openRelease(t testing.TB, dir string) *release.Release {
	t.Helper()
	rel, err := release.Open(context.Background(), dir, release.Options{})
	must(t, err)
	t.Cleanup(func() { rel.Close() })
	return rel
}

func apply(t testing.TB, target *Target, tr tree, o ApplyOptions) Result {
	t.Helper()
	res, err := target.Apply(context.Background(), openRelease(t, tr.write(t, t.TempDir())), o)
	must(t, err)
	return res
}

// read returns the files below dir as a tree, without .moult, through links.
func read(t testing.TB, dir string, paths ...string) tree {
	t.Helper()
	tr := tree{}
	for _, p := range paths {
		data, err := os.ReadFile(filepath.Join(dir, p))
		if err != nil {
			data = []byte("(" + err.(*os.PathError).Err.Error() + ")")
		}
		tr[p] = string(data)
	}
	return tr
}

func want(t testing.TB, dir string, w tree) {
	t.Helper()
	for p, content := range w {
		if got := read(t, dir, p)[p]; got != content {
			t.Errorf("%s: got %q, want %q", p, got, content)
		}
	}
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(path, err)
	}
	return st.Ino
}

var (
	v1 = tree{"bin/tool": "0755:tool 1", "lib/libx.so.1.0": "x 1", "lib/libx.so.1": "->libx.so.1.0", "share/same": "same", "share/link": "->same", "VERSION": "1"}
	v2 = tree{"bin/tool": "0755:tool 2", "lib/libx.so.1.1": "x 2", "lib/libx.so.1": "->libx.so.1.1", "share/same": "same", "share/link": "->same", "VERSION": "2", "extra/new": "new"}
)

const gone = "(no such file or directory)"

func TestOwned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "app")
	target := open(t, dir)
	res := apply(t, target, v1, ApplyOptions{})
	if res.Layout != Owned || res.Generation != 1 || res.From != noGeneration || res.Added != 6 {
		t.Errorf("got %+v", res)
	}
	want(t, dir, tree{"bin/tool": "tool 1", "lib/libx.so.1": "x 1", "share/same": "same", "VERSION": "1"})
	must(t, os.WriteFile(dir+"/mine", []byte("mine"), 0o644))
	same := inode(t, dir+"/share/same")

	if res := apply(t, target, v1, ApplyOptions{}); !res.Unchanged || res.Generation != 1 {
		t.Errorf("again: got %+v", res)
	}
	res = apply(t, target, v2, ApplyOptions{})
	if res.From != 1 || res.Generation != 2 || res.Added != 2 || res.Replaced != 3 || res.Removed != 1 || res.Same != 2 {
		t.Errorf("update: got %+v", res)
	}
	want(t, dir, tree{"bin/tool": "tool 2", "lib/libx.so.1": "x 2", "VERSION": "2", "extra/new": "new", "lib/libx.so.1.0": gone, "mine": "mine"})
	want(t, dir, tree{".moult/live/mine": "mine", ".moult/generations/1/bin/tool": "tool 1"})
	if got := inode(t, dir+"/share/same"); got != same {
		t.Errorf("an unchanged file has a new inode: %d, was %d", got, same)
	}

	back, err := target.Rollback(context.Background(), RollbackOptions{Generation: -1})
	must(t, err)
	if back.Generation != 1 || back.From != 2 {
		t.Errorf("rollback: got %+v", back)
	}
	want(t, dir, tree{"bin/tool": "tool 1", "VERSION": "1", "extra/new": gone})

	v, err := target.Verify(context.Background(), "")
	must(t, err)
	if len(v.Damage)+len(v.Extra) > 0 {
		t.Errorf("verify: got %+v", v)
	}
	_, err = target.Forget(context.Background(), ForgetOptions{})
	must(t, err)
	want(t, dir, tree{"bin/tool": "tool 1", "VERSION": "1", "mine": "mine", ".moult": gone})
	if st, err := os.Lstat(dir + "/bin"); err != nil || !st.IsDir() {
		t.Errorf("bin: %v %v, want a directory", st, err)
	}
}

// TestRollbackPasses: what a rollback has left because it is no good does not
// come back by a rollback that does not name it.
func TestRollbackPasses(t *testing.T) {
	for _, layout := range []Layout{Owned, Shared} {
		t.Run(string(layout), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "app")
			target := open(t, dir)
			rollback := func(o RollbackOptions, version string, warnings int) {
				t.Helper()
				res, err := target.Rollback(t.Context(), o)
				must(t, err)
				want(t, dir, tree{"VERSION": version})
				if len(res.Warnings) != warnings {
					t.Errorf("warnings: got %q, want %d", res.Warnings, warnings)
				}
			}
			bad := RollbackOptions{Generation: -1, Because: "not healthy"}
			plain := RollbackOptions{Generation: -1}
			apply(t, target, v1, ApplyOptions{Layout: layout})
			apply(t, target, v2, ApplyOptions{})
			rollback(bad, "1", 0)
			if layout == Owned { // in a shared one, generation 0 is before
				_, err := target.Rollback(t.Context(), plain)
				if !errors.Is(err, ErrNoGeneration) || !strings.Contains(err.Error(), "before 1 but 2, which a rollback has left: not healthy") {
					t.Errorf("got %v, want that there is none but 2", err)
				}
			}
			rollback(RollbackOptions{Generation: 2}, "2", 0)
			rollback(plain, "1", 0)
			rollback(plain, "2", 0) // the last time it was left for no reason
			apply(t, target, tree{"VERSION": "3"}, ApplyOptions{})
			rollback(bad, "2", 0)
			rollback(plain, "1", 1) // and not 3
			records, err := target.History("")
			must(t, err)
			if r := records[len(records)-2]; r.Job != "rollback" || r.Because != "not healthy" {
				t.Errorf("history: got %+v, want why", r)
			}
		})
	}
}

func TestShared(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "local")
	must(t, os.MkdirAll(dir+"/bin", 0o755))
	must(t, os.WriteFile(dir+"/bin/other", []byte("other"), 0o755))
	must(t, os.WriteFile(dir+"/bin/tool", []byte("tool 0"), 0o755))
	zero := inode(t, dir+"/bin/tool")
	target := open(t, dir)
	res := apply(t, target, v1, ApplyOptions{})
	if res.Layout != Shared || res.Generation != 1 || res.Name != "local" {
		t.Errorf("got %+v", res)
	}
	one := inode(t, dir+"/bin/tool")
	want(t, dir, tree{"bin/tool": "tool 1", "lib/libx.so.1": "x 1", "bin/other": "other"})
	if res := apply(t, target, v1, ApplyOptions{}); !res.Unchanged {
		t.Errorf("again: got %+v", res)
	}
	res = apply(t, target, v2, ApplyOptions{})
	want(t, dir, tree{"bin/tool": "tool 2", "lib/libx.so.1": "x 2", "VERSION": "2", "extra/new": "new", "lib/libx.so.1.0": gone, "bin/other": "other"})
	_, err := target.Rollback(context.Background(), RollbackOptions{Generation: -1})
	must(t, err)
	want(t, dir, tree{"bin/tool": "tool 1", "lib/libx.so.1": "x 1", "VERSION": "1", "extra/new": gone, "extra": gone, "lib/libx.so.1.0": "x 1"})
	if got := inode(t, dir+"/bin/tool"); got != one {
		t.Errorf("rollback brought another inode")
	}
	_, err = target.Rollback(context.Background(), RollbackOptions{Generation: 2})
	must(t, err)
	want(t, dir, tree{"bin/tool": "tool 2", "extra/new": "new", "lib/libx.so.1.0": gone})
	_, err = target.Rollback(context.Background(), RollbackOptions{Generation: 0})
	must(t, err)
	want(t, dir, tree{"bin/tool": "tool 0", "bin/other": "other", "lib": gone, "VERSION": gone})
	if got := inode(t, dir+"/bin/tool"); got != zero {
		t.Errorf("rollback to 0 brought another inode")
	}
	left, _ := filepath.Glob(dir + "/*/.moult-*")
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	_, err = target.Rollback(context.Background(), RollbackOptions{Generation: 2})
	must(t, err)
	v, err := target.Verify(context.Background(), "")
	must(t, err)
	if len(v.Damage) > 0 {
		t.Errorf("verify: got %+v", v)
	}
	var refused *RefusedError
	if _, err = target.Forget(context.Background(), ForgetOptions{}); !errors.As(err, &refused) {
		t.Errorf("forget: got %v, want a refusal: what was there before would be lost", err)
	}
	_, err = target.Forget(context.Background(), ForgetOptions{Force: true})
	must(t, err)
	want(t, dir, tree{"bin/tool": "tool 2", ".moult": gone})
}

func TestAdopt(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "app")
	tree{"bin/tool": "0755:tool 0", "etc/conf": "conf", "lib/old": "old"}.write(t, dir)
	bin := inode(t, dir+"/bin")
	target := open(t, dir)
	res := apply(t, target, v1, ApplyOptions{Adopt: true})
	if res.Layout != Owned || res.Generation != 1 {
		t.Errorf("got %+v", res)
	}
	want(t, dir, tree{"bin/tool": "tool 1", "etc/conf": "conf", "lib/old": gone, "lib/libx.so.1": "x 1"})
	_, err := target.Rollback(context.Background(), RollbackOptions{Generation: 0})
	must(t, err)
	want(t, dir, tree{"bin/tool": "tool 0", "etc/conf": "conf", "lib/old": "old", "lib/libx.so.1": gone, "share": gone})
	if got := inode(t, dir+"/bin"); got != bin {
		t.Errorf("bin has a new inode")
	}
}
