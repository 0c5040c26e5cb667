package deploy

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/testneed"
)

// asNobody gives a directory to a user who is not root, and makes the test be one.
func asNobody(t *testing.T) (base string) {
	t.Helper()
	base = t.TempDir()
	must(t, os.Chmod(filepath.Dir(base), 0o755))
	if os.Geteuid() == 0 {
		must(t, os.Chown(base, 65534, 65534))
		must(t, syscall.Setresuid(65534, 65534, 0)) // of all threads
		t.Cleanup(func() { must(t, syscall.Setresuid(0, 0, 0)) })
	}
	t.Cleanup(func() { // for TempDir's
		_ = filepath.WalkDir(base, func(path string, d os.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(path, 0o755)
			}
			return nil
		})
	})
	return base
}

// TestClosedDirs: nor may they be read or entered by him. An empty one comes and
// goes as all others do; what somebody has put into it stays. One with files in it
// is refused, since nobody but root could replace those.
func TestClosedDirs(t *testing.T) {
	base := asNobody(t)
	dir := filepath.Join(base, "app")
	target, err := Open(dir, crashOptions(base, quiet))
	must(t, err)
	defer target.Close()
	source := func(version, mode string) string {
		dir := filepath.Join(base, "source"+version+mode)
		tree{
			"lib/version": version, "open/in/file": "x",
			"moult.toml": "[[file]]\nmatch = \"**/shut\"\nmode = \"0000\"\n[[file]]\nmatch = \"shut\"\nmode = \"0000\"\n[[file]]\nmatch = \"open\"\nmode = \"" + mode + "\"\n",
		}.write(t, dir)
		must(t, os.MkdirAll(dir+"/lib/shut", 0o755))
		must(t, os.MkdirAll(dir+"/shut", 0o755))
		return dir
	}
	for _, mode := range []string{"0000", "0300", "0400"} {
		var refused *RefusedError
		_, err := target.Apply(t.Context(), openRelease(t, source("1", mode)), few)
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), "open: is closed to its owner (mode "+mode+")") || exists(dir) {
			t.Errorf("mode %s: got %v, want a refusal that names the directory", mode, err)
		}
	}
	var collected []int
	for _, version := range []string{"1", "2", "3", "4", "5"} {
		collected = append(collected, applyTo(t, target, source(version, "0555"), few).Collected...)
		if version == "3" {
			theirs := dir + "/.moult/generations/2/lib/shut"
			must(t, os.Chmod(theirs, 0o700))
			must(t, os.WriteFile(theirs+"/theirs", nil, 0o644))
			must(t, os.Chmod(theirs, 0))
		}
	}
	c, err := target.GC(context.Background(), GCOptions{Retention: Retention{Generations: -1, Unreadable: true}})
	must(t, err)
	if got, want := append(collected, c.Collected...), []int{1, 3}; !slices.Equal(got, want) {
		t.Errorf("collected %v, kept %+v; want %v", got, c.Kept, want)
	}
	v, err := target.Verify(context.Background(), "")
	must(t, err)
	if len(v.Damage)+len(v.Extra) > 0 {
		t.Errorf("verify found %+v", v)
	}
	if _, err = target.Forget(t.Context(), ForgetOptions{}); err == nil || !strings.Contains(err.Error(), "theirs") {
		t.Errorf("forget: got %v, want a refusal that names what would go", err)
	}
	theirs := dir + "/.moult/generations/2/lib/shut"
	must(t, os.Chmod(theirs, 0o700))
	must(t, os.Remove(theirs+"/theirs"))
	must(t, os.Chmod(theirs, 0))
	_, err = target.Forget(t.Context(), ForgetOptions{})
	must(t, err)
	want(t, dir, tree{"lib/version": "5", "open/in/file": "x", ".moult": gone})
	for name, mode := range map[string]os.FileMode{"shut": 0, "lib/shut": 0, "open": 0o555} {
		st, err := os.Lstat(dir + "/" + name)
		must(t, err)
		if st.Mode() != os.ModeDir|mode {
			t.Errorf("%s: mode %v, want %v", name, st.Mode(), mode)
		}
	}
}

