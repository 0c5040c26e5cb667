package deploy

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
)

// compareShared looks at what is at each path of the release, and decides what
// becomes of it.
func (p *plan) compareShared(ctx context.Context) error {
	p.resolveDirs()
	others, err := p.s.otherProducts()
	if err != nil {
		return err
	}
	err = parallel(ctx, len(p.steps), func(i int) error {
		st := &p.steps[i]
		if st.e.Type == release.Dir || st.is == "" {
			return nil
		}
		return p.comparePath(st, others)
	})
	if err != nil {
		return err
	}
	p.joinHardLinks()
	return nil
}

// resolveDirs finds where each directory of the release really is: one that the
// administrator has made a symbolic link stays one, and what is in it goes to
// where it leads, as long as that is in the target.
func (p *plan) resolveDirs() {
	real := map[string]string{".": "."}
	for i := range p.steps {
		st := &p.steps[i]
		parent, ok := real[parentOf(st.e.Path)]
		if !ok {
			st.is = "" // below something that is in the way; reported there
			continue
		}
		st.is = join(parent, filepath.Base(st.e.Path))
		if st.e.Type != release.Dir {
			continue
		}
		found, _, err := lstat(p.s.t.abs(st.is))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			real[st.e.Path] = st.is
		case err != nil:
			p.problem(st.is, err.Error(), "")
		case found.Type == release.Dir:
			st.found, st.act = &found, actLink
			real[st.e.Path] = st.is
		case found.Type == release.Symlink:
			if at, why := p.s.t.follow(st.is); why != "" {
				p.problem(st.is, why, "")
			} else {
				st.found, st.act, st.is = &found, actLink, at
				real[st.e.Path] = at
			}
		default:
			p.problem(st.is, "is a directory in the release and a file on the target", "moult does not turn one into the other in a shared target: move it away first")
		}
	}
}

func join(dir, base string) string {
	if dir == "." {
		return base
	}
	return dir + "/" + base
}

// follow resolves a symbolic link to a directory inside the target.
func (t *Target) follow(name string) (at, why string) {
	real, err := filepath.EvalSymlinks(t.abs(name))
	if err != nil {
		return "", "is a symbolic link that leads nowhere"
	}
	at, ok := strings.CutPrefix(real, strings.TrimSuffix(t.path, "/")+"/")
	if !ok {
		return "", "is a symbolic link that leads out of the target, to " + Path(real).Quoted()
	}
	if found, _, err := lstat(real); err != nil || found.Type != release.Dir {
		return "", "is a symbolic link to something that is not a directory"
	}
	return at, ""
}

// resolvePath finds where a path of a release is in the target: its directory
// may be, or lie behind, a symbolic link of the administrator's.
func (t *Target) resolvePath(path string) (at, why string) {
	dir := parentOf(path)
	if dir == "." || !exists(t.abs(dir)) {
		return path, ""
	}
	real, err := filepath.EvalSymlinks(t.abs(dir))
	if err == nil && real == t.abs(dir) {
		return path, ""
	}
	if dir, why = t.follow(dir); why != "" {
		return "", why
	}
	return join(dir, filepath.Base(path)), ""
}

// places are where the files and links of a release are in the target.
func (t *Target) places(m *release.Manifest) map[string]bool {
	dirs := map[string]string{} // directory of the release → in the target, "" for none
	at := map[string]bool{}
	for i := range m.Entries {
		e := &m.Entries[i]
		if e.Type == release.Dir {
			continue
		}
		dir := parentOf(e.Path)
		real, known := dirs[dir]
		if !known {
			if path, why := t.resolvePath(e.Path); why == "" {
				real = parentOf(path)
			}
			dirs[dir] = real
		}
		if real != "" {
			at[join(real, filepath.Base(e.Path))] = true
		}
	}
	return at
}

// otherProducts maps what other products of the target have placed to their
// names.
func (s *state) otherProducts() (map[string]string, error) {
	names, err := s.t.names()
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	taken := map[string]string{}
	for _, name := range names {
		if name == s.name {
			continue
		}
		other := &state{t: s.t, layout: Shared, name: name, dir: dotMoult + "/" + name}
		live, err := other.live()
		if err != nil {
			return nil, err
		}
		if live == noGeneration {
			continue
		}
		m, err := other.manifest(live)
		if err != nil {
			return nil, err
		}
		for at := range s.t.places(m) {
			taken[at] = name
		}
	}
	return taken, nil
}

func placedBy(product string) string {
	return "belongs to " + product + ", which has placed it in this target"
}

