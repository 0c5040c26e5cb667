package deploy

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
)

// few keeps live and previous, so that what was live before is reused. Here not
// even root may be able to look into every process.
var few = ApplyOptions{Retention: Retention{Generations: 1, Unreadable: true}}

func reuseTarget(t *testing.T) *Target {
	t.Helper()
	base := t.TempDir()
	target, err := Open(filepath.Join(base, "app"), crashOptions(base, quiet))
	must(t, err)
	t.Cleanup(func() { target.Close() })
	return target
}

func applyTo(t *testing.T, target *Target, dir string, o ApplyOptions) Result {
	t.Helper()
	rel, err := release.Open(context.Background(), dir, release.Options{})
	must(t, err)
	defer rel.Close()
	res, err := target.Apply(context.Background(), rel, o)
	must(t, err)
	return res
}

// TestReuse applies releases that differ at random, each onto a target that
// makes its generations of old ones and onto a new one: both must hold the same.
func TestReuse(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			source, target := t.TempDir(), reuseTarget(t)
			reused, linked := 0, 0
			for i := range 14 {
				changeTree(t, rnd, source)
				res := applyTo(t, target, source, few)
				if res.Generation != res.From && i > 2 {
					reused += len(res.Collected)
				}
				fresh := reuseTarget(t)
				applyTo(t, fresh, source, few)
				got, want := listTree(t, target, &linked), listTree(t, fresh, new(int))
				if got != want {
					t.Fatalf("release %d (made of %v)\ngot:\n%s\nwant:\n%s", i, res.Collected, got, want)
				}
				v, err := target.Verify(context.Background(), "")
				must(t, err)
				if len(v.Damage)+len(v.Extra) > 0 {
					t.Fatalf("release %d: verify found %+v", i, v)
				}
			}
			if reused < 8 {
				t.Errorf("%d generations were reused, want 8 of 14 or more", reused)
			}
			if linked == 0 {
				t.Error("no file is the same inode in two generations")
			}
		})
	}
}

// changeTree adds, changes, removes and turns into something else a few names.
func changeTree(t *testing.T, rnd *rand.Rand, root string) {
	t.Helper()
	must(t, os.WriteFile(filepath.Join(root, "always"), fmt.Append(nil, rnd.Uint64()), 0o644))
	for range 10 {
		path := filepath.Join(root, fmt.Sprintf("d%d", rnd.IntN(4)), fmt.Sprintf("n%d", rnd.IntN(6)))
		if st, err := os.Stat(filepath.Dir(path)); err == nil && !st.IsDir() {
			must(t, os.Remove(filepath.Dir(path)))
		}
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.RemoveAll(path))
		switch rnd.IntN(8) {
		case 0: // stays away
		case 1:
			must(t, os.Symlink(fmt.Sprint("n", rnd.IntN(3)), path))
		case 2:
			must(t, os.Mkdir(path, 0o755))
			must(t, os.WriteFile(path+"/below", fmt.Append(nil, rnd.IntN(3)), 0o644))
			must(t, os.Chmod(path, []os.FileMode{0o755, 0o750, 0o755 | fs.ModeSetgid}[rnd.IntN(3)]))
		case 3:
			must(t, os.WriteFile(path, nil, 0o600))
			other := path + "-too"
			must(t, os.RemoveAll(other))
			must(t, os.Link(path, other))
		case 4:
			dir := filepath.Dir(path)
			must(t, os.RemoveAll(dir))
			must(t, os.WriteFile(dir, []byte("a file for once"), 0o644))
		default:
			must(t, os.WriteFile(path, fmt.Append(nil, rnd.IntN(4)), []os.FileMode{0o644, 0o755, 0o640}[rnd.IntN(3)]))
		}
	}
}

// listTree lists what is in the live generation, with all that can differ, and
// counts the inodes that other generations hold as well.
func listTree(t *testing.T, target *Target, linked *int) string {
	t.Helper()
	s, err := target.state("")
	must(t, err)
	live, err := s.live()
	must(t, err)
	root := s.abs(genDir(live))
	names := map[uint64]string{}
	var b strings.Builder
	must(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(path, root)
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || name == "/.moult/info.json" {
			return err
		}
		fmt.Fprintf(&b, "%s %o %d:%d", name, st.Mode, st.Uid, st.Gid)
		switch {
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			first, ok := names[st.Ino]
			if !ok {
				names[st.Ino] = name
			}
			fmt.Fprintf(&b, " %q same as %q", data, first)
			if !ok && st.Nlink > 1 {
				*linked++
			}
		case d.Type()&fs.ModeSymlink != 0:
			text, _ := os.Readlink(path)
			fmt.Fprintf(&b, " -> %s", text)
		}
		b.WriteByte('\n')
		return nil
	}))
	return b.String()
}

