package deploy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy/hostfacts"
	"moult.example/internal/release"
)

// preflight looks for all that would make the stage or the commit fail, before
// anything is changed. What it finds is in p.problems, together, so that nobody
// has to try ten times to learn of ten things.
func (p *plan) preflight(ctx context.Context) error {
	p.checkSource()
	p.checkClosed()
	dir := p.s.t.path
	if !exists(dir) {
		dir = filepath.Dir(dir)
	}
	if err := p.checkWritable(dir); err != nil {
		return err
	}
	if err := p.checkSpace(dir); err != nil {
		return err
	}
	if p.s.layout == Owned {
		if err := p.checkOwned(); err != nil {
			return err
		}
	} else if err := p.checkPlaces(); err != nil {
		return err
	}
	if err := p.askLabels(ctx); err != nil {
		return err
	}
	return p.checkPackages(ctx)
}

// checkSource refuses a target that the release would ship from the next time on.
func (p *plan) checkSource() {
	if p.rel.Ships(p.s.t.path) {
		p.problem("", p.s.t.path+" is inside of the release", "exclude it in moult.toml, or let the target lie elsewhere")
	}
}

// checkClosed refuses directories with something in them that their own owner may
// not enter or read: the next release could not be compared with what is there.
// Root may, and so can.
func (p *plan) checkClosed() {
	if os.Geteuid() == 0 {
		return
	}
	seen := map[string]bool{".": true}
	for i := range p.m.Entries {
		dir := parentOf(p.m.Entries[i].Path)
		if seen[dir] {
			continue
		}
		seen[dir] = true
		if e := p.m.Find(dir); e != nil && e.Mode&0o500 != 0o500 {
			p.problem(dir, fmt.Sprintf("is closed to its owner (mode %04o) and has something in it: only root could replace that again", e.Mode), "give it another mode in moult.toml, or run moult as root")
		}
	}
}

func (p *plan) checkWritable(dir string) error {
	if readOnly, err := hostfacts.ReadOnly(dir); err != nil {
		return err
	} else if readOnly {
		p.problem("", dir+" is mounted read-only", "mount it read-write")
		return nil
	}
	if err := unix.Faccessat(unix.AT_FDCWD, dir, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		p.problem("", fmt.Sprintf("%s may not be written to: %v", dir, err), "run moult as its owner or as root")
		return nil
	}
	for _, d := range []string{dir, filepath.Join(p.s.t.path, dotMoult)} {
		if why := unchangeable(d); why != "" {
			p.problem("", d+" "+why, "chattr -ia "+d)
		}
	}
	return nil
}

// unchangeable says that a file or directory has an attribute against which not
// even root can change it.
func unchangeable(path string) string {
	flags, err := hostfacts.FileFlags(path)
	switch {
	case err != nil:
		return "" // not there, or cannot have any
	case flags.Immutable:
		return "is immutable (chattr +i)"
	case flags.AppendOnly:
		return "is append-only (chattr +a)"
	}
	return ""
}

// spare is what has to be free beside the release itself: our books, the
// directories, and the file system's own.
const spare = 4 << 20

func (p *plan) checkSpace(dir string) error {
	bytes, inodes := p.need()
	if bytes == 0 && inodes == 0 {
		return nil
	}
	space, err := hostfacts.FreeSpace(dir)
	if err != nil {
		return err
	}
	if need := uint64(bytes) + spare; need > space.Bytes {
		p.problem("", fmt.Sprintf("%d MB needed in %s, %d MB free", need>>20, dir, space.Bytes>>20), p.spaceHint())
	}
	if need := uint64(inodes) + 16; need > space.Inodes {
		p.problem("", fmt.Sprintf("%d inodes needed in %s, %d free", need, dir, space.Inodes), p.spaceHint())
	}
	return nil
}

func (p *plan) spaceHint() string {
	if p.live == noGeneration {
		return ""
	}
	return "moult gc " + p.s.t.path + " removes generations that nobody needs"
}

// checkOwned is for what stands in the way in the target's own directory.
func (p *plan) checkOwned() error {
	if err := p.s.checkMounts(); err != nil {
		return p.absorb(err)
	}
	if err := p.s.checkTopNames(p.m, p.adopt); err != nil {
		return p.absorb(err)
	}
	if len(p.adopt) > 0 {
		p.warnOfProfiles()
	}
	for _, name := range p.adopt {
		mounts, err := hostfacts.MountsBelow(p.s.t.abs(name))
		if err != nil {
			return err
		}
		for _, m := range mounts {
			p.problem(name, "has a mount in it, at "+Path(m.Point).Quoted(), "unmount it, or leave the target shared")
		}
		if why := unchangeable(p.s.t.abs(name)); why != "" {
			p.problem(name, why, "chattr -ia "+p.s.t.abs(name))
		}
	}
	return nil
}

