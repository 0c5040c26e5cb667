package deploy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"moult.example/internal/testneed"
)

// TestForeignBooks: what another user can have written is not acted on: a
// journal of theirs, with a hook of theirs, would be run as root.
func TestForeignBooks(t *testing.T) {
	testneed.Root(t)
	dir := filepath.Join(t.TempDir(), "app")
	target := open(t, dir)
	apply(t, target, v1, ApplyOptions{})
	for name, spoil := range map[string]func() error{
		"owner": func() error { return os.Lchown(dir+"/.moult", 65534, 65534) },
		"mode":  func() error { return errors.Join(os.Lchown(dir+"/.moult", 0, 0), os.Chmod(dir+"/.moult", 0o775)) },
	} {
		must(t, spoil())
		var refused *RefusedError
		if _, err := target.Recover(context.Background()); !errors.As(err, &refused) {
			t.Errorf("%s: recover: got %v, want a refusal", name, err)
		}
		if _, err := target.GC(context.Background(), GCOptions{}); !errors.As(err, &refused) {
			t.Errorf("%s: gc: got %v, want a refusal", name, err)
		}
		rel := openRelease(t, v2.write(t, t.TempDir()))
		if _, err := target.Apply(context.Background(), rel, ApplyOptions{}); !errors.As(err, &refused) {
			t.Errorf("%s: apply: got %v, want a refusal", name, err)
		}
	}
	want(t, dir, tree{"VERSION": "1"})
}

// TestOwnerBeyond: the number that chown(2) takes for "leave it" is nobody's id,
// least of all root's.
func TestOwnerBeyond(t *testing.T) {
	for _, owner := range []string{"4294967295", "4294967296", "8589934592"} {
		dir := filepath.Join(t.TempDir(), "app")
		files := tree{"bin/s": "s", "moult.toml": "owner = \"" + owner + "\"\ngroup = \"" + owner + "\"\n[[file]]\nmatch = \"bin/s\"\nmode = \"6755\"\n"}
		o := Options{StateDir: filepath.Join(filepath.Dir(dir), "state")}
		target, err := Open(dir, o)
		must(t, err)
		rel := openRelease(t, files.write(t, t.TempDir()))
		if _, err := target.Apply(context.Background(), rel, ApplyOptions{}); err == nil {
			t.Errorf("owner %s: accepted", owner)
		}
		target.Close()
		want(t, dir, tree{"bin/s": gone})
	}
}
