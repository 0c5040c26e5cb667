package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// way is one way to bring a tree to a place: moult's or a peer's.
type way struct {
	name string
	lack func() string // why it cannot be done here; "" if it can

	// pack makes what is delivered out of a source, where that is not the
	// source itself. It is no part of the timing: people do it once, elsewhere.
	pack func(b *bench, ctx context.Context, source string, p *place) error
	// deliver brings the source to the place, for the first or the next time.
	deliver func(b *bench, ctx context.Context, source string, p *place) (usage, error)
	// tidy removes what the way itself would keep longer, outside the timing.
	tidy func(b *bench, p *place) error
	// live is where the tree is then.
	live func(p *place) string
}

// place is a directory in which one way works.
type place struct {
	dir string
	n   int // how often it was delivered to
}

func (p *place) file(name string) string  { return filepath.Join(p.dir, name) }
func (p *place) generation(n int) string  { return p.file("gen-" + strconv.Itoa(n)) }
func (p *place) deb(source string) string { return p.file(filepath.Base(source) + ".deb") }
func liveTarget(p *place) string          { return p.file("target") }
func liveLink(p *place) string            { return p.file("live") }
func liveInstalled(p *place) string       { return p.file("root/opt/product") }

func (b *bench) newPlace(name string) (*place, error) {
	dir, err := os.MkdirTemp(b.dir, name+"-")
	return &place{dir: dir}, err
}

// here says whether the way can be gone here, and notes it if not.
func (w *way) here(s *Section) bool {
	if w.lack == nil {
		return true
	}
	why := w.lack()
	if why != "" {
		s.skip(w.name, why)
	}
	return why == ""
}

// onto delivers a source and counts.
func (w *way) onto(b *bench, ctx context.Context, source string, p *place) (usage, error) {
	u, err := w.deliver(b, ctx, source, p)
	p.n++
	return u, err
}

// moultWay is moult apply, in the layout that it chooses for an empty target or
// in one that is named.
func moultWay(name, layout string, flags ...string) *way {
	return &way{
		name: name,
		deliver: func(b *bench, ctx context.Context, source string, p *place) (usage, error) {
			argv := append([]string{b.moult, "apply", "--quiet", source, liveTarget(p)}, flags...)
			if layout != "" && p.n == 0 {
				argv = append(argv, "--layout", layout)
			}
			return b.run(ctx, argv)
		},
		live: liveTarget,
	}
}

// rsyncWay is rsync into the tree that people use. It syncs nothing.
func rsyncWay(name string, flags ...string) *way {
	return &way{
		name: name,
		lack: func() string { return missing("rsync") },
		deliver: func(b *bench, ctx context.Context, source string, p *place) (usage, error) {
			argv := append([]string{"rsync", "-a"}, flags...)
			return b.run(ctx, append(argv, source+"/", liveTarget(p)+"/"))
		},
		live: liveTarget,
	}
}

// copyWay is cp -a into a new tree, made durable.
func copyWay() *way {
	return &way{
		name: "cp -a + sync -f",
		lack: func() string { return missing("cp", "sync") },
		deliver: func(b *bench, ctx context.Context, source string, p *place) (usage, error) {
			return b.run(ctx, []string{"cp", "-a", source, liveTarget(p)}, []string{"sync", "-f", liveTarget(p)})
		},
		live: liveTarget,
	}
}

// linkDestWay makes generations by hand, as well as that can be done: unchanged
// files are links to the last one's, all is synced, then a link is switched.
func linkDestWay() *way {
	return &way{
		name: "rsync --link-dest + sync -f",
		lack: func() string { return missing("rsync", "sync") },
		deliver: func(b *bench, ctx context.Context, source string, p *place) (usage, error) {
			argv := []string{"rsync", "-a"}
			if p.n > 0 {
				argv = append(argv, "--link-dest="+p.generation(p.n-1))
			}
			u, err := b.run(ctx, append(argv, source+"/", p.generation(p.n)+"/"), []string{"sync", "-f", p.dir})
			if err != nil {
				return u, err
			}
			return u, p.point()
		},
		tidy: dropOld,
		live: liveLink,
	}
}

