package deploy

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/release"
	"moult.example/internal/stale"
)

// A generation of five thousand files takes five thousand calls of link(2), and
// the one that retention gives up as many of unlink(2), though two releases
// differ in ten. So the newest generation that retention does not ask for is
// left by the collection after a commit, and the next stage is made of it: what
// is the same inode in the live generation stays as it is.
//
// It is no generation any more from the moment on at which it gets the name of
// a stage, and recovery removes a stage that was cut short.

// reuse makes the stage directory of a generation that nobody needs and nobody
// uses, if there is one. What speaks against one is no error: then the stage
// begins with nothing.
func (b *stager) reuse(ctx context.Context) error {
	s := b.s
	n, inv := b.spare(ctx)
	if n == noGeneration {
		return nil
	}
	if err := s.t.fs.SetMeta(s.file(genDir(n)), disk.Meta{UID: -1, GID: -1, Mode: 0o700}); err != nil {
		return err
	}
	if ok, err := s.hide(ctx, n, stageDir(b.n), inv); err != nil || !ok {
		b.beginAnew()
		return errors.Join(err, s.t.fs.SetMeta(s.file(genDir(n)), disk.Meta{UID: -1, GID: -1, Mode: inv.root.Mode & 0o7777}))
	}
	b.of = n
	return b.clear(inv.items)
}

// spare finds the generation to reuse, and what is in it, and notes what of that
// stays.
func (b *stager) spare(ctx context.Context) (int, *inventory) {
	s, r := b.s, b.opts.Retention
	if b.live == noGeneration || !r.mayReuse() {
		return noGeneration, nil
	}
	c := Collection{}
	ns, err := s.candidates(r, &c)
	if err != nil || len(ns) == 0 {
		return noGeneration, nil
	}
	n := ns[len(ns)-1]
	open, err := s.closable(c.Kept)
	if err != nil {
		return noGeneration, nil
	}
	used, err := s.usage(ctx, []int{n}, open, r.Unreadable, true)
	if err != nil || s.closeRetired(open, used) != nil {
		return noGeneration, nil
	}
	b.closed = true
	if _, ok := used.by(n); ok {
		return noGeneration, nil
	}
	inv := used.inv[n]
	text, err := readBook(s.abs(s.books(genDir(n)) + "/manifest"))
	if err != nil {
		return noGeneration, nil
	}
	m, err := release.ReadText(text)
	if err != nil || !inv.allOurs() || !b.fitsRoot(inv) || b.compareSpare(ctx, inv) != nil || s.obstacle(inv, m) != "" {
		b.beginAnew()
		return noGeneration, nil
	}
	return n, inv
}

// beginAnew forgets what was noted to stay.
func (b *stager) beginAnew() {
	b.as = nil
	for i := range b.steps {
		b.steps[i].stays = false
	}
}

// allOurs says that the directories are ours to give modes to.
func (inv *inventory) allOurs() bool {
	self := os.Geteuid()
	return self == 0 || int(inv.root.Uid) == self && !slices.ContainsFunc(inv.items, func(it item) bool {
		return it.isDir() && int(it.stat.Uid) != self
	})
}

// fitsRoot says that the directory itself is as one that we would make beside the
// live one: nobody has given it away, or hung something on it.
func (b *stager) fitsRoot(inv *inventory) bool {
	var live unix.Stat_t
	has, err := xattrs(b.s.t.abs(inv.name), release.Dir)
	return err == nil && len(has) == 0 && int(inv.root.Uid) == os.Geteuid() &&
		unix.Lstat(b.s.abs(genDir(b.live)), &live) == nil && live.Gid == inv.root.Gid
}

// mayReuse says that a generation may be kept for the next one to be made of.
func (r Retention) mayReuse() bool { return r.Generations >= 0 && r.Bytes == 0 }

// hide takes a generation's name away from it, if a second look finds no process
// that came by that name in the meantime, one in the middle of an execve(2), which
// the first look cannot see, and nothing that somebody has put there since.
func (s *state) hide(ctx context.Context, n int, as string, inv *inventory) (bool, error) {
	if err := s.rename(genDir(n), as); err != nil {
		return false, err
	}
	report, err := stale.Users(ctx, stale.Options{Proc: s.t.opts.Proc}, []stale.Tree{{Dir: s.abs(as), Inodes: inv.inodes()}})
	views, err2 := s.viewers([]int{n}, as)
	mounts, err3 := s.mounted([]int{n}, as)
	if err = errors.Join(err, err2, err3); err == nil && len(report.Of(0)) == 0 && len(views[n])+len(mounts) == 0 && inv.isStill(s, as) {
		return true, nil
	}
	return false, errors.Join(err, s.t.fs.Place(s.file(as), s.file(genDir(n))))
}

