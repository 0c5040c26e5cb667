package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
)

// checkDisplaced refuses to remove what was at the paths of the release before
// moult.
func (s *state) checkDisplaced() error {
	ns, err := s.generations()
	if err != nil {
		return err
	}
	for _, n := range ns {
		m, err := s.manifest(n)
		if err != nil {
			return untold(n, err)
		}
		displaced, err := s.readFound(n)
		if err != nil {
			return untold(n, err)
		}
		own := s.t.places(m)
		maps.DeleteFunc(displaced, func(path string, f foundPath) bool { return own[path] || !exists(s.t.abs(string(f.Keep))) })
		if len(displaced) > 0 {
			path := sortedKeys(displaced)[0]
			return refuse(path, fmt.Sprintf("what was there before moult is kept for a rollback to %d, and would go (%d in all)", n, len(displaced)), fmt.Sprintf("roll back to %d, or --force", n))
		}
	}
	return nil
}

// checkForget refuses to remove what is nobody's but the user's: what was there
// before moult, and what others have put into generations.
func (s *state) checkForget(ctx context.Context, live int) error {
	ns, err := s.generations()
	if err != nil {
		return err
	}
	for _, n := range ns {
		if n == live {
			continue
		}
		info, err := s.info(n)
		if err != nil {
			return untold(n, err)
		}
		if info.Adopted {
			return refuse("", fmt.Sprintf("generation %d holds what was in %s before moult, which would go", n, s.t.path), "roll back to it, or copy it away and --force")
		}
		m, err := s.manifest(n)
		if err != nil {
			return untold(n, err)
		}
		inv, err := s.inventory(ctx, n)
		if err != nil {
			return err
		}
		if extra := extraOf(inv.items, m); len(extra) > 0 {
			return refuse(string(extra[0]), fmt.Sprintf("generation %d holds what no release has brought, which would go", n), "copy it away, then --force")
		}
		for i := range inv.items {
			if it := &inv.items[i]; it.shut {
				if why := s.lookInto(&inv, it); why != "" {
					return refuse(it.path, fmt.Sprintf("generation %d %s, which would go", n, why), "look what is in it, then --force")
				}
			}
		}
	}
	return nil
}

// joinRefusals makes one refusal of two, with the problems of both.
func joinRefusals(a, b error) error {
	first, ok1 := a.(*RefusedError)
	second, ok2 := b.(*RefusedError)
	if !ok1 || !ok2 {
		return errors.Join(a, b)
	}
	return &RefusedError{append(first.Problems, second.Problems...)}
}

// untold: without its books nobody knows whether a generation holds what is the
// user's.
func untold(n int, err error) error {
	return refuse("", fmt.Sprintf("generation %d is damaged, so whether it holds what no release has brought cannot be told: %v", n, err), "look what is in it, then --force")
}

// checkForgettable is for all that a forget takes away, but for what is in the
// directories of these names of the generation that stays: they move as they are.
func (s *state) checkForgettable(live int, stay []string) error {
	problems := fixedProblems(s.t.path)
	moved := map[string]bool{}
	for _, name := range stay {
		moved[s.abs(genDir(live)+"/"+name)] = true
	}
	root := s.abs(".")
	if names, err := s.t.names(); s.layout == Owned || err == nil && len(names) == 1 {
		root = s.t.abs(dotMoult) // the last one takes it all
	} else {
		problems = append(problems, fixedProblems(s.t.abs(dotMoult))...)
	}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil // its owner opens it when it goes
		}
		if err != nil {
			return err
		}
		problems = append(problems, fixedProblems(filepath.Clean(path))...)
		if d.IsDir() && moved[path] {
			return filepath.SkipDir
		}
		return nil
	})
	if err == nil && len(problems) > 0 {
		err = &RefusedError{problems}
	}
	return err
}