// ostreeWay commits the tree to a repository and checks it out by hard links,
// each with the syncing that OSTree does by itself; what the checkout has made
// is synced as ostree admin deploy does.
func ostreeWay() *way {
	return &way{
		name: "OSTree commit + checkout",
		lack: func() string { return missing("ostree", "sync") },
		pack: func(b *bench, ctx context.Context, _ string, p *place) error {
			if p.n > 0 {
				return nil
			}
			_, err := b.run(ctx, []string{"ostree", "--repo=" + p.file("repo"), "init", "--mode=bare-user"})
			return err
		},
		deliver: func(b *bench, ctx context.Context, source string, p *place) (usage, error) {
			repo := "--repo=" + p.file("repo")
			u, err := b.run(ctx,
				[]string{"ostree", repo, "commit", "--branch=product", "--tree=dir=" + source},
				[]string{"ostree", repo, "checkout", "-U", "-H", "product", p.generation(p.n)},
				[]string{"sync", "-f", p.dir})
			if err != nil {
				return u, err
			}
			return u, p.point()
		},
		tidy: dropOld,
		live: liveLink,
	}
}

// point switches the link of a generation made by hand to the newest one.
func (p *place) point() error {
	if err := os.Symlink(filepath.Base(p.generation(p.n)), p.file("live.new")); err != nil {
		return err
	}
	return os.Rename(p.file("live.new"), p.file("live"))
}

// dropOld gives up the generation before the one that is live.
func dropOld(b *bench, p *place) error {
	if p.n < 2 {
		return nil
	}
	return b.discard(p.generation(p.n - 2))
}

// dpkgWay installs a package into a root of its own. The package is not
// compressed, in dpkg's favour, and has no scripts.
func dpkgWay() *way {
	return &way{
		name: "dpkg -i",
		lack: func() string {
			if os.Geteuid() != 0 {
				return "it takes root"
			}
			return missing("dpkg", "dpkg-deb", "cp")
		},
		pack: packDeb,
		deliver: func(b *bench, ctx context.Context, source string, p *place) (usage, error) {
			return b.run(ctx, []string{
				"dpkg", "--instdir=" + p.file("root"), "--admindir=" + p.file("admin"), "--log=/dev/null",
				"--force-bad-path", "-i", p.deb(source),
			})
		},
		live: liveInstalled,
	}
}

const debControl = `Package: product
Version: %d
Architecture: all
Maintainer: Bench <bench@example.invalid>
Description: what is measured
`

func packDeb(b *bench, ctx context.Context, source string, p *place) error {
	if p.n == 0 {
		for _, dir := range []string{"root", "admin/info", "admin/updates", "admin/triggers"} {
			if err := os.MkdirAll(p.file(dir), 0o755); err != nil {
				return err
			}
		}
		for _, name := range []string{"admin/status", "admin/available"} {
			if err := os.WriteFile(p.file(name), nil, 0o644); err != nil {
				return err
			}
		}
	}
	// links, which need no space; dpkg-deb reads and changes nothing
	deb := p.file("deb")
	defer os.RemoveAll(deb)
	for _, dir := range []string{"DEBIAN", "opt"} {
		if err := os.MkdirAll(filepath.Join(deb, dir), 0o755); err != nil {
			return err
		}
	}
	// every package is another version: of the same one dpkg does the same, but says so
	control := fmt.Sprintf(debControl, p.n+1)
	if err := os.WriteFile(filepath.Join(deb, "DEBIAN/control"), []byte(control), 0o644); err != nil {
		return err
	}
	_, err := b.run(ctx,
		[]string{"cp", "-al", source, filepath.Join(deb, "opt/product")},
		[]string{"dpkg-deb", "-Znone", "--root-owner-group", "--build", deb, p.deb(source)})
	return err
}