// TestReuseReadOnlyDirs: the directories of a release may be closed to their own
// owner's writing, who is not root. A generation of them can be collected, the
// next can be made of it, and a stage of them can be removed.
func TestReuseReadOnlyDirs(t *testing.T) {
	base := asNobody(t)
	target, err := Open(filepath.Join(base, "app"), crashOptions(base, quiet))
	must(t, err)
	defer target.Close()
	var collected []int
	for _, version := range []string{"1", "2", "3", "4", "5"} {
		dir := filepath.Join(base, "source"+version)
		tree{"lib/deep/same": "same", "lib/deep/version": version, "lib/only" + version: ""}.write(t, dir)
		must(t, os.Chmod(dir+"/lib/deep", 0o555))
		must(t, os.Chmod(dir+"/lib", 0o555))
		collected = append(collected, applyTo(t, target, dir, few).Collected...)
	}
	c, err := target.GC(context.Background(), GCOptions{Retention: Retention{Generations: -1, Unreadable: true}})
	must(t, err)
	if got, want := append(collected, c.Collected...), []int{1, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("collected %v, want %v", got, want)
	}
	v, err := target.Verify(context.Background(), "")
	must(t, err)
	if len(v.Damage)+len(v.Extra) > 0 {
		t.Errorf("verify found %+v", v)
	}

	s, err := target.state("")
	must(t, err)
	must(t, os.Rename(s.abs(genDir(4)), s.abs(stageDir(6)))) // cut short
	if r, err := target.Recover(context.Background()); err != nil || len(r) != 1 || r[0].Discarded != 1 {
		t.Errorf("recover: got %+v, %v, want one stage discarded", r, err)
	}
}

// TestReuseImmutable: a generation in which the administrator has made a name
// immutable is left alone. Begun to be removed, it would be in the way of every
// later command.
func TestReuseImmutable(t *testing.T) {
	testneed.Root(t)
	chattr := testneed.Tool(t, "chattr")
	for _, path := range []string{"", "/lib", "/lib/version"} {
		t.Run("1"+path, func(t *testing.T) {
			target := reuseTarget(t)
			apply := func(version string, o ApplyOptions) Result {
				return applyTo(t, target, tree{"lib/version": version, "lib/same": "same"}.write(t, t.TempDir()), o)
			}
			many := ApplyOptions{Retention: Retention{Generations: 9, Unreadable: true}}
			for _, version := range []string{"1", "2", "3"} {
				apply(version, many)
			}
			s, err := target.state("")
			must(t, err)
			fixed := s.abs(genDir(1)) + path
			t.Cleanup(func() { _ = exec.Command(chattr, "-i", fixed).Run() })
			if out, err := exec.Command(chattr, "+i", fixed).CombinedOutput(); err != nil {
				testneed.Skip(t, "needs chattr to work here: "+string(out))
			}
			if res := apply("4", few); slices.Contains(res.Collected, 1) {
				t.Errorf("collected %v, want 1 left alone", res.Collected)
			}
			c, err := target.GC(context.Background(), GCOptions{Retention: Retention{Generations: -1, Unreadable: true}})
			must(t, err)
			i := slices.IndexFunc(c.Kept, func(k Kept) bool { return k.Generation == 1 })
			if i < 0 || !strings.Contains(c.Kept[i].Why, "chattr") || !strings.Contains(c.Kept[i].Why, "generations/1"+path) {
				t.Errorf("gc kept %+v, want 1, and which name it is", c.Kept)
			}
			apply("5", few)
			must(t, exec.Command(chattr, "-i", fixed).Run())
			if res := apply("6", few); !slices.Contains(res.Collected, 1) {
				t.Errorf("collected %v, want 1 at last", res.Collected)
			}
		})
	}
}

// TestReuseDirAttributes: what a directory of the old generation has in extended
// attributes, by its release or by somebody, is not the new generation's.
func TestReuseDirAttributes(t *testing.T) {
	target := reuseTarget(t)
	for i, version := range []string{"1", "2", "3", "4", "5"} {
		dir := tree{"a/b/version": version, "a/b/same": "same", "a/other": "other"}.write(t, t.TempDir())
		if i%2 == 0 {
			if err := unix.Setxattr(dir+"/a", "user.of", []byte(version), 0); err == unix.EOPNOTSUPP {
				testneed.Skip(t, "needs user.* attributes")
			} else if err != nil {
				t.Fatal(err)
			}
		}
		if i == 3 {
			s, err := target.state("")
			must(t, err)
			must(t, unix.Setxattr(s.abs(genDir(2))+"/a/b", "user.theirs", []byte("x"), 0))
		}
		applyTo(t, target, dir, few)
		v, err := target.Verify(context.Background(), "")
		must(t, err)
		if len(v.Damage)+len(v.Extra) > 0 {
			t.Errorf("release %s: verify found %+v", version, v)
		}
	}
}
