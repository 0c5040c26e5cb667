package deploy

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/release"
	"moult.example/internal/testneed"
)

// TestReuseClosedDirs: a directory of which its owner may not do all keeps its
// mode in what is made of an old generation.
func TestReuseClosedDirs(t *testing.T) {
	testneed.Root(t)
	target := reuseTarget(t)
	for version := range 6 {
		dir := tree{"a/f": "f", "b/f": "f", "c/d/f": "f", "x": string(rune('0' + version))}.write(t, t.TempDir())
		for _, name := range []string{"a", "b", "c/d", "c"} {
			must(t, os.Chmod(dir+"/"+name, map[string]os.FileMode{"a": 0o555, "c/d": 0o500, "c": 0o055}[name]))
			must(t, os.Chtimes(dir+"/"+name, time.Time{}, time.Unix(1e9, 0)))
		}
		applyTo(t, target, dir, few)
		if v, err := target.Verify(context.Background(), ""); err != nil || len(v.Damage)+len(v.Extra) > 0 {
			t.Fatalf("version %d: verify found %+v, %v", version, v.Damage, err)
		}
	}
}

// TestReuseFixed: what is immutable, among the books or in the live release too,
// is left where it is, and no later command stumbles over it.
func TestReuseFixed(t *testing.T) {
	testneed.Root(t)
	chattr := testneed.Tool(t, "chattr")
	for _, name := range []string{".moult/generations/1/.moult/manifest", ".moult/live/lib/same"} {
		t.Run(name, func(t *testing.T) {
			target := reuseTarget(t)
			apply := func(version, before string) error {
				files := tree{"lib/version": version, "lib/same": "same"}
				if before != "" {
					files["moult.toml"] = "[hooks]\nbefore = \"" + before + "\"\n"
				}
				rel, err := release.Open(context.Background(), files.write(t, t.TempDir()), release.Options{})
				must(t, err)
				defer rel.Close()
				_, err = target.Apply(context.Background(), rel, few)
				return err
			}
			for _, version := range []string{"1", "2", "3"} {
				must(t, apply(version, ""))
			}
			fixed := target.abs(name)
			if out, err := exec.Command(chattr, "+i", fixed).CombinedOutput(); err != nil {
				testneed.Skip(t, "needs chattr to work here: "+string(out))
			}
			again := []string{fixed}
			if real, err := filepath.EvalSymlinks(fixed); err == nil {
				again = append(again, real)
			}
			defer func() { _ = exec.Command(chattr, append([]string{"-i"}, again...)...).Run() }()
			for _, version := range []string{"4", "5", "6"} {
				if err := apply(version+"x", "false"); err == nil || errors.Is(err, unix.EPERM) {
					t.Errorf("apply that the hook refuses: got %v", err)
				}
				if err := apply(version, ""); err != nil {
					t.Errorf("apply of %s: %v", version, err)
				}
			}
			if _, err := target.GC(context.Background(), GCOptions{Retention: Retention{Generations: -1, Unreadable: true}}); err != nil {
				t.Errorf("gc: %v", err)
			}
			if _, err := target.Recover(context.Background()); err != nil {
				t.Errorf("recover: %v", err)
			}
		})
	}
}

// TestReuseChanged: what somebody does to an old generation while the new one is
// made of it does not go live.
func TestReuseChanged(t *testing.T) {
	changes := map[string]func(gen string) error{
		"file": func(gen string) error { return os.WriteFile(gen+"/lib/stranger", nil, 0o644) },
		"content": func(gen string) error {
			return errors.Join(os.Remove(gen+"/lib/same"), os.WriteFile(gen+"/lib/same", []byte("evil"), 0o644))
		},
		"mode": func(gen string) error { return os.Chmod(gen+"/lib", 0o777) },
		"top":  func(gen string) error { return os.WriteFile(gen+"/stranger", nil, 0o644) },
	}
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			base, renames := t.TempDir(), 0
			target, err := Open(base+"/app", crashOptions(base, func(path string) (disk.FS, error) {
				fsys, err := quiet(path)
				return placing{fsys, func(from string) {
					if strings.HasSuffix(from, "/generations/1") {
						renames++
						must(t, change(filepath.Join(base, "app", from)))
					}
				}}, err
			}))
			must(t, err)
			defer target.Close()
			for _, version := range []string{"1", "2", "3", "4"} {
				res := applyTo(t, target, tree{"lib/version": version, "lib/same": "same"}.write(t, t.TempDir()), few)
				if slices.Contains(res.Collected, 1) {
					t.Errorf("%s: collected %v, want 1 kept", version, res.Collected)
				}
			}
			if v, err := target.Verify(context.Background(), ""); err != nil || len(v.Damage)+len(v.Extra) > 0 || renames == 0 {
				t.Errorf("after %d renames verify found %+v %v, %v", renames, v.Damage, v.Extra, err)
			}
			if !exists(target.abs(".moult/generations/1")) {
				t.Error("generation 1 has not got its name back")
			}
		})
	}
}

// placing tells of each name just before it is taken away.
type placing struct {
	disk.FS
	before func(from string)
}

func (p placing) Place(from, to string) error {
	p.before(from)
	return p.FS.Place(from, to)
}

