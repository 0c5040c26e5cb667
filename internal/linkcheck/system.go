package linkcheck

import (
	"bytes"
	"debug/elf"
	"errors"
	"io/fs"
	"path"
	"strings"
)

// system is the dynamic loader of one kind of program, and what it goes by.
type system struct {
	musl       bool
	interp     *object // nil if it is not there
	interpPath string
	machine    elf.Machine
	wide, big  bool
	defaults   []string // default directories
	levels     bool     // looks for glibc-hwcaps/, from glibc 2.33 on
	legacy     []string // looks for these, before glibc 2.37
	packed     bool     // knows packed relative relocations, from glibc 2.36 on
	cache      *loaderCache
	cacheFlags uint32
	laid       map[string]string // libraries of the overlay that ldconfig will find, by name
	preload    []string          // of ld.so.preload
	lib        string            // what $LIB stands for
	platform   string            // likewise $PLATFORM
	trouble    error             // why it is not known well; a cache that cannot be read
}

// standard loaders, for libraries, which do not name one.
var standardLoaders = map[elf.Machine][]string{
	elf.EM_X86_64:  {"/lib64/ld-linux-x86-64.so.2"},
	elf.EM_386:     {"/lib/ld-linux.so.2"},
	elf.EM_AARCH64: {"/lib/ld-linux-aarch64.so.1"},
	elf.EM_ARM:     {"/lib/ld-linux-armhf.so.3", "/lib/ld-linux.so.3"},
	elf.EM_RISCV:   {"/lib/ld-linux-riscv64-lp64d.so.1"},
	elf.EM_PPC64:   {"/lib64/ld64.so.2", "/lib64/ld64.so.1"},
	elf.EM_S390:    {"/lib/ld64.so.1"},
}

var muslArch = map[elf.Machine]string{
	elf.EM_X86_64: "x86_64", elf.EM_386: "i386", elf.EM_AARCH64: "aarch64", elf.EM_ARM: "armhf",
	elf.EM_RISCV: "riscv64", elf.EM_PPC64: "powerpc64le", elf.EM_S390: "s390x",
}

var platforms = map[elf.Machine]string{
	elf.EM_X86_64: "x86_64", elf.EM_386: "i686", elf.EM_AARCH64: "aarch64", elf.EM_ARM: "v7l",
	elf.EM_PPC64: "power8", elf.EM_S390: "z13",
}

// systemOf is the loader of a file: the one that it names, or the one that a
// library would get in a program of this host.
func (c *checker) systemOf(o *object) *system {
	p := o.image.interp
	if p == "" {
		p = c.usualLoader(o.image)
	}
	key := systemKey{p, o.image.machine, o.image.wide}
	if s := c.systems[key]; s != nil {
		return s
	}
	s := &system{interpPath: p, machine: o.image.machine, wide: o.image.wide, big: o.image.big, platform: platforms[o.image.machine]}
	if p != "" {
		s.interp, _ = c.objects.open(p)
	}
	s.musl = strings.HasPrefix(path.Base(p), "ld-musl-")
	if s.musl {
		c.readMusl(s)
	} else {
		c.readGlibc(s)
	}
	c.systems[key] = s
	return s
}

type systemKey struct {
	interp  string
	machine elf.Machine
	wide    bool
}

func (c *checker) usualLoader(im *image) string {
	for _, name := range im.needed {
		if strings.HasPrefix(name, "libc.musl-") || name == "libc.so" {
			return "/lib/ld-musl-" + muslArch[im.machine] + ".so.1"
		}
	}
	loaders := standardLoaders[im.machine]
	for _, p := range loaders {
		if _, err := c.objects.open(p); err == nil {
			return p
		}
	}
	if len(loaders) == 0 {
		return ""
	}
	return loaders[0]
}

