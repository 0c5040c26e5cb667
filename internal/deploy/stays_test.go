package deploy

import (
	"context"
	"os"
	"path/filepath"
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