// TestWrittenDuringApply: what is written into a file that the new release shares
// with the old, between the stage and the end of the apply, is seen by the next,
// whatever its times are.
func TestWrittenDuringApply(t *testing.T) {
	target := reuseTarget(t)
	ref := filepath.Join(t.TempDir(), "ref")
	hook := "touch -r lib/same " + ref + " && printf EVIL | dd of=lib/same conv=notrunc status=none && touch -r " + ref + " lib/same"
	for _, version := range []string{"1", "2", "3", "4", "5"} {
		files := tree{"lib/version": version, "lib/same": "same"}
		if version == "3" {
			files["moult.toml"] = "[hooks]\nbefore = \"" + hook + "\"\n"
		}
		applyTo(t, target, files.write(t, t.TempDir()), ApplyOptions{Retention: Retention{Unreadable: true}})
		text, err := os.ReadFile(target.abs("lib/same"))
		if want := map[bool]string{true: "EVIL", false: "same"}[version == "3"]; err != nil || string(text) != want {
			t.Errorf("after %s: got %q, %v; want %q", version, text, err, want)
		}
	}
}

// TestGraceWithoutHistory: a generation that was live a moment ago is kept though
// nothing says since when it is not.
func TestGraceWithoutHistory(t *testing.T) {
	base := t.TempDir()
	opts := crashOptions(base, quiet)
	opts.Grace, opts.Now = time.Hour, nil
	target, err := Open(base+"/app", opts)
	must(t, err)
	defer target.Close()
	apply := func(version string) []int {
		return applyTo(t, target, tree{"version": version}.write(t, t.TempDir()), few).Collected
	}
	for _, version := range []string{"1", "2", "3", "4"} {
		apply(version)
	}
	must(t, os.Remove(target.abs(".moult/history.jsonl")))
	if got := apply("5"); len(got) > 0 {
		t.Errorf("collected %v, want none", got)
	}
	ns, err := (&state{t: target, layout: Owned, dir: dotMoult}).generations()
	if err != nil || len(ns) != 5 {
		t.Errorf("got %v, %v; want all five", ns, err)
	}
}

// TestReuseMounted: a part of an old generation that is mounted elsewhere, as for
// a container, speaks against taking it, in whose mount namespace it may be.
func TestReuseMounted(t *testing.T) {
	testneed.Root(t)
	sh := testneed.Tool(t, "sh")
	unshare := testneed.Tool(t, "unshare")
	container := func(do string) func(t *testing.T, lib, to string) func() {
		return func(t *testing.T, lib, to string) func() {
			cmd := exec.Command(unshare, "-m", "--propagation", "private", sh, "-c", do+" && echo ready && read x", lib, to)
			in, err := cmd.StdinPipe()
			must(t, err)
			out, err := cmd.StdoutPipe()
			must(t, err)
			must(t, cmd.Start())
			if _, err := out.Read(make([]byte, 6)); err != nil {
				t.Fatal("not mounted: ", err)
			}
			return func() {
				in.Close()
				if err := cmd.Wait(); cmd.ProcessState.ExitCode() == 3 {
					t.Error("what was mounted is gone: ", err)
				}
			}
		}
	}
	for name, begin := range map[string]func(t *testing.T, lib, to string) (end func()){
		"here": func(t *testing.T, lib, to string) func() {
			must(t, unix.Mount(lib, to, "", unix.MS_BIND, ""))
			return func() { must(t, unix.Unmount(to, 0)) }
		},
		"over it, by another name": func(t *testing.T, lib, to string) func() {
			must(t, unix.Mount(filepath.Dir(filepath.Dir(lib)), to, "", unix.MS_BIND, ""))
			must(t, unix.Mount("none", to+"/1/lib", "tmpfs", 0, ""))
			return func() {
				must(t, unix.Unmount(to+"/1/lib", 0))
				must(t, unix.Unmount(to, 0))
			}
		},
		"in a container":         container(`mount --bind "$0" "$1"`),
		"over it in a container": container(`trap 'mountpoint -q "$0" || exit 3' EXIT; mount -t tmpfs none "$0"`),
	} {
		t.Run(name, func(t *testing.T) {
			target := reuseTarget(t)
			apply := func(version string) []int {
				return applyTo(t, target, tree{"lib/version": version, "lib/same": "same"}.write(t, t.TempDir()), few).Collected
			}
			apply("1")
			end := begin(t, target.abs(".moult/generations/1/lib"), t.TempDir())
			for _, version := range []string{"2", "3", "4", "5"} {
				if got := apply(version); slices.Contains(got, 1) {
					t.Errorf("apply of %s collected %v, want 1 kept", version, got)
				}
			}
			c, err := target.GC(context.Background(), GCOptions{Retention: Retention{Generations: -1, Unreadable: true}})
			if err != nil || slices.Contains(c.Collected, 1) {
				t.Errorf("gc collected %v, %v; want 1 kept", c.Collected, err)
			}
			end()
			c, err = target.GC(context.Background(), GCOptions{Retention: Retention{Generations: -1, Unreadable: true}})
			if err != nil || !slices.Contains(c.Collected, 1) {
				t.Errorf("gc collected %v, kept %+v, %v; want 1 gone at last", c.Collected, c.Kept, err)
			}
		})
	}
}
