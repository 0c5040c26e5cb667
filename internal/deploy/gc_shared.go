package deploy

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// retiredAt is when each generation last ceased to be live, by the history.
func (s *state) retiredAt() (map[int]time.Time, error) {
	records, err := s.history()
	if err != nil {
		return nil, err
	}
	at := map[int]time.Time{}
	for _, r := range records {
		switch r.Job {
		case jobCommit, jobRollback, jobAdopt:
			at[r.From] = r.Time
			if r.Job == jobAdopt {
				at[0] = r.Time
			}
		}
	}
	return at, nil
}

// recent says that a generation that was retired at that moment may still have
// launches that nobody sees. Without a record of it, the last commit of all may
// have retired it. A moment that is to come tells of a clock that was set back;
// one that is days away, of a clock that was wrong.
func (s *state) recent(at time.Time, all []int) bool {
	if at.IsZero() {
		for _, n := range all {
			if st, err := os.Lstat(s.abs(s.books(genDir(n)) + "/committed")); err == nil && st.ModTime().After(at) {
				at = st.ModTime()
			}
		}
	}
	age := s.t.opts.Now().Sub(at)
	return age < s.t.opts.Grace && age > -24*time.Hour
}

func links(st os.FileInfo) uint64 { return uint64(st.Sys().(*syscall.Stat_t).Nlink) }

// removeDeferred removes the names that had to wait, now that no process maps
// them. One that somebody has changed meanwhile is theirs.
func (s *state) removeDeferred(ctx context.Context, c *Collection) error {
	ops, err := s.readDeferred()
	if err != nil || len(ops) == 0 {
		return err
	}
	now, wait, err := s.splitMapped(ctx, ops)
	if err != nil {
		return err
	}
	dirs := map[string]bool{s.file("objects"): true}
	for i := range now {
		o := &now[i]
		at, err := s.lookAt(o.Path)
		if err != nil {
			return err
		}
		if o.Kind == "remove" && at != nil && at.is(o.Old) {
			if err := s.keepOld(&journal{Ops: []op{*o}}); err != nil {
				return err
			}
			if err := s.doOp(o); err != nil {
				return err
			}
			c.Removed = append(c.Removed, o.Path)
		}
		if o.Kind == "rmdir" {
			if err := s.rmdir(o); err != nil {
				return err
			}
		}
		dirs[parentOf(string(o.Path))] = true
	}
	if len(now) == 0 {
		return nil
	}
	if err := s.syncDirs(dirs); err != nil {
		return err
	}
	if err := s.saveDeferred(wait); err != nil {
		return err
	}
	return s.t.fs.SyncDir(s.dir)
}

// dropObjects removes displaced files that no generation can come back to.
func (s *state) dropObjects(c *Collection) error {
	ns, err := s.generations()
	if err != nil {
		return err
	}
	wanted := map[string]bool{}
	for _, n := range ns {
		paths, err := s.readFound(n)
		if err != nil {
			return err
		}
		for _, f := range paths {
			wanted[string(f.Keep)] = true
		}
		m, err := s.manifest(n)
		if err != nil {
			return err
		}
		info, err := s.info(n)
		if err != nil {
			return err
		}
		who := ownersOf(info)
		for i := range m.Entries {
			e := &m.Entries[i]
			if uid, gid, err := who.of(e); err == nil {
				at, _ := s.t.resolvePath(e.Path)
				wanted[s.keepName(at, ptr(fixOwners(*e, uid, gid)))] = true
			}
		}
	}
	entries, err := os.ReadDir(s.abs("objects"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := s.file("objects/" + e.Name())
		if wanted[name] {
			continue
		}
		if st, err := e.Info(); err == nil && links(st) == 1 {
			c.FreedBytes += st.Size()
		}
		if err := s.t.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return s.t.fs.SyncDir(s.file("objects"))
}
