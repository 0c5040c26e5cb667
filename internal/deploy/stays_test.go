package deploy

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What belongs to others, and must be there after whatever we do.

func sharedTarget(t *testing.T, files tree) (*Target, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "local")
	files.write(t, dir)
	return open(t, dir), dir
}

func rollBack(t *testing.T, target *Target, n int) {
	t.Helper()
	_, err := target.Rollback(context.Background(), RollbackOptions{Generation: n})
	must(t, err)
}

// TestEmptyDirectoryStays: one that was there before us goes with no release.
func TestEmptyDirectoryStays(t *testing.T) {
	target, dir := sharedTarget(t, tree{"other": "other"})
	must(t, os.Mkdir(dir+"/share", 0o755))
	apply(t, target, tree{"share/x": "x", "made/y": "y", "z": "z"}, ApplyOptions{})
	apply(t, target, tree{"z": "z"}, ApplyOptions{})
	want(t, dir, tree{"share/x": gone, "made": gone, "made/y": gone})
	if st, err := os.Stat(dir + "/share"); err != nil || !st.IsDir() {
		t.Errorf("share: %v, want the directory that was there before", err)
	}
}

// TestClaimedStays: a file that was there before, just as the release wants it,
// is still there after the way back, also when it was replaced meanwhile.
func TestClaimedStays(t *testing.T) {
	target, dir := sharedTarget(t, tree{"bin/tool": "0755:same"})
	apply(t, target, tree{"bin/tool": "0755:same", "new": "1"}, ApplyOptions{})
	rollBack(t, target, 0)
	want(t, dir, tree{"bin/tool": "same", "new": gone})
	rollBack(t, target, 1)
	apply(t, target, tree{"bin/tool": "0755:two", "new": "2"}, ApplyOptions{})
	rollBack(t, target, 0)
	want(t, dir, tree{"bin/tool": "same", "new": gone})
}

// TestLateEdit: what the user changes between stage and commit goes along.
func TestLateEdit(t *testing.T) {
	config := "[[file]]\nmatch = \"etc/*\"\nkeep = true\n"
	dir := filepath.Join(t.TempDir(), "app")
	target := open(t, dir)
	apply(t, target, tree{"etc/conf": "one", "moult.toml": config}, ApplyOptions{})
	rel := openRelease(t, tree{"etc/conf": "two", "moult.toml": config}.write(t, t.TempDir()))
	_, err := target.Stage(context.Background(), rel, ApplyOptions{})
	must(t, err)
	must(t, os.WriteFile(dir+"/etc/conf", []byte("mine"), 0o644))
	_, err = target.Commit(context.Background(), CommitOptions{})
	must(t, err)
	want(t, dir, tree{"etc/conf": "mine", "etc/conf.new": "two"})
}

