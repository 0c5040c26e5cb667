package deploy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/release"
)

// TestRunAgain: who applies a release once more whose hook after the commit has
// failed gets the hook run once more, until it succeeds.
func TestRunAgain(t *testing.T) {
	target := reuseTarget(t)
	told := filepath.Join(t.TempDir(), "told")
	src := tree{"bin/x": "1", "moult.toml": "[hooks]\nafter = \"echo $MOULT_FROM-$MOULT_GENERATION >> " + told + "; test -e " + told + ".ok\"\n"}.write(t, t.TempDir())
	apply := func() (Result, error) {
		rel, err := release.Open(context.Background(), src, release.Options{})
		must(t, err)
		defer rel.Close()
		return target.Apply(context.Background(), rel, ApplyOptions{})
	}
	for _, want := range []bool{false, true} {
		if res, err := apply(); !errors.Is(err, ErrAfter) || res.Unchanged != want {
			t.Fatalf("got unchanged %v, %v; want %v and a hook that failed", res.Unchanged, err, want)
		}
	}
	if st, err := status(target); err != nil || st.AfterFailed == "" {
		t.Errorf("status: got %q, %v; want what has failed", st.AfterFailed, err)
	}
	must(t, os.WriteFile(told+".ok", nil, 0o644))
	if res, err := apply(); err != nil || len(res.Warnings) != 1 {
		t.Errorf("got %q, %v; want that it was run again", res.Warnings, err)
	}
	if res, err := apply(); err != nil || len(res.Warnings) != 0 {
		t.Errorf("got %q, %v; want nothing more to do", res.Warnings, err)
	}
	if st, err := status(target); err != nil || st.AfterFailed != "" || st.Since.IsZero() {
		t.Errorf("status: got %q since %v, %v; want nothing that has failed", st.AfterFailed, st.Since, err)
	}
	text, err := os.ReadFile(told)
	if want := strings.Repeat("-1-1\n", 3); err != nil || string(text) != want {
		t.Errorf("the hook was run as %q, %v; want %q", text, err, want)
	}
}

// TestFirstComesToNothing: a first release that its own hook refuses leaves
// nothing behind.
func TestFirstComesToNothing(t *testing.T) {
	for _, layout := range []Layout{Owned, Shared} {
		for _, there := range []bool{false, true} {
			base := t.TempDir()
			if there {
				must(t, os.Mkdir(base+"/app", 0o755))
			}
			target, err := Open(base+"/app", crashOptions(base, quiet))
			must(t, err)
			src := tree{"bin/x": "1", "moult.toml": "[hooks]\nbefore = \"echo not today; exit 7\"\n"}.write(t, base+"/src")
			rel, err := release.Open(context.Background(), src, release.Options{})
			must(t, err)
			_, err = target.Apply(context.Background(), rel, ApplyOptions{Layout: layout})
			rel.Close()
			if err == nil || !strings.Contains(err.Error(), "not today") || errors.Is(err, ErrUnfinished) {
				t.Errorf("%s: got %v, want a refusal with the hook's words", layout, err)
			}
			entries, err := os.ReadDir(base + "/app")
			if there != (err == nil) || len(entries) > 0 {
				t.Errorf("%s, there before %v: got %v, %v; want nothing", layout, there, entries, err)
			}
			if registered(base+"/state", base+"/app") {
				t.Errorf("%s: it is registered", layout)
			}
			target.Close()
		}
	}
}

// TestCommitAgain: to commit what is live already is no error.
func TestCommitAgain(t *testing.T) {
	target := reuseTarget(t)
	if _, err := target.Commit(context.Background(), CommitOptions{}); !errors.Is(err, ErrNoGeneration) && !errors.Is(err, ErrNoTarget) {
		t.Errorf("with nothing staged or live got %v, want an error", err)
	}
	applyTo(t, target, tree{"x": "1"}.write(t, t.TempDir()), ApplyOptions{})
	if res, err := target.Commit(context.Background(), CommitOptions{}); err != nil || !res.Unchanged || res.Generation != 1 || res.Release == "" {
		t.Errorf("got %+v, %v; want generation 1 unchanged", res, err)
	}
	if _, err := target.Commit(context.Background(), CommitOptions{Generation: 7}); !errors.Is(err, ErrNoGeneration) {
		t.Errorf("of 7 got %v, want no such generation", err)
	}
}

// TestRootDirectory: nobody makes a target of / by a slip.
func TestRootDirectory(t *testing.T) {
	target := &Target{path: "/"}
	var refused *RefusedError
	if _, err := target.firstLayout(ApplyOptions{}); !errors.As(err, &refused) {
		t.Errorf("got %v, want a refusal", err)
	}
	if layout, err := target.firstLayout(ApplyOptions{Layout: Shared}); err != nil || layout != Shared {
		t.Errorf("got %v, %v; want shared, as was said", layout, err)
	}
}

// status is that of a target's only product.
func status(t *Target) (Status, error) {
	all, err := t.Status("")
	if err != nil || len(all) != 1 {
		return Status{}, errors.Join(err, errors.New("not one product"))
	}
	return all[0], nil
}

// TestDamagedBooks: a retired generation whose books cannot be read keeps nobody
// from what is healthy.
func TestDamagedBooks(t *testing.T) {
	for _, name := range []string{"info.json", "manifest"} {
		target := reuseTarget(t)
		for _, version := range []string{"1", "2", "3", "4"} {
			applyTo(t, target, tree{"x": version}.write(t, t.TempDir()), ApplyOptions{Retention: Retention{Generations: 9, Unreadable: true}})
		}
		must(t, os.WriteFile(target.abs(".moult/generations/2/.moult/"+name), nil, 0o644))
		target.manifests = nil // of another process
		st, err := status(target)
		if err != nil || len(st.Generations) != 4 || st.Generations[1].State != "damaged" || st.Generations[1].Damage == "" {
			t.Errorf("%s: status got %+v, %v", name, st, err)
		}
		c, err := target.GC(context.Background(), GCOptions{Retention: Retention{Generations: -1, Unreadable: true}})
		if err != nil || name == "manifest" && (len(c.Collected) != 1 || c.Collected[0] != 1) {
			t.Errorf("%s: gc got %+v, %v", name, c, err)
		}
		applyTo(t, target, tree{"x": "5"}.write(t, t.TempDir()), few)
	}
}