// warnOfProfiles: AppArmor goes by paths, and adoption changes them.
func (p *plan) warnOfProfiles() {
	profiles, err := hostfacts.AppArmorProfiles(p.s.t.opts.Facts, p.s.t.path)
	if err != nil {
		p.warn("which AppArmor profiles name %s could not be found out: %v", p.s.t.path, err)
	}
	for _, f := range profiles {
		p.warn("%s:%d names the target (%s): programs will have paths below %s/generations", f.File, f.Line, f.Text, p.s.t.abs(dotMoult))
	}
}

// absorb adds the problems of a refusal to those of the plan.
func (p *plan) absorb(err error) error {
	if refused, ok := err.(*RefusedError); ok {
		p.problems = append(p.problems, refused.Problems...)
		return nil
	}
	return err
}

// checkPlaces is for what stands in the way at the places where a shared target
// gets its files.
func (p *plan) checkPlaces() error {
	if !exists(p.s.t.path) {
		return nil
	}
	mounts, err := hostfacts.MountsBelow(p.s.t.path)
	if err != nil {
		return err
	}
	dirs := map[string]bool{}
	for i := range p.steps {
		st := &p.steps[i]
		if st.act != actCopy || st.is == "" {
			continue
		}
		p.checkPlace(st, mounts, dirs)
	}
	for _, e := range p.removed {
		if why := unchangeable(p.s.t.abs(e.Path)); why != "" && e.Type != release.Symlink {
			p.problem(e.Path, why, "chattr -ia "+p.s.t.abs(e.Path))
		}
	}
	p.problems = append(p.problems, p.s.t.hiddenProblems(mounts, slices.Values(p.removed))...)
	return nil
}

func (p *plan) checkPlace(st *step, mounts []hostfacts.Mount, dirs map[string]bool) {
	path := p.s.t.abs(st.is)
	for _, m := range mounts {
		if m.Point == p.s.t.path {
			continue
		}
		if m.Point == path {
			p.problem(st.is, "is a mount point", "a bind-mounted file cannot be replaced: mount its directory instead")
			return
		}
		if strings.HasPrefix(path, m.Point+"/") {
			p.problem(st.is, "lies on another mount, "+Path(m.Point).Quoted(), "a release cannot be committed across mounts: make that a target of its own")
			return
		}
	}
	if st.found != nil && st.found.Type != release.Symlink {
		if why := unchangeable(path); why != "" {
			p.problem(st.is, why, "chattr -ia "+path)
		}
	}
	dir := parentOf(st.is)
	if !dirs[dir] {
		dirs[dir] = true
		var top, here unix.Stat_t
		if unix.Stat(p.s.t.path, &top) == nil && unix.Stat(p.s.t.abs(dir), &here) == nil && top.Dev != here.Dev {
			p.problem(dir, "is another file system, or a subvolume of its own", "files cannot be moved across: make that a target of its own")
		}
		if why := unchangeable(p.s.t.abs(dir)); why != "" {
			p.problem(dir, why, "chattr -ia "+p.s.t.abs(dir))
		}
	}
}

// checkPackages refuses to replace what the system's package manager has
// placed: it would come back with the next update, or be missed.
func (p *plan) checkPackages(ctx context.Context) error {
	if p.opts.Packaged || p.s.layout == Owned && len(p.adopt) == 0 {
		return nil
	}
	var paths []string
	of := map[string]string{}
	for i := range p.steps {
		st := &p.steps[i]
		known := p.liveM != nil && p.liveM.Find(st.e.Path) != nil
		if st.e.Type == release.Dir || known || st.is == "" {
			continue
		}
		paths = append(paths, p.s.t.abs(st.is))
		of[p.s.t.abs(st.is)] = st.is
	}
	if len(paths) == 0 {
		return nil
	}
	owners, err := hostfacts.Packages(ctx, p.s.t.opts.Facts, paths)
	if err != nil {
		p.warn("which files belong to packages could not be found out: %v", err)
		return nil
	}
	for _, path := range paths {
		if pkg := owners[path]; pkg != "" {
			p.problem(of[path], "belongs to the package "+pkg, "remove the package, divert the file, or say --packaged")
		}
	}
	return nil
}
