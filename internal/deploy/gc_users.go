package deploy

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"moult.example/internal/disk"
	"moult.example/internal/stale"
)

// usage says which of some generations have users.
type usage struct {
	of     []int
	report stale.Usage
	inv    map[int]*inventory // of those that may go
	views  map[int][]int      // processes that have a view of the generation, by moult exec or otherwise
	mounts []int              // generations that are mounted somewhere else
}

// usage looks for the users of these generations. In a shared target there are
// none: the old inodes are not reached by path, and unlinking one takes nothing
// from who maps it. Other generations need not be looked at: a mapping whose
// path leads into one of them is no use of these, whatever inodes they share.
//
// What is to be closed stays, so that of it no more is noted than who uses it.
//
// Who is not root, and even root on some virtual machines, may not look into
// process 1, so that each generation may be in use. With quick that is the
// answer, and nobody else is looked for.
func (s *state) usage(ctx context.Context, toGo, toClose []int, blind, quick bool) (u usage, err error) {
	ns := slices.Concat(toGo, toClose)
	if len(ns) == 0 || s.layout == Shared {
		return u, nil
	}
	u.of = ns
	if !blind && quick && s.initHidden() {
		u.report.Unreadable = []int{1}
		return u, nil
	}
	trees := make([]stale.Tree, len(ns))
	u.inv = make(map[int]*inventory, len(ns))
	for i, n := range ns {
		trees[i].Dir = s.abs(genDir(n))
		if i >= len(toGo) {
			if trees[i].Inodes, err = s.inodes(ctx, n); err != nil {
				return u, err
			}
			continue
		}
		inv, err := s.inventory(ctx, n)
		if err != nil {
			return u, err
		}
		u.inv[n], trees[i].Inodes = &inv, inv.inodes()
	}
	if u.report, err = stale.Users(ctx, stale.Options{Proc: s.t.opts.Proc}, trees); blind {
		u.report.Unreadable, u.report.Hidden = nil, false
	}
	if err == nil {
		u.views, err = s.viewers(ns)
	}
	if err == nil {
		u.mounts, err = s.mounted(ns)
	}
	return u, err
}

// initHidden says that process 1 may not be looked into.
func (s *state) initHidden() bool {
	_, err := os.Readlink(s.t.opts.Proc + "/1/cwd")
	return errors.Is(err, fs.ErrPermission)
}

// by says that a generation has users, or may have, and which.
func (u usage) by(n int) (k Kept, ok bool) {
	i := slices.Index(u.of, n)
	if i >= 0 && slices.Contains(u.mounts, n) {
		return Kept{Generation: n, Why: "mounted somewhere else, or something in it, see findmnt(8)"}, true
	}
	if i < 0 || !u.report.InUse(i) && len(u.views[n]) == 0 {
		return k, false
	}
	k = Kept{Generation: n, Why: "in use", PIDs: slices.Clone(u.views[n])}
	for _, user := range u.report.Of(i) {
		k.PIDs = append(k.PIDs, user.PID)
	}
	slices.Sort(k.PIDs)
	k.PIDs = slices.Compact(k.PIDs)
	if len(k.PIDs) == 0 {
		k.Why, k.PIDs = "a process that may not be looked into may use it", u.report.Unreadable
	}
	return k, true
}

// closable are the retired generations, of those that are kept, that are still
// open to everybody.
func (s *state) closable(kept []Kept) (ns []int, err error) {
	if s.layout != Owned {
		return nil, nil // objects/ is 0700
	}
	retired, err := s.retiredAt()
	if err != nil {
		return nil, err
	}
	all, err := s.generations()
	if err != nil {
		return nil, err
	}
	for _, k := range kept {
		n := k.Generation
		if k.Why != "retention" && k.Why != "pinned" && k.Why != "previous" && k.Why != whySpare || s.recent(retired[n], all) {
			continue
		}
		if st, err := os.Lstat(s.abs(genDir(n))); err == nil && st.Mode().Perm() != 0o700 {
			ns = append(ns, n)
		}
	}
	return ns, nil
}

// closeRetired takes retired generations that nothing uses out of reach: an old
// set-user-id program must not stay there for everybody to start.
func (s *state) closeRetired(ns []int, used usage) error {
	for _, n := range ns {
		if _, ok := used.by(n); ok {
			continue
		}
		if err := s.t.fs.SetMeta(s.file(genDir(n)), disk.Meta{UID: -1, GID: -1, Mode: 0o700}); err != nil {
			return err
		}
	}
	return nil
}
