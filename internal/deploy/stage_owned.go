package deploy

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/release"
)

// stageOwned builds a complete tree beside the others: new files are copied,
// unchanged ones are hard links to the live generation's. Where a generation is
// left over, the tree is made of that.
func (b *stager) stageOwned(ctx context.Context) error {
	fsys := b.s.t.fs
	if err := b.reuse(ctx); err != nil {
		return err
	}
	for _, dir := range []string{b.dir, b.s.books(b.dir)} {
		if err := makeDir(fsys, dir); err != nil {
			return err
		}
	}
	// A worker has a directory for itself: the kernel locks it for each name, so
	// two would wait for each other.
	in := map[string][]int{} // what to place, by directory
	self := map[string]*step{}
	var levels [][]*step // directories, by how deep they are
	var links []int
	for i := range b.steps {
		switch st := &b.steps[i]; {
		case st.e.Type == release.Dir:
			depth := strings.Count(st.e.Path, "/")
			for len(levels) <= depth {
				levels = append(levels, nil)
			}
			levels[depth] = append(levels[depth], st)
			self[st.e.Path] = st
		case st.e.HardLink != "" && st.act != actKeep:
			links = append(links, i)
		default:
			dir := parentOf(st.e.Path)
			in[dir] = append(in[dir], i)
		}
	}
	// Who is not root cannot make anything in a directory that he may not write to,
	// or go through.
	late := len(links) > 0 || os.Geteuid() != 0 && slices.ContainsFunc(b.steps, func(st step) bool {
		return st.e.Type == release.Dir && st.e.Mode&0o700 != 0o700
	})
	dirs := []string{"."}
	for _, level := range levels {
		for _, dir := range level {
			if !dir.stays {
				delete(b.as, parentOf(dir.e.Path))
			}
			dirs = append(dirs, dir.e.Path)
		}
		err := parallelBy(ctx, len(level), 1, func(i int) error {
			if level[i].stays {
				return nil
			}
			return fsys.Mkdir(b.dir + "/" + level[i].e.Path)
		})
		if err != nil {
			return err
		}
	}
	err := parallelBy(ctx, len(dirs), 1, func(k int) error {
		as := b.as[dirs[k]]
		for _, i := range in[dirs[k]] {
			st := &b.steps[i]
			if st.stays {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := b.placeOwned(st); err != nil {
				return err
			}
			as = false
		}
		if st := self[dirs[k]]; st != nil && !as && !late { // nothing is added to it any more
			return fsys.SetMeta(b.dir+"/"+dirs[k], b.metaOf(st))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, i := range links {
		st := &b.steps[i]
		if err := fsys.Link(b.dir+"/"+st.e.HardLink, b.dir+"/"+st.e.Path); err != nil {
			return err
		}
		if first := b.m.Find(st.e.HardLink); st.e.Digest.IsZero() && first != nil {
			st.e.Digest = first.Digest
		}
	}
	if _, err := b.s.linkBack(b.dir, b.m, b.adopt); err != nil {
		return err
	}
	if err := b.writeBooks(); err != nil {
		return err
	}
	if !late {
		return fsys.SetMeta(b.dir, disk.Meta{UID: -1, GID: -1, Mode: 0o755})
	}
	return b.finishDirs()
}

// placeOwned makes one file or symbolic link of the new tree.
func (b *stager) placeOwned(st *step) error {
	name := b.dir + "/" + st.e.Path
	fsys := b.s.t.fs
	if st.act == actKeep {
		return b.carryOver(st, name)
	}
	if st.act == actLink {
		err := fsys.Link(b.s.file(genDir(b.live)+"/"+st.e.Path), name)
		if err == nil {
			return nil
		}
		// Too many links (EMLINK: 65,000 on ext4), or not allowed to link to
		// another user's file (fs.protected_hardlinks): a copy is as good.
		if !errors.Is(err, unix.EMLINK) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EXDEV) && st.e.Type == release.File {
			return err
		}
	}
	if st.e.Type == release.Symlink { // not every file system gives one a second name
		if err := fsys.Symlink(st.e.Text, name); err != nil {
			return err
		}
		return fsys.SetMeta(name, b.metaOf(st))
	}
	return b.copyFile(st, name)
}

// carryOver takes the user's version of a file into the new generation, as it
// is, and lays the release's version beside it if that is new.
func (b *stager) carryOver(st *step, name string) error {
	if st.found != nil {
		from := st.e.Path // what is adopted has no generation yet
		if b.live != noGeneration {
			from = b.s.file(genDir(b.live) + "/" + st.e.Path)
		}
		if err := copyFound(b.s.t, from, name, st.found); err != nil {
			return err
		}
	}
	if st.besideMe {
		return b.copyFile(st, name+newSuffix)
	}
	return nil
}

// copyFound copies a file or link of the target itself, with all it carries.
func copyFound(t *Target, from, to string, found *release.Entry) error {
	m := meta(found, atoi(found.Owner), atoi(found.Group))
	if found.Type == release.Symlink {
		if err := t.fs.Symlink(found.Text, to); err != nil {
			return err
		}
		return t.fs.SetMeta(to, m)
	}
	src, err := os.OpenFile(t.abs(from), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := t.fs.Create(to)
	if err != nil {
		return err
	}
	if err = f.CopyFrom(src, found.Size); err == nil {
		err = f.SetMeta(m)
	}
	return errors.Join(err, f.Close())
}

// finishDirs gives the directories their metadata, from the leaves up: adding
// a name changes a directory's time.
func (b *stager) finishDirs() error {
	fsys := b.s.t.fs
	for i := len(b.steps) - 1; i >= 0; i-- {
		if st := &b.steps[i]; st.e.Type == release.Dir {
			if err := fsys.SetMeta(b.dir+"/"+st.e.Path, b.metaOf(st)); err != nil {
				return err
			}
		}
	}
	return fsys.SetMeta(b.dir, disk.Meta{UID: -1, GID: -1, Mode: 0o755, MTime: time.Time{}})
}

// ownText is what the links in the target's directory hold. Only a link with
// exactly this text is ever taken for ours.
func ownText(name string) string { return dotMoult + "/live/" + name }

// backText is what the links in a generation hold that lead back to what the
// administrator has in the target's directory.
func backText(name string) string { return "../../../" + name }

// isLink says whether path is a symbolic link with exactly that text.
func isLink(path, text string) bool {
	got, err := os.Readlink(path)
	return err == nil && got == text
}

// strangers lists what is in the target's directory and not of moult's making.
func (t *Target) strangers() ([]string, error) {
	entries, err := os.ReadDir(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if name := e.Name(); name != dotMoult && !isLink(t.abs(name), ownText(name)) {
			names = append(names, name)
		}
	}
	return names, nil
}

// linkBack makes the links of a generation that lead back to the
// administrator's entries, so that bin/../etc is still there, and removes those
// whose entry has gone. dir is the generation's directory.
func (s *state) linkBack(dir string, m *release.Manifest, adopt []string) (changed bool, err error) {
	names, err := s.t.strangers()
	if err != nil {
		return changed, err
	}
	want := map[string]bool{}
	for _, name := range names {
		if m.Find(name) == nil && !contains(adopt, name) {
			want[name] = true
		}
	}
	have, err := os.ReadDir(s.t.abs(dir))
	if err != nil {
		return changed, err
	}
	for _, e := range have {
		name := e.Name()
		if !isLink(s.t.abs(dir+"/"+name), backText(name)) || m.Find(name) != nil {
			continue
		}
		if want[name] {
			delete(want, name)
			continue
		}
		if err := s.t.fs.Remove(dir + "/" + name); err != nil {
			return changed, err
		}
		changed = true
	}
	for name := range want {
		if err := s.t.fs.Symlink(backText(name), dir+"/"+name); err != nil && !errors.Is(err, fs.ErrExist) {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}
