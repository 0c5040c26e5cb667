package deploy

import (
	"context"
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

// TestReuseReadOnlyDirs: the directories of a release may be closed to their own
// owner's writing, who is not root. A generation of them can be collected, the
// next can be made of it, and a stage of them can be removed.
func TestReuseReadOnlyDirs(t *testing.T) {
	base := t.TempDir()
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
