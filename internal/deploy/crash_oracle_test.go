package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"moult.example/internal/disk/disktest"
)

// view is what people see in a target: every file behind every public name,
// with its type, mode and bytes.
func view(base string) (string, error) {
	var b strings.Builder
	top := filepath.Join(base, "app")
	names, err := os.ReadDir(top)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	for _, n := range names {
		if n.Name() == dotMoult {
			continue
		}
		path := filepath.Join(top, n.Name())
		if isLink(path, ownText(n.Name())) {
			real, err := filepath.EvalSymlinks(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // a name without a file is no name
			}
			if err != nil {
				return "", err
			}
			path = real
		}
		if err := viewBelow(&b, path, n.Name()); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

func viewBelow(b *strings.Builder, root, name string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if strings.HasPrefix(d.Name(), tempPrefix) {
			return nil // nobody's name; leftovers looks for them, after recovery
		}
		e, err := find(path, "", nil)
		if err != nil {
			return err
		}
		fmt.Fprintf(b, "%s%s %c %04o %s %s\n", name, path[len(root):], e.Type, e.Mode, e.Digest.Short(), e.Text)
		return nil
	})
}

// recovered brings a crashed target in order, and demands that a second time
// there is nothing to do.
func recovered(base string) error {
	again := func(t *Target) error {
		_, err := t.Recover(context.Background())
		if errors.Is(err, ErrNoTarget) {
			return nil
		}
		return err
	}
	if err := with(base, quiet, again); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	before, err := disktest.Capture(base)
	if err != nil {
		return err
	}
	if err := with(base, quiet, again); err != nil {
		return fmt.Errorf("second recover: %w", err)
	}
	after, err := disktest.Capture(base)
	if err != nil {
		return err
	}
	if diff := before.Diff(after); diff != "" {
		return fmt.Errorf("the second recover changed something:\n%s", diff)
	}
	return nil
}

// oracle is what must hold for every crash state of a job.
type oracle struct {
	before, after string
	always        bool // even before recovery: an owned target shows one release at every moment
}

func (o oracle) check(dir string, s disktest.State) error {
	if o.always {
		if got, err := view(dir); err != nil || got != o.before && got != o.after {
			return fmt.Errorf("before recovery neither the old release nor the new one: %v\n%s", err, got)
		}
	}
	if err := recovered(dir); err != nil {
		return err
	}
	got, err := view(dir)
	if err != nil {
		return err
	}
	switch {
	case got != o.before && got != o.after:
		return fmt.Errorf("neither the old release nor the new one:\n%s", got)
	case got != o.after && s.After("done"):
		return fmt.Errorf("success was reported, and then it was not there:\n%s", got)
	}
	if err := whole(dir); err != nil {
		return err
	}
	return leftovers(dir)
}

// whole demands that each generation of an owned target, not the live one
// alone, holds what its manifest says and nothing else.
func whole(dir string) error {
	return with(dir, quiet, func(t *Target) error {
		s, err := t.state("")
		if err != nil || s.layout != Owned {
			return nil // there is none yet, or not this kind
		}
		ns, err := s.generations()
		if err != nil {
			return err
		}
		for _, n := range ns {
			m, err := s.manifest(n)
			if err != nil {
				return err
			}
			inv, err := s.inventory(context.Background(), n)
			if err != nil {
				return err
			}
			if name, ok := inv.stranger(m); ok {
				return fmt.Errorf("generation %d holds %s, which its manifest does not name", n, name)
			}
			for i := range m.Entries {
				e := &m.Entries[i]
				got, err := find(s.abs(genDir(n)+"/"+e.Path), "", nil)
				if err != nil {
					return err
				}
				if got.Type != e.Type || got.Digest != e.Digest && e.HardLink == "" || got.Text != e.Text {
					return fmt.Errorf("generation %d: %s is not what its manifest says", n, e.Path)
				}
			}
		}
		return nil
	})
}

// leftovers demands that nothing temporary is left in the target.
func leftovers(dir string) error {
	return filepath.WalkDir(filepath.Join(dir, "app"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			return err
		}
		name := d.Name()
		if strings.HasPrefix(name, tempPrefix) || strings.HasPrefix(name, ".stage-") || strings.HasPrefix(name, ".trash-") || strings.HasPrefix(name, ".forget-") || name == "journal" {
			return fmt.Errorf("left behind: %s", path)
		}
		return nil
	})
}