// rename gives a generation that will be changed or removed another name, and
// makes that durable first: half a generation must never come back under its
// number.
func (s *state) rename(from, to string) error {
	if err := s.t.fs.Place(s.file(from), s.file(to)); err != nil {
		return err
	}
	err := s.t.fs.SyncDir(s.file("generations"))
	if err != nil {
		err = errors.Join(err, s.t.fs.Place(s.file(to), s.file(from)))
	}
	return err
}

// compareSpare notes what of a generation the new one will have as it is, and
// looks at the rest, which has to go.
func (b *stager) compareSpare(ctx context.Context, inv *inventory) error {
	want := make(map[string]*step, len(b.steps))
	for i := range b.steps {
		want[b.steps[i].e.Path] = &b.steps[i]
	}
	unfit, err := b.unfit(ctx, want, inv)
	if err != nil {
		return err
	}
	b.as = make(map[string]bool, 256)
	for i := range inv.items {
		it := &inv.items[i]
		if st := want[it.path]; b.stays(st, it) && !below(unfit, it.path) {
			st.stays, it.stays = true, true
			if it.isDir() && b.isAsWanted(st, it) {
				b.as[it.path] = true
			}
		}
	}
	for i := range inv.items {
		if it := &inv.items[i]; !it.stays {
			delete(b.as, parentOf(it.path))
		}
	}
	return inv.examine(ctx, b.s, func(it *item) bool { return !it.stays })
}

// clear removes from a stage directory what does not stay, deepest names first,
// after it has opened the directories to changes.
func (b *stager) clear(found []item) error {
	for i := range found {
		if it := &found[i]; it.isDir() {
			if err := openDir(b.s.t, b.dir+"/"+it.path, it.stat.Mode); err != nil {
				return err
			}
		}
	}
	for i := range slices.Backward(found) {
		if it := &found[i]; !it.stays {
			if err := b.s.t.fs.Remove(b.dir + "/" + it.path); err != nil {
				return err
			}
		}
	}
	return removeTree(b.s.t, b.s.books(b.dir))
}

// unfit are the directories that have to be made anew: with attributes that the
// new ones are not to have, which setting metadata does not take away.
func (b *stager) unfit(ctx context.Context, want map[string]*step, inv *inventory) (map[string]bool, error) {
	var mu sync.Mutex
	unfit := map[string]bool{}
	err := parallel(ctx, len(inv.items), func(i int) error {
		it := &inv.items[i]
		if !it.isDir() {
			return nil
		}
		st := want[it.path]
		if !b.stays(st, it) {
			return nil
		}
		has, err := xattrs(b.s.t.abs(inv.name+"/"+it.path), release.Dir)
		if err == nil && !maps.Equal(has, st.e.Xattrs) {
			mu.Lock()
			defer mu.Unlock()
			unfit[it.path] = true
		}
		return err
	})
	return unfit, err
}

// isAsWanted says of a directory that is not unfit that its metadata are what a
// step would set, as long as nothing in it changes.
func (b *stager) isAsWanted(st *step, it *item) bool {
	m := b.metaOf(st)
	return len(m.Xattrs) == len(st.e.Xattrs) && it.stat.Mode&0o7777 == m.Mode && m.Mode&0o700 == 0o700 && // else clear opens it
		owns(m.UID, it.stat.Uid, os.Geteuid()) && owns(m.GID, it.stat.Gid, os.Getegid()) &&
		(m.MTime.IsZero() || it.stat.MTime == m.MTime.UnixNano())
}

// below says that a path is one of dirs or leads through one.
func below(dirs map[string]bool, path string) bool {
	for ; len(dirs) > 0 && path != "."; path = parentOf(path) {
		if dirs[path] {
			return true
		}
	}
	return false
}

// stays says that what is at a step's path is what the step would make: a
// directory, whose metadata are set in any case, a name of the live generation's
// inode, or a symbolic link that is like the one.
func (b *stager) stays(st *step, it *item) bool {
	if st == nil {
		return false
	}
	switch {
	case st.e.Type == release.Dir:
		return it.isDir()
	case st.act != actLink || st.e.HardLink != "" || st.fixed:
		return false
	}
	if live, ok := b.liveStat(st); ok && live.Dev == it.stat.Dev && live.Ino == it.stat.Ino {
		return true
	}
	if st.e.Type != release.Symlink {
		return false
	}
	m := b.metaOf(st)
	return it.text == st.e.Text && owns(m.UID, it.stat.Uid, os.Geteuid()) && owns(m.GID, it.stat.Gid, os.Getegid()) &&
		len(m.Xattrs) == 0 && (m.MTime.IsZero() || it.stat.MTime == m.MTime.UnixNano())
}

// owns says that an owner is the wanted one; -1 stands for our own.
func owns(want int, id uint32, self int) bool {
	if want < 0 {
		want = self
	}
	return uint32(want) == id
}
