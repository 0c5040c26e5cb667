package deploy

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
	"moult.example/internal/stale"
)

// Places tells [stale.Find] what the engine knows of paths: where a path below
// a generation would lead to if it were asked now, and which release has put a
// file in its place. It reads books when they are asked for, each once, and
// writes nothing; for another look at a host that has changed take a new one.
// Its methods may be called from several goroutines at once.
//
// Books are believed only if nobody but root and the caller can have written
// them.
type Places struct {
	opts Options

	mu      sync.Mutex
	targets map[string]*placesTarget // by path; nil for a directory that is none
}

// placesTarget is what is known of one target.
type placesTarget struct {
	t      *Target
	layout Layout
	states []*state

	origins   map[genKey]stale.Origin
	displaced map[stale.Inode]genKey // shared: what commits have put aside
	public    map[stale.Inode]string // and the path that each had
}

// genKey is a generation of one of a target's products.
type genKey struct {
	product int // index of its state
	n       int
}

// NewPlaces returns what is known of all targets of this host. Nothing is read
// yet.
func NewPlaces(opts Options) *Places {
	return &Places{opts: opts, targets: map[string]*placesTarget{}}
}

var (
	_ stale.Places    = (*Places)(nil)
	_ stale.Displacer = (*Places)(nil)
	_ stale.Settler   = (*Places)(nil)
)

const generationsPart = "/" + dotMoult + "/generations/"

// Live implements [stale.Places]. It looks at the path alone, so it is right in
// any mount namespace that has the whole target.
func (*Places) Live(path string) string {
	target, _, rest, ok := cutGeneration(path)
	if !ok {
		return path
	}
	return target + "/" + dotMoult + "/live" + rest
}

// cutGeneration takes "T/.moult/generations/41/bin/x" apart: T, 41, "/bin/x".
func cutGeneration(path string) (target string, n int, rest string, ok bool) {
	i := strings.Index(path, generationsPart)
	if i < 0 {
		return "", 0, "", false
	}
	number := path[i+len(generationsPart):]
	if slash := strings.IndexByte(number, '/'); slash >= 0 {
		number, rest = number[:slash], number[slash:]
	}
	n, err := strconv.Atoi(number)
	if err != nil || number != strconv.Itoa(n) || !plausible(n) {
		return "", 0, "", false
	}
	return path[:i], n, rest, true
}

// Origin implements [stale.Places].
func (p *Places) Origin(path string) (stale.Origin, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pt, key, _, ok := p.find(path)
	if !ok {
		return stale.Origin{}, false
	}
	return pt.origin(key)
}

// Displaced implements [stale.Displacer]: a shared target keeps what it has
// replaced, under another name.
func (p *Places) Displaced(path string, id stale.Inode) (stale.Origin, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pt := p.around(filepath.Dir(path))
	if pt == nil || pt.layout != Shared {
		return stale.Origin{}, false
	}
	if pt.displaced == nil {
		pt.readDisplaced()
	}
	key, ok := pt.displaced[id]
	if !ok {
		return stale.Origin{}, false
	}
	return pt.origin(key)
}

// Intact implements [stale.Settler]. It reads the whole file.
func (p *Places) Intact(path string) (intact bool, since time.Time, ok bool) {
	p.mu.Lock()
	pt, key, e, ok := p.find(path)
	var info Info
	if ok {
		var err error
		info, err = pt.states[key.product].info(key.n)
		ok = err == nil && e != nil && e.Type == release.File
	}
	p.mu.Unlock()
	if !ok {
		return false, time.Time{}, false
	}
	d, err := hashFile(path)
	return err == nil && d == e.Digest, info.Time, err == nil
}

// find says which generation has put a file in its place, and its entry.
func (p *Places) find(path string) (pt *placesTarget, key genKey, e *release.Entry, ok bool) {
	if target, n, rest, is := cutGeneration(path); is {
		if pt = p.at(target); pt == nil || pt.layout != Owned || len(pt.states) != 1 {
			return nil, key, nil, false
		}
		key.n = n
		if m, err := pt.states[0].manifest(n); err == nil {
			e = m.Find(strings.TrimPrefix(rest, "/"))
		}
		return pt, key, e, true
	}
	if pt = p.around(filepath.Dir(path)); pt == nil || pt.layout != Shared {
		return nil, key, nil, false
	}
	rel, err := filepath.Rel(pt.t.path, path)
	if err != nil {
		return nil, key, nil, false
	}
	for i, s := range pt.states {
		n, err := s.live()
		if err != nil || n == noGeneration {
			continue
		}
		if m, err := s.manifest(n); err == nil {
			if e = m.Find(rel); e != nil {
				return pt, genKey{i, n}, e, true
			}
		}
	}
	return nil, key, nil, false
}

// around finds the target that a directory is in, the innermost if there are
// several; nil if it is in none.
func (p *Places) around(dir string) *placesTarget {
	for strings.HasPrefix(dir, "/") {
		if pt := p.at(dir); pt != nil || dir == "/" {
			return pt
		}
		dir = filepath.Dir(dir)
	}
	return nil
}

// at is the target at this path; nil if there is none that is to be believed.
func (p *Places) at(dir string) *placesTarget {
	pt, known := p.targets[dir]
	if !known {
		pt = p.read(dir)
		p.targets[dir] = pt
	}
	return pt
}

func (p *Places) read(dir string) *placesTarget {
	var st unix.Stat_t
	if unix.Lstat(dir+"/"+dotMoult, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Mode&0o022 != 0 {
		return nil
	}
	if st.Uid != 0 && int(st.Uid) != os.Geteuid() {
		return nil
	}
	// Without a disk.FS: nothing is ever written through it.
	pt := &placesTarget{t: &Target{path: dir, opts: p.opts.withDefaults()}, origins: map[genKey]stale.Origin{}}
	var err error
	if pt.layout, err = pt.t.readLayout(); err != nil {
		return nil
	}
	names := []string{""}
	if pt.layout == Shared {
		if names, err = pt.t.names(); err != nil {
			return nil
		}
	}
	for _, name := range names {
		if s, err := pt.t.state(name); err == nil {
			pt.states = append(pt.states, s)
		}
	}
	return pt
}

func (pt *placesTarget) origin(key genKey) (stale.Origin, bool) {
	o, known := pt.origins[key]
	if !known {
		s := pt.states[key.product]
		o = stale.Origin{Target: pt.t.path, Product: s.name, Generation: key.n}
		if info, err := s.info(key.n); err == nil {
			o.Release, o.Version = info.Release, info.Version
			if info.Name != "" {
				o.Product = info.Name
			}
		}
		pt.origins[key] = o
	}
	return o, true
}

// readDisplaced finds the files that commits have put aside, by their inodes,
// which a process that still runs one has mapped.
func (pt *placesTarget) readDisplaced() {
	pt.displaced, pt.public = map[stale.Inode]genKey{}, map[stale.Inode]string{}
	for i, s := range pt.states {
		ns, err := s.generations()
		if err != nil {
			continue
		}
		for _, n := range ns {
			have, err := s.readFound(n)
			if err != nil {
				continue
			}
			for _, f := range have {
				var st unix.Stat_t
				if unix.Lstat(pt.t.abs(string(f.Keep)), &st) == nil {
					id := stale.Inode{Dev: uint64(st.Dev), Ino: st.Ino}
					pt.displaced[id], pt.public[id] = genKey{i, n}, pt.t.abs(string(f.Path))
				}
			}
		}
	}
}
