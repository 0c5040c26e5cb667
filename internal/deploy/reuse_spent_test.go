package deploy

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
	"moult.example/internal/release"
)

// TestReuseSpent: where a stage has taken an old generation apart and comes to
// nothing, the history says so, and not that a new one was made of it.
func TestReuseSpent(t *testing.T) {
	for name, c := range map[string]struct {
		op   func(op *disktest.Op) bool // fails
		hook string
	}{
		"stage": {op: func(op *disktest.Op) bool { return op.Kind == disktest.OpSyncFS }},
		"hook":  {hook: "exit 1"},
		"switch": {op: func(op *disktest.Op) bool {
			return op.Kind == disktest.OpRename && strings.HasSuffix(op.Name, "live.new")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			base, fails := t.TempDir(), false
			o := crashOptions(base, quiet)
			inner := o.Disk
			o.Disk = func(path string) (disk.FS, error) {
				under, err := inner(path)
				return disktest.Wrap(under, func(op *disktest.Op, do func() error) error {
					if fails && c.op != nil && c.op(op) {
						return unix.EIO
					}
					return do()
				}), err
			}
			target, err := Open(filepath.Join(base, "app"), o)
			must(t, err)
			defer target.Close()
			for _, version := range []string{"1", "2", "3"} {
				applyTo(t, target, tree{"version": version, "same": "same"}.write(t, t.TempDir()), few)
			}
			fails = true
			dir := tree{"version": "4", "same": "same"}.write(t, t.TempDir())
			if c.hook != "" {
				must(t, os.WriteFile(dir+"/moult.toml", []byte("[hooks]\nbefore = \""+c.hook+"\"\n"), 0o644))
			}
			rel, err := release.Open(t.Context(), dir, release.Options{})
			must(t, err)
			defer rel.Close()
			if _, err := target.Apply(t.Context(), rel, few); err == nil {
				t.Fatal("it did not fail")
			}
			records, err := target.History("")
			must(t, err)
			var notes []string
			for _, r := range records {
				if r.Job == "gc" {
					notes = append(notes, r.Note)
				}
			}
			if want := []string{"generation 1 was taken apart for one that has come to nothing"}; !slices.Equal(notes, want) {
				t.Errorf("the history says %q, want %q", notes, want)
			}
			if exists(target.abs(".moult/generations/1")) || exists(target.abs(".moult/generations/4")) {
				t.Error("one of the two is there")
			}
		})
	}
}
