package deploy

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/linkcheck"
	"moult.example/internal/release"
)

// CheckOptions say how a release or files are judged.
type CheckOptions struct {
	Root        string              // as in [linkcheck.Options]
	LibraryPath []string            // likewise
	Plugins     map[string][]string // plugin → its hosts, beside what the release declares; in the release, or absolute
	Outside     bool                // judge the programs of this host too that use a library which changes
	StateDir    string              // where the index of this host's programs is kept; "" is what StateDir returns
	Types       bool                // compare the types of libraries that are replaced, where there is debug information
	ABIDiff     bool                // ask abidiff(1) of libabigail, too
	Learn       bool                // take plugins from processes that run a program which is judged

	// A packed release is unpacked here as far as need be. Both are of one
	// directory, and whoever calls removes it.
	Spool    disk.FS
	SpoolDir string
}

// Laid is a release or some files, laid over what is there, to be judged.
type Laid struct {
	target  string // "" if there is none
	base    string // where the release's files are going to be
	overlay map[string]string
	links   map[string]string
	paths   []string // programs and libraries, absolute
	changed []string // libraries that change, come or go, by every path that they have
	plugins map[string][]string
	foreign int
	twice   []Twice
	pairs   []ABIPair // libraries that replace others
	own     *ownFiles // of a release
}

// Twice is a file that looks up its release a second time when it is started,
// and may get another one then.
type Twice struct {
	Path Path   `json:"path"`
	Why  string `json:"why"`
}

// ABIPair is a library, and the one that it replaces.
type ABIPair struct { // both as files of this host
	Path     Path // in the target
	Old, New string
}

// LayRelease lays a release over nothing: a directory is judged where it lies,
// another as if it were in a directory of its own.
func LayRelease(ctx context.Context, rel *release.Release, dir string, o CheckOptions) (*Laid, error) {
	t := &Target{path: "/" + cmpOr(rel.Manifest.Name, "release"), opts: Options{}.withDefaults()}
	if dir != "" {
		var err error
		if t.path, err = resolve(dir); err != nil {
			return nil, err
		}
	}
	p := &plan{s: &state{t: t, layout: Shared}, rel: rel, m: rel.Manifest, live: noGeneration}
	p.steps = make([]step, len(p.m.Entries))
	for i := range p.steps {
		p.steps[i] = step{e: &p.m.Entries[i], is: p.m.Entries[i].Path}
	}
	l, err := lay(ctx, p, o)
	if l != nil {
		l.target = ""
	}
	return l, err
}

func cmpOr(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// Lay lays a release over what is live in the target, as Apply would place it.
// It writes nothing there.
func (t *Target) Lay(ctx context.Context, rel *release.Release, a ApplyOptions, o CheckOptions) (*Laid, error) {
	s, err := t.choose(rel, a)
	if err != nil {
		return nil, err
	}
	p, err := t.makePlan(ctx, s, rel, a)
	if err != nil {
		return nil, err
	}
	p.problems = nil // what else is in the way is for apply to say
	return lay(ctx, p, o)
}

func lay(ctx context.Context, p *plan, o CheckOptions) (*Laid, error) {
	c := newLinkCheck(p)
	u := &unpacker{o: o, p: p}
	ready, err := c.lay(ctx, u.open)
	if err != nil {
		return nil, err
	}
	if !ready {
		return nil, release.ErrNoBytes
	}
	l := &Laid{target: p.s.t.path, base: c.base, overlay: c.overlay, links: c.links, plugins: map[string][]string{}}
	host, err := hostMachine()
	if err != nil {
		return nil, err
	}
	for i := range p.steps {
		st := &p.steps[i]
		if st.e.Type != release.File || st.is == "" {
			continue
		}
		file := c.overlay[c.at(st)]
		if file == "" {
			file = c.at(st)
			if c.infos[i], err = needsOfPath(file); err != nil {
				continue // apply would say so
			}
		}
		info := &c.infos[i]
		l.look(p, st, file, info)
		if !judged(st.e, info) {
			continue
		}
		if o.Root == "" && !host.runs(info) {
			l.foreign++
			continue
		}
		l.paths = append(l.paths, c.at(st))
		if info.Kind == linkcheck.Library && st.act == actCopy && st.found != nil {
			l.pairs = append(l.pairs, ABIPair{Path(st.is), c.at(st), file})
		}
	}
	slices.Sort(l.paths)
	l.own = c.own()
	l.changes(p, c)
	for plugin, hosts := range p.m.PluginHosts() {
		l.plug(plugin, hosts)
	}
	for plugin, hosts := range o.Plugins {
		l.plug(plugin, hosts)
	}
	return l, nil
}

// changes are the paths of all libraries that are not what they were, in the
// target and by the names that the target gives them.
func (l *Laid) changes(p *plan, c *linkCheck) {
	add := func(path string) {
		if c.names[filepath.Base(path)] {
			l.changed = append(l.changed, c.base+"/"+path)
			if c.base != l.target {
				l.changed = append(l.changed, l.target+"/"+path)
			}
		}
	}
	for i := range p.steps {
		if st := &p.steps[i]; st.act == actCopy && st.is != "" && st.e.Type != release.Dir {
			add(st.is)
			if so := c.infos[i].Soname; so != "" {
				add(join(parentOf(st.is), filepath.Base(so)))
			}
		}
	}
	for _, e := range p.removed {
		if e.Type != release.Dir {
			add(e.Path)
		}
	}
	slices.Sort(l.changed)
	l.changed = slices.Compact(l.changed)
}

func (l *Laid) plug(plugin string, hosts []string) {
	for _, h := range hosts {
		l.plugins[l.abs(plugin)] = append(l.plugins[l.abs(plugin)], l.abs(h))
	}
}

// abs is the path of a file of the release.
func (l *Laid) abs(path string) string {
	if filepath.IsAbs(path) {
		if rest, ok := strings.CutPrefix(path, l.target+"/"); ok && l.target != "" {
			return l.base + "/" + rest
		}
		return path
	}
	return l.base + "/" + filepath.Clean(path)
}

// LayFiles lays files over others: each over the path that at has for it, or is
// judged where it is, if that is "".
func LayFiles(files, at []string, o CheckOptions) (*Laid, error) {
	l := &Laid{overlay: map[string]string{}, plugins: map[string][]string{}}
	for i, file := range files {
		path := at[i]
		if path == "" {
			l.paths = append(l.paths, file)
			continue
		}
		// The file at the end of links: one that leads to what it is laid over
		// would lead to itself.
		file, err := filepath.EvalSymlinks(file)
		if err != nil {
			return nil, err
		}
		info, err := needsOfPath(file)
		if err != nil {
			return nil, err
		}
		l.overlay[path] = file
		l.paths = append(l.paths, path)
		if info.Kind == linkcheck.Library {
			l.changed = append(l.changed, path)
			if info.Soname != "" {
				l.changed = append(l.changed, filepath.Join(filepath.Dir(path), filepath.Base(info.Soname)))
			}
			l.pairs = append(l.pairs, ABIPair{Path(path), path, file})
		}
	}
	for plugin, hosts := range o.Plugins {
		l.plug(plugin, hosts)
	}
	return l, nil
}

func needsOfPath(path string) (linkcheck.Info, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return linkcheck.Info{}, err
	}
	defer f.Close()
	return needsOf(f)
}

