package linkcheck

import (
	"context"
	"errors"
	"runtime/debug"
	"slices"
	"strings"
)

// Check says what would go wrong if the files at these paths were loaded:
// programs as they would be started, libraries on their own. Paths are absolute
// and as seen in o.Root, through o.Overlay. A library may be a plugin that finds
// its symbols in its host: what it lacks is a Warning, unless o.Plugins names the
// host; one that a checked program loads is judged there alone. Nothing is
// executed. What is wrong with a file is a finding; the error speaks of the
// context or of options that make no sense.
//
// Files are mapped while they are checked. One that is cut short meanwhile is
// reported as a bad file. Check may be called from several goroutines.
func Check(ctx context.Context, paths []string, o Options) (*Report, error) {
	return check(ctx, paths, o, false)
}

// check is Check; with everything it also reports what is the consequence of
// something else, as the loader does.
func check(ctx context.Context, paths []string, o Options, everything bool) (*Report, error) {
	// A page that is no longer there is a fault at an address. The file that it
	// belongs to is found out, and all begins again without it.
	shrunk := map[fileID]bool{}
	for {
		c, err := newChecker(o, shrunk)
		if err != nil {
			return nil, err
		}
		c.everything = everything
		id, err := c.guarded(ctx, paths)
		if id == nil {
			return c.result, err
		}
		if shrunk[*id] || len(shrunk) >= maxShrunk {
			return nil, errors.New("files are changed while they are checked")
		}
		shrunk[*id] = true
	}
}

const maxShrunk = 32

// guarded runs, and says which file was cut short below our hands, if one was.
func (c *checker) guarded(ctx context.Context, paths []string) (id *fileID, err error) {
	defer c.objects.close()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		fault, ok := p.(interface{ Addr() uintptr })
		if !ok {
			panic(p)
		}
		file, ok := c.objects.at(fault.Addr())
		if !ok {
			panic(p)
		}
		id = &file.id
	}()
	return nil, c.run(ctx, paths)
}

// checker is one run of Check.
type checker struct {
	o          Options
	everything bool
	tree       *tree
	objects    *objects
	systems    map[systemKey]*system
	caches     map[string]cacheResult
	plain      map[plainKey]found
	result     *Report
	index      map[findingIndex]int
	references int64
	probes     int
	mostProbes int
	breaks     int
	epoch      uint32
	hosted     map[*object]bool // judged in a program

	room        room
	subs        map[subdirsKey][]string
	ownHWCaps   []string
	hwcapsKnown bool
	nearWork    int
	tally       tally
	listed      map[string][]string
}

func newChecker(o Options, shrunk map[fileID]bool) (*checker, error) {
	t, err := newTree(o.Root, o.Overlay, o.Links)
	if err != nil {
		return nil, err
	}
	if o.MaxFindings <= 0 {
		o.MaxFindings = 10_000
	}
	return &checker{
		o: o, tree: t, objects: newObjects(t, shrunk), systems: map[systemKey]*system{}, caches: map[string]cacheResult{},
		plain: map[plainKey]found{}, result: &Report{}, index: map[findingIndex]int{}, hosted: map[*object]bool{},
		subs: map[subdirsKey][]string{}, listed: map[string][]string{}, mostProbes: 20 * maxProbes,
	}, nil
}

// job is a path that is checked.
type job struct {
	path string
	o    *object
}

func (c *checker) run(ctx context.Context, paths []string) error {
	plugins, hosts := c.plugins()
	c.mostProbes += probesEach * len(paths)
	var libraries []job
	done := map[string]bool{}
	for _, p := range paths {
		if done[p] {
			continue
		}
		done[p] = true
		if err := ctx.Err(); err != nil {
			return err
		}
		o, ok := c.open(p)
		if !ok {
			continue
		}
		if o.image.kind == Library {
			libraries = append(libraries, job{p, o})
			continue
		}
		c.result.Programs++
		c.program(p, o, hosts[p])
		delete(hosts, p)
	}
	for _, p := range sortedKeys(hosts) { // not asked for, but their plugins are
		if err := ctx.Err(); err != nil {
			return err
		}
		if o, ok := c.open(p); ok {
			c.host(p, o, hosts[p])
		}
	}
	for _, l := range libraries {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.result.Libraries++
		if !c.hosted[l.o] && !plugins[l.path] {
			c.program(l.path, l.o, nil)
		}
	}
	c.result.Loaded, c.result.References = len(c.objects.byID), c.references
	c.finish()
	return nil
}