// TestReuseStays: of an old generation everything stays as it is that the new one
// has as well: to make a name again is what the reuse is to save. The history
// says which generation it was.
func TestReuseStays(t *testing.T) {
	source, target := t.TempDir(), reuseTarget(t)
	tree{"lib/d/same": "same", "lib/changes": "0"}.write(t, source)
	must(t, os.Symlink("same", source+"/lib/d/link"))
	var ids []map[string]string // by generation; the last is made of the first
	for i := range 4 {
		must(t, os.WriteFile(source+"/lib/changes", fmt.Append(nil, i), 0o644))
		ids = append(ids, idsIn(t, target, applyTo(t, target, source, few).Generation))
	}
	for name, as := range map[string]int{"lib": 0, "lib/d": 0, "lib/d/same": 2, "lib/d/link": 2} {
		if got, want := ids[3][name], ids[as][name]; got != want {
			t.Errorf("%s: got %s, want %s, as in generation %d", name, got, want, as+1)
		}
	}
	records, err := target.History("")
	must(t, err)
	if !slices.ContainsFunc(records, func(r Record) bool { return r.Job == "gc" && r.Note == "generation 4 is made of 1" }) {
		t.Errorf("the history does not say that generation 4 is made of 1: %+v", records)
	}
}

// idsIn are the inode numbers of a generation; for what is no directory, with the
// change time, which moves when the inode gets or loses a name.
func idsIn(t *testing.T, target *Target, n int) map[string]string {
	t.Helper()
	s, err := target.state("")
	must(t, err)
	ids := map[string]string{}
	inv, err := s.inventory(context.Background(), n)
	must(t, err)
	must(t, inv.examine(context.Background(), s, func(*item) bool { return true }))
	for i := range inv.items {
		it := &inv.items[i]
		ids[it.path] = fmt.Sprint("inode ", it.stat.Ino)
		if !it.isDir() {
			ids[it.path] += fmt.Sprint(", changed ", it.stat.CTime)
		}
	}
	return ids
}

// TestReuseSpares says which generations the next one is not made of.
func TestReuseSpares(t *testing.T) {
	write := func(t *testing.T, version int) string {
		return tree{"bin/tool": fmt.Sprint("0755:tool ", version), "lib/same": "same"}.write(t, t.TempDir())
	}
	for _, c := range []struct {
		what   string
		change func(t *testing.T, target *Target, gen1 string)
		o      ApplyOptions
		want   []int
	}{
		{"it is free", func(*testing.T, *Target, string) {}, few, []int{1}},
		{"a stranger's file", func(t *testing.T, _ *Target, gen1 string) {
			must(t, os.WriteFile(gen1+"/lib/theirs", nil, 0o644))
		}, few, nil},
		{"in use", func(t *testing.T, _ *Target, gen1 string) {
			cmd := exec.Command("sleep", "1000")
			cmd.Dir = gen1 + "/lib"
			must(t, cmd.Start())
			t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
			for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
				if at, _ := os.Readlink(fmt.Sprint("/proc/", cmd.Process.Pid, "/cwd")); at == gen1+"/lib" {
					return
				}
			}
			t.Fatal("it does not stand there")
		}, few, nil},
		{"pinned", func(t *testing.T, target *Target, _ string) {
			_, err := target.Pin(context.Background(), "", 1, true)
			must(t, err)
		}, few, nil},
		{"as few as can be", func(*testing.T, *Target, string) {}, ApplyOptions{Retention: Retention{Generations: -1, Unreadable: true}}, []int{1, 2}},
	} {
		t.Run(c.what, func(t *testing.T) {
			target := reuseTarget(t)
			many := ApplyOptions{Retention: Retention{Generations: 9, Unreadable: true}}
			for v := range 3 {
				applyTo(t, target, write(t, v), many)
			}
			s, err := target.state("")
			must(t, err)
			gen1, err := filepath.EvalSymlinks(s.abs(genDir(1)))
			must(t, err)
			before, err := os.Stat(gen1 + "/lib/same")
			must(t, err)
			c.change(t, target, gen1)
			res := applyTo(t, target, write(t, 4), c.o)
			if !slices.Equal(res.Collected, c.want) {
				t.Errorf("collected %v, want %v", res.Collected, c.want)
			}
			if _, err := os.Stat(gen1); (err == nil) == slices.Contains(c.want, 1) {
				t.Errorf("generation 1: got %v", err)
			}
			now, err := os.Stat(s.abs(genDir(4)) + "/lib/same")
			must(t, err)
			if !os.SameFile(before, now) {
				t.Error("the unchanged file is another inode")
			}
		})
	}
}

// TestRetentionAfterRollback: live and previous come first, however new the
// others are.
func TestRetentionAfterRollback(t *testing.T) {
	target := reuseTarget(t)
	many := Retention{Generations: 9, Unreadable: true}
	for i := range 4 {
		applyTo(t, target, tree{"bin/tool": fmt.Sprint("0755:tool ", i)}.write(t, t.TempDir()), ApplyOptions{Retention: many})
	}
	_, err := target.Rollback(context.Background(), RollbackOptions{Generation: 1})
	must(t, err)
	for keep, want := range map[int][]int{1: {2, 3}, 2: {2, 3}, 3: {2}, 4: {}} {
		c, err := target.GC(context.Background(), GCOptions{Retention: Retention{Generations: keep, Unreadable: true}, DryRun: true})
		must(t, err)
		if !slices.Equal(c.Collected, want) {
			t.Errorf("of 1 (live), 2, 3 and 4 (previous), with %d to keep: collected %v, want %v", keep, c.Collected, want)
		}
	}
}