// unpacker gives the bytes of a release's files as files.
type unpacker struct {
	o  CheckOptions
	p  *plan
	mu sync.Mutex
	n  int
}

// open opens a step's file. One of a packed release is unpacked if it begins as
// an ELF file; of any other the beginning will do.
func (u *unpacker) open(st *step) (*os.File, error) {
	f, err := u.p.openSource(st)
	if f != nil || err != nil || u.o.Spool == nil {
		return f, err
	}
	in, err := u.p.rel.OpenFile(st.e)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n++
	name := strconv.Itoa(u.n)
	out, err := u.o.Spool.Create(name)
	if err != nil {
		return nil, err
	}
	head := make([]byte, 4096)
	n, err := io.ReadFull(in, head)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	if err == nil {
		_, err = out.Write(head[:n])
	}
	if err == nil && strings.HasPrefix(string(head[:n]), "\x7fELF") {
		_, err = io.Copy(out, in)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return nil, err
	}
	return os.Open(filepath.Join(u.o.SpoolDir, name))
}

// look says what of a file looks up its release again (see [Twice]).
func (l *Laid) look(p *plan, st *step, file string, info *linkcheck.Info) {
	if p.s.layout == Shared {
		return // there is but one place for each name; or none, if it is laid over nothing
	}
	public := l.target + "/"
	add := func(why string) { l.twice = append(l.twice, Twice{Path(st.is), why}) }
	switch {
	case info.Kind == linkcheck.NotELF:
		if line := walks(file, public); line != "" {
			add("a script that names " + line + ": that leads to what is live by then")
		}
	case info.Interp != "" && st.e.Mode&(unix.S_ISUID|unix.S_ISGID) != 0:
		add("set-user-id: its loader ignores $ORIGIN, so it finds its libraries by absolute paths alone")
	}
	for dir := range strings.SplitSeq(info.RunPath, ":") {
		if strings.HasPrefix(dir+"/", public) {
			add("its run path " + dir + " leads to what is live by then: link it with $ORIGIN")
		}
	}
}

const maxScript = 1 << 20 // bytes of a script that are looked at

// walks finds a path below the target in a script; "" if there is none.
func walks(file, public string) string {
	f, err := os.OpenFile(file, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxScript))
	if err != nil || !strings.HasPrefix(string(b), "#!") {
		return ""
	}
	_, rest, found := strings.Cut(string(b), public)
	if !found {
		return ""
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r <= ' ' || strings.ContainsRune("\"'`;:$(){}[]<>|&,", r) })
	if end < 0 || end > 200 {
		end = min(len(rest), 200)
	}
	return public + rest[:end]
}