func (c *checker) readGlibc(s *system) {
	cachePath := "/etc/ld.so.cache"
	if s.interp != nil && s.interp.bad == nil {
		data := s.interp.image.data
		data = data[:min(len(data), maxLoader)]
		s.defaults, cachePath = loaderStrings(data, cachePath)
		s.levels = bytes.Contains(data, []byte("glibc-hwcaps"))
		s.packed = bytes.Contains(data, []byte(relativeVersion))
		if s.machine == elf.EM_X86_64 && (!s.levels || bytes.Contains(data, []byte("Legacy HWCAP"))) {
			s.legacy = legacyDirs
		}
		s.lib = strings.TrimPrefix(strings.TrimPrefix(path.Dir(s.interp.path), "/usr"), "/")
	}
	if len(s.defaults) == 0 {
		s.defaults = []string{"/lib", "/usr/lib"}
		if s.wide {
			s.defaults = []string{"/lib64", "/usr/lib64", "/lib", "/usr/lib"}
		}
	}
	if !strings.HasPrefix(s.lib, "lib") {
		s.lib = strings.TrimPrefix(s.defaults[0], "/")
	}
	flags, err := cacheFlags(s.machine, s.wide)
	if err != nil {
		s.trouble = err
	}
	s.cacheFlags = flags
	if s.cache, err = c.cache(cachePath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.trouble = err
	}
	s.laid = c.laidFor(s)
	if b, err := c.tree.read("/etc/ld.so.preload", maxNames); err == nil {
		text, _, _ := strings.Cut(string(b), "\x00")
		for line := range strings.Lines(text) {
			line, _, _ = strings.Cut(line, "#")
			s.preload = append(s.preload, strings.FieldsFunc(line, isPreloadSpace)...)
		}
	}
}

// maxLoader is larger than any loader, of which all is looked through.
const maxLoader = 16 << 20

func isPreloadSpace(r rune) bool { return strings.ContainsRune(" \t\n:", r) }

func (c *checker) cache(p string) (*loaderCache, error) {
	if r, ok := c.caches[p]; ok {
		return r.cache, r.err
	}
	var r cacheResult
	var b []byte
	if b, r.err = c.tree.read(p, maxCache); r.err == nil {
		if r.cache, r.err = parseCache(b); r.err != nil {
			r.err = &fs.PathError{Op: "read", Path: p, Err: r.err}
		}
	}
	c.caches[p] = r
	return r.cache, r.err
}

const maxCache = 64 << 20

type cacheResult struct {
	cache *loaderCache
	err   error
}

// loaderStrings finds in a loader of glibc what it was built with: its default
// directories, which stand behind each other in its data, each with a slash at
// its end, and the path of its cache.
func loaderStrings(data []byte, cachePath string) (dirs []string, cache string) {
	cache = cachePath
	if i := bytes.Index(data, []byte("/ld.so.cache\x00")); i >= 0 {
		start := bytes.LastIndexByte(data[max(0, i-maxName):i], 0)
		if p := string(data[max(0, i-maxName)+start+1 : i+len("/ld.so.cache")]); start >= 0 && path.IsAbs(p) {
			cache = p
		}
	}
	for rest := data; ; {
		i := bytes.Index(rest, []byte("lib/\x00"))
		if j := bytes.Index(rest, []byte("lib64/\x00")); j >= 0 && (i < 0 || j < i) {
			i = j
		}
		if k := bytes.Index(rest, []byte("-gnu/\x00")); k >= 0 && (i < 0 || k < i) {
			i = k
		}
		if i < 0 {
			return nil, cache
		}
		start := bytes.LastIndexByte(rest[:i], 0) + 1
		for run := rest[start:]; ; {
			text, after, ok := bytes.Cut(run, []byte{0})
			if !ok || len(text) < 2 || len(text) > maxName || text[0] != '/' || text[len(text)-1] != '/' {
				break
			}
			dirs = append(dirs, strings.TrimSuffix(string(text), "/"))
			run = after
		}
		if len(dirs) > 0 {
			return dirs, cache
		}
		rest = rest[i+4:]
	}
}

// readMusl reads the path file of musl (ldso/dynlink.c): next to the loader's
// directory, /lib/ld-musl-x86_64.so.1 has /etc/ld-musl-x86_64.path.
func (c *checker) readMusl(s *system) {
	s.lib = "lib"
	prefix := path.Dir(path.Dir(s.interpPath))
	arch := strings.TrimSuffix(strings.TrimPrefix(path.Base(s.interpPath), "ld-musl-"), ".so.1")
	b, err := c.tree.read(path.Join(prefix, "etc/ld-musl-"+arch+".path"), maxNames)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s.defaults = []string{"/lib", "/usr/local/lib", "/usr/lib"}
	case err == nil:
		s.defaults = strings.FieldsFunc(string(b), func(r rune) bool { return r == ':' || r == '\n' })
	}
}