// comparePath decides for one file or symbolic link.
func (p *plan) comparePath(st *step, others map[string]string) error {
	if name := others[st.is]; name != "" {
		p.problem(st.is, placedBy(name), "")
		return nil
	}
	found, err := find(p.s.t.abs(st.is), st.is, p.cache)
	if errors.Is(err, fs.ErrNotExist) {
		return p.compareMissing(st)
	}
	if err != nil {
		return err
	}
	st.found = &found
	var was *release.Entry
	if p.liveM != nil {
		was = p.liveM.Find(st.e.Path)
	}
	switch {
	case found.Type == release.Dir:
		p.problem(st.is, "is a file in the release and a directory on the target", "moult does not turn one into the other in a shared target: move it away first")
		return nil
	case found.Type == entryTypeOther:
		p.problem(st.is, "is neither a file nor a symbolic link on the target", "move it away")
		return nil
	case found.Type == release.Symlink && st.e.Type == release.File && (was == nil || was.Type != release.Symlink):
		p.problem(st.is, "is a symbolic link that this product did not make, to "+Path(found.Text).Quoted(), "remove the link, or leave the file out with exclude in moult.toml")
		return nil
	}
	st.why = differs(st.e, st.uid, st.gid, &found, p.opts.Times || p.m.Times)
	if st.why == "" {
		st.act = actLink
		return nil
	}
	return p.compareChanged(st, was, &found)
}

// compareChanged tells a user's change from one of the release.
func (p *plan) compareChanged(st *step, was, found *release.Entry) error {
	if was == nil {
		if st.e.Keep {
			return p.keepTheirs(st, &release.Entry{}, found)
		}
		return nil
	}
	uid, gid, err := ownersOf(p.liveInfo).of(was)
	if err != nil {
		return err
	}
	damage := differs(was, uid, gid, found, false)
	switch {
	case damage == "":
	case st.e.Keep:
		return p.keepTheirs(st, was, found)
	case was.Keep:
		p.keepNoLonger(st)
	case differs(st.e, st.uid, st.gid, ptr(fixOwners(*was, uid, gid)), false) == "":
		st.why = "damaged: " + damage
		p.mend(st.is)
	}
	return nil
}

func ptr[T any](v T) *T { return &v }

// compareMissing: a file that the user may change, and has removed, stays away.
func (p *plan) compareMissing(st *step) error {
	st.why = "new"
	if p.liveM == nil {
		return nil
	}
	was := p.liveM.Find(st.e.Path)
	if was == nil {
		return nil
	}
	if st.e.Keep && was.Keep {
		return p.keepTheirs(st, was, &release.Entry{})
	}
	st.why = "missing"
	p.mend(st.is)
	return nil
}

// joinHardLinks replaces groups of hard links as a whole: where one of a group
// has to be, and where the files are not the inodes that the release wants.
func (p *plan) joinHardLinks() {
	wrong := p.s.misgrouped(p.m)
	torn := map[string]bool{} // groups of which a part is replaced
	group := func(st *step) string { return cmp.Or(st.e.HardLink, st.e.Path) }
	for i := range p.steps {
		st := &p.steps[i]
		if st.e.Type == release.File && (wrong[st.is] || st.act != actLink) {
			torn[group(st)] = true
		}
	}
	for i := range p.steps {
		if st := &p.steps[i]; st.e.Type == release.File && st.act == actLink && torn[group(st)] {
			st.act, st.why = actCopy, "hard links"
		}
	}
}

// misgrouped are the places of a release's files whose hard links are not as it
// wants them: a group that is several inodes, or one inode that is several
// groups.
func (s *state) misgrouped(m *release.Manifest) map[string]bool {
	type inode struct{ dev, ino uint64 }
	groupOf := map[inode]map[string][]string{} // inode → group → places
	inodesOf := map[string]map[inode]bool{}
	placesOf := map[string][]string{}
	for i := range m.Entries {
		e := &m.Entries[i]
		at, why := s.t.resolvePath(e.Path)
		var st unix.Stat_t
		if e.Type != release.File || why != "" {
			continue
		}
		group, id := cmp.Or(e.HardLink, e.Path), inode{}
		if unix.Lstat(s.t.abs(at), &st) == nil {
			id = inode{st.Dev, st.Ino}
		} else {
			id.ino = -uint64(i) - 1 // missing is an inode of its own
		}
		if groupOf[id] == nil {
			groupOf[id] = map[string][]string{}
		}
		groupOf[id][group] = append(groupOf[id][group], at)
		if inodesOf[group] == nil {
			inodesOf[group] = map[inode]bool{}
		}
		inodesOf[group][id] = true
		placesOf[group] = append(placesOf[group], at)
	}
	wrong := map[string]bool{}
	for _, groups := range groupOf {
		if len(groups) > 1 {
			for _, places := range groups {
				for _, at := range places {
					wrong[at] = true
				}
			}
		}
	}
	for group, inodes := range inodesOf {
		if len(inodes) > 1 {
			for _, at := range placesOf[group] {
				wrong[at] = true
			}
		}
	}
	return wrong
}

// keepName is where what was at a path lies, for the way back: below objects,
// under a digest of the path and of all that the file carries.
func (s *state) keepName(path string, e *release.Entry) string {
	j := toJSON(e)
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%s %o %s %s %d %s %s", path, j.Type, j.Mode, j.Owner, j.Group, j.Size, j.Digest, j.Text)
	for _, name := range sortedKeys(e.Xattrs) {
		fmt.Fprintf(h, "\x00%s=%s", name, e.Xattrs[name])
	}
	return s.file("objects/" + hex.EncodeToString(h.Sum(nil)[:16]))
}