// TestConflictKept: after a crash, what somebody else has put in the place of a
// file is theirs; the rest is finished, and it is reported.
func TestConflictKept(t *testing.T) {
	target, dir := sharedTarget(t, tree{"other": "other"})
	apply(t, target, v1, ApplyOptions{})
	s, err := target.state("")
	must(t, err)
	rel := openRelease(t, v2.write(t, t.TempDir()))
	_, err = target.Stage(context.Background(), rel, ApplyOptions{})
	must(t, err)
	m, err := s.manifest(2)
	must(t, err)
	j := s.newJournal(jobCommit, 1, 2, m)
	must(t, s.stagedOps(context.Background(), 2, j))
	must(t, s.decide(j)) // and here the power fails
	must(t, os.Remove(dir+"/bin/tool"))
	must(t, os.WriteFile(dir+"/bin/tool", []byte("theirs"), 0o755))
	got, err := target.Recover(context.Background())
	if err == nil || len(got) != 1 || len(got[0].Conflicts) != 1 || got[0].Conflicts[0] != "bin/tool" {
		t.Errorf("recover: got %+v, %v, want a conflict at bin/tool", got, err)
	}
	want(t, dir, tree{"bin/tool": "theirs", "VERSION": "2", "lib/libx.so.1": "x 2"})
	left, _ := filepath.Glob(dir + "/*/" + tempPrefix + "*")
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestNewIsTaken: a release that has a file where its own version of a changed
// one would be laid is applied all the same, and so is a name too long for it.
func TestNewIsTaken(t *testing.T) {
	long := "etc/" + strings.Repeat("x", 253)
	config := "[[file]]\nmatch = \"etc/*\"\nkeep = true\n"
	release := func(n string) tree {
		return tree{"etc/conf": "conf " + n, "etc/conf.new": "new " + n, long: "long " + n, "moult.toml": config}
	}
	for _, layout := range []Layout{Owned, Shared} {
		dir := filepath.Join(t.TempDir(), "app")
		target := open(t, dir)
		apply(t, target, release("1"), ApplyOptions{Layout: layout})
		must(t, os.WriteFile(dir+"/etc/conf", []byte("mine"), 0o644))
		must(t, os.WriteFile(dir+"/"+long, []byte("mine"), 0o644))
		res := apply(t, target, release("2"), ApplyOptions{})
		if len(res.Warnings) != 2 {
			t.Errorf("%s: got %d warnings %q, want 2", layout, len(res.Warnings), res.Warnings)
		}
		want(t, dir, tree{"etc/conf": "mine", "etc/conf.new": "new 2", long: "mine"})
	}
}

// TestChangedLeftBehind: a file that the user has changed, as they may, and that
// the next release has no more, is not lost: its generation is named, and kept.
func TestChangedLeftBehind(t *testing.T) {
	for _, how := range []string{"gone", "kept no longer"} {
		t.Run(how, func(t *testing.T) {
			target := reuseTarget(t)
			keep := "[[file]]\nmatch = \"etc/*\"\nkeep = true\n"
			files := tree{"etc/conf": "one", "etc/other": "one", "version": "1", "moult.toml": keep}
			applyTo(t, target, files.write(t, t.TempDir()), few)
			must(t, os.Remove(target.abs("etc/conf")))
			must(t, os.WriteFile(target.abs("etc/conf"), []byte("mine"), 0o644))

			without := tree{"etc/other": "one", "version": "2", "moult.toml": keep}
			if how != "gone" {
				without = tree{"etc/conf": "two", "etc/other": "one", "version": "2", "moult.toml": strings.Replace(keep, "etc/*", "etc/other", 1)}
			}
			res := applyTo(t, target, without.write(t, t.TempDir()), few)
			if len(res.Warnings) != 1 || !strings.Contains(res.Warnings[0], "etc/conf was changed here") || !strings.Contains(res.Warnings[0], "generation 1") {
				t.Errorf("warnings: %q, want one that says where it is", res.Warnings)
			}
			for _, version := range []string{"3", "4", "5"} {
				without["version"] = version
				if res := applyTo(t, target, without.write(t, t.TempDir()), few); slices.Contains(res.Collected, 1) {
					t.Errorf("apply of %s collected %v, want 1 kept", version, res.Collected)
				}
			}
			all := GCOptions{Retention: Retention{Generations: -1, Unreadable: true}}
			c, err := target.GC(t.Context(), all)
			must(t, err)
			i := slices.IndexFunc(c.Kept, func(k Kept) bool { return k.Generation == 1 })
			if i < 0 || !strings.Contains(c.Kept[i].Why, "etc/conf") {
				t.Errorf("gc kept %+v, want 1, and why", c.Kept)
			}
			want(t, target.abs(".moult/generations/1"), tree{"etc/conf": "mine"})
			must(t, os.Remove(target.abs(".moult/generations/1/etc/conf"))) // copied away
			c, err = target.GC(t.Context(), all)
			must(t, err)
			if !slices.Contains(c.Collected, 1) {
				t.Errorf("gc collected %v, kept %+v; want 1 gone", c.Collected, c.Kept)
			}
		})
	}
}