// plugins are those of the options, and by host.
func (c *checker) plugins() (plugins map[string]bool, hosts map[string][]string) {
	plugins, hosts = map[string]bool{}, map[string][]string{}
	for _, plugin := range sortedKeys(c.o.Plugins) {
		for _, host := range c.o.Plugins[plugin] {
			plugins[plugin] = true
			hosts[host] = append(hosts[host], plugin)
		}
	}
	return plugins, hosts
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// open opens a file that is to be judged, and says whether there is more to say.
func (c *checker) open(p string) (*object, bool) {
	o, err := c.objects.open(p)
	switch {
	case err != nil:
		c.result.Unread = append(c.result.Unread, Unread{p, reason(err)})
		return nil, false
	case o.image.kind == NotELF || o.image.kind == Other && o.bad == nil:
		c.result.Skipped = append(c.result.Skipped, p)
		return nil, false
	case o.bad != nil:
		c.add(Finding{Problem: BadFile, Severity: Break, Object: p, Detail: o.bad.Error()}, p)
		return nil, false
	}
	return o, true
}

// program judges a program, or a library in its place, and then its plugins.
func (c *checker) program(p string, o *object, plugins []string) {
	im := o.image
	if im.strtab == nil && len(im.needed) == 0 {
		return // static
	}
	if im.interp != "" && c.systemOf(o).interp == nil {
		c.add(Finding{Problem: MissingInterpreter, Severity: Break, Object: p, Needs: im.interp, Searched: []string{im.interp}}, p)
		return
	}
	s := c.load(p, o)
	defer s.done()
	if im.interp != "" && s.sys.interp != nil && s.sys.interp.bad != nil {
		c.report(s, Finding{Problem: BadFile, Severity: Break, Object: s.sys.interp.path, Detail: s.sys.interp.bad.Error() + "; it is the interpreter"})
		return
	}
	c.judge(s)
	for _, plugin := range plugins {
		c.plugin(s, plugin)
	}
}

// host judges the plugins of a program, not the program.
func (c *checker) host(p string, o *object, plugins []string) {
	quiet := c.result
	c.result = &Report{} // what is wrong with the host itself was not asked for
	index := c.index
	c.index = map[findingIndex]int{}
	s := c.load(p, o)
	defer s.done()
	c.result, c.index = quiet, index
	for _, plugin := range plugins {
		c.plugin(s, plugin)
	}
}

func (c *checker) plugin(s *loadSet, p string) {
	o, ok := c.open(p)
	if !ok || s.failed {
		return
	}
	c.judge(s.plug(p, o))
}

func (c *checker) judge(s *loadSet) {
	if s.unread != nil {
		c.result.Unread = append(c.result.Unread, Unread{s.asked, s.unread})
	}
	if s.failed {
		return
	}
	s.checkFiles()
	s.checkVersions()
	s.resolve()
	if s.main.o.image.kind == Program {
		for _, l := range s.list[s.start:] {
			c.hosted[l.o] = true
		}
	}
}

// findingIndex is what makes two findings one.
type findingIndex struct {
	problem                                Problem
	object, needs, symbol, version, detail string
}

// report adds a finding that shows in the program of a load set. It returns it
// if it is new.
func (c *checker) report(s *loadSet, f Finding) *Finding {
	return c.add(f, s.asked)
}

func (c *checker) add(f Finding, program string) *Finding {
	k := findingIndex{f.Problem, f.Object, f.Needs, f.Symbol, f.Version, f.Detail} // the detail as it begins
	i, known := c.index[k]
	if !known {
		if f.Severity == Break {
			c.breaks++
		}
		if n := len(c.result.Findings); n >= c.o.MaxFindings && (f.Severity != Break || c.breaks > c.o.MaxFindings) {
			c.result.More++ // what breaks does not drown in warnings
			return nil
		}
		i = len(c.result.Findings)
		c.index[k] = i
		f.Name = demangled(f.Symbol)
		c.result.Findings = append(c.result.Findings, f)
	}
	have := &c.result.Findings[i]
	if rank(f.Severity) < rank(have.Severity) {
		have.Severity = f.Severity
	}
	if program != f.Object && !slices.Contains(have.Programs, program) {
		if len(have.Programs) < maxPrograms {
			have.Programs = append(have.Programs, program)
		} else {
			have.MorePrograms++
		}
	}
	if known {
		return nil
	}
	return have
}

func (c *checker) finish() {
	slices.Sort(c.result.Skipped)
	slices.SortFunc(c.result.Unread, func(a, b Unread) int { return strings.Compare(a.Path, b.Path) })
	c.result.Unread = slices.CompactFunc(c.result.Unread, func(a, b Unread) bool { return a.Path == b.Path })
	c.result.Sort()
}
