package deploy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/testneed"
)

// TestNewerJournal: what a newer moult has decided is left to it, and nobody says
// that anything was recovered.
func TestNewerJournal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "app")
	target := open(t, dir)
	apply(t, target, v1, ApplyOptions{})
	journal := dir + "/.moult/journal"
	must(t, os.WriteFile(journal, []byte("moult-journal 9 0\n{}\n"), 0o644))
	if all, err := target.Recover(t.Context()); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), journal) || len(all) != 0 {
		t.Errorf("recover: got %+v, %v; want nothing, and whose it is", all, err)
	}
	_, err := target.Apply(t.Context(), openRelease(t, v2.write(t, t.TempDir())), ApplyOptions{})
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), journal) {
		t.Errorf("apply: got %v, want whose the journal is", err)
	}
	want(t, dir, tree{"bin/tool": "tool 1", "extra/new": gone})
}

// TestReadOnlyTarget: an update of a target that has become read-only is refused
// for that reason.
func TestReadOnlyTarget(t *testing.T) {
	testneed.Root(t)
	for _, layout := range []Layout{Owned, Shared} {
		base := t.TempDir()
		must(t, unix.Mount("none", base, "tmpfs", 0, "size=32m"))
		t.Cleanup(func() { must(t, unix.Unmount(base, unix.MNT_DETACH)) })
		dir := base + "/app"
		target := open(t, dir, func(o *Options) { o.StateDir = t.TempDir() })
		apply(t, target, v1, ApplyOptions{Layout: layout})
		must(t, unix.Mount("", base, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		var refused *RefusedError
		_, err := target.Apply(t.Context(), openRelease(t, v2.write(t, t.TempDir())), ApplyOptions{})
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), dir+" is mounted read-only") {
			t.Errorf("%s: got %v, want a refusal that says it is read-only", layout, err)
		}
		want(t, dir, tree{"bin/tool": "tool 1", "extra/new": gone})
	}
}
