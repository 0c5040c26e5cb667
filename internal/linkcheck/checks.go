package linkcheck

import (
	"debug/elf"
	"fmt"
	"path"
	"strings"
)

// checkFiles judges what each file of the set is by itself, and how they fit.
func (s *loadSet) checkFiles() {
	majors := map[string]*loaded{}
	for _, l := range s.list[:s.start] {
		majors[stem(l.o.soname())] = l
	}
	for _, l := range s.list[s.start:] {
		s.checkFile(l)
		if l == s.main || l.o == s.sys.interp || l.o.image.soname == "" {
			continue
		}
		name := stem(l.o.image.soname)
		other := majors[name]
		if other == nil {
			majors[name] = l
			continue
		}
		if a, b := other.o.soname(), l.o.soname(); a != b && strings.HasPrefix(a, name) && strings.HasPrefix(b, name) {
			s.c.report(s, Finding{
				Problem: TwoMajors, Severity: Warning, Object: s.asked, Needs: b, Found: l.o.path,
				Detail: "it also gets " + a + ": each has data of its own, and symbols come from whichever is first",
			})
		}
	}
	if s.plugin != nil {
		s.checkPlugin()
	}
}

// stem is a SONAME up to and including ".so".
func stem(soname string) string {
	if i := strings.Index(soname, ".so."); i >= 0 {
		return soname[:i+3]
	}
	return soname
}

func (s *loadSet) checkFile(l *loaded) {
	im := l.o.image
	if l != s.main {
		for _, seg := range im.loads {
			if seg.align&(4096-1) != 0 {
				s.c.report(s, Finding{
					Problem: Alignment, Severity: Break, Object: s.path(l), Detail: fmt.Sprintf("a segment is aligned to %d bytes, a page has 4096", seg.align),
				})
				break
			}
		}
		if l != s.plugin && im.kind == Program && (im.etype == elf.ET_EXEC || im.flags1&uint64(elf.DF_1_PIE) != 0) {
			s.c.report(s, Finding{Problem: NotLoadable, Severity: Break, Object: s.path(l), Detail: "it is a program, and something needs it as a library"})
		}
	}
	if im.noHash && s.sys.musl {
		s.c.report(s, Finding{Problem: BadFile, Severity: Break, Object: s.path(l), Detail: "malformed ELF file: it has no hash table, and the loader of musl crashes"})
	}
	if missing := s.missingLevel(im); missing != "" {
		s.c.report(s, Finding{Problem: ProcessorLevel, Severity: Break, Object: s.path(l), Needs: missing})
	}
	if im.textrel {
		s.c.report(s, Finding{Problem: TextRelocations, Severity: Note, Object: s.path(l)})
	}
	for _, name := range im.needed {
		p := s.names[name]
		if p == nil || p.o == nil || strings.Contains(name, "/") || p.o.image.soname == "" || p.o.image.soname == name || p.o == s.sys.interp {
			continue
		}
		s.c.report(s, Finding{
			Problem: SonameDiffers, Severity: Warning, Object: s.path(l), Needs: name, Found: p.o.path,
			Detail: "it calls itself " + p.o.image.soname + ": ldconfig makes no link of the other name",
		})
	}
}

// missingLevel is the level of instructions that a file is marked with and the
// processor does not serve; "" if it does.
func (s *loadSet) missingLevel(im *image) string {
	if im.level&^1 == 0 || im.machine != elf.EM_X86_64 {
		return ""
	}
	have := uint32(1)
	for _, name := range s.c.hwcaps(elf.EM_X86_64) {
		if n, ok := strings.CutPrefix(name, "x86-64-v"); ok && len(n) == 1 && n[0] >= '2' && n[0] <= '4' {
			have |= 1 << (n[0] - '1')
		}
	}
	for v := 4; v >= 2; v-- {
		if bit := uint32(1) << (v - 1); im.level&bit != 0 && have&bit == 0 {
			return fmt.Sprintf("x86-64-v%d", v)
		}
	}
	return ""
}

// surplusTLS is thread-local storage that glibc is sure to have left for what is
// loaded by name: its own reserve is 512 bytes for files like these (rtld.optional_static_tls).
const surplusTLS = 512

// checkPlugin judges what only matters to files that are loaded by name.
func (s *loadSet) checkPlugin() {
	im := s.plugin.o.image
	const noOpen = 0x40 // DF_1_NOOPEN
	switch {
	case im.flags1&noOpen != 0:
		s.c.report(s, Finding{Problem: NotLoadable, Severity: Break, Object: s.called, Detail: "it is marked as not to be loaded by name"})
	case im.etype == elf.ET_EXEC || im.flags1&uint64(elf.DF_1_PIE) != 0:
		s.c.report(s, Finding{Problem: NotLoadable, Severity: Break, Object: s.called, Detail: "it is a program"})
	}
	for _, l := range s.list[s.start:] {
		im := l.o.image
		if im.flags&uint64(elf.DF_STATIC_TLS) != 0 && im.tls.memsz > surplusTLS {
			s.c.report(s, Finding{
				Problem: StaticTLS, Severity: Warning, Object: s.path(l),
				Detail: fmt.Sprintf("it wants %d bytes of static thread-local storage; %d are sure to be left when it is loaded by name", im.tls.memsz, surplusTLS),
			})
		}
		if im.stack && !s.main.o.image.stack {
			s.c.report(s, Finding{
				Problem: ExecutableStack, Severity: Warning, Object: s.path(l), Detail: "glibc 2.41 and newer refuse to load it by name",
			})
		}
	}
}

// laidFor are the libraries of the overlay in directories that ldconfig looks
// at, by the names that it will give them: those of the files and their SONAMEs.
func (c *checker) laidFor(s *system) map[string]string {
	if len(c.tree.overlay) == 0 {
		return nil
	}
	known := map[string]bool{}
	for _, d := range append(c.confDirs("/etc/ld.so.conf", 0), s.defaults...) {
		if at := c.tree.dir(d, 0); at.err == nil {
			known[at.logical] = true
		}
	}
	laid := map[string]string{}
	for _, p := range sortedKeys(c.tree.overlay) {
		name := path.Base(p)
		if c.tree.overlay[p] == "" || !known[path.Dir(p)] || !strings.Contains(name, ".so") {
			continue
		}
		o, err := c.objects.open(p)
		if err != nil || o.bad != nil || o.image.wide != s.wide || o.image.machine != s.machine {
			continue
		}
		laid[name] = p
		if o.image.soname != "" && laid[o.image.soname] == "" {
			laid[o.image.soname] = p
		}
	}
	return laid
}

// confDirs are the directories of ld.so.conf (ldconfig(8)).
func (c *checker) confDirs(file string, depth int) (dirs []string) {
	b, err := c.tree.read(file, maxNames)
	if err != nil || depth > 8 {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "include"); ok && rest != "" && (rest[0] == ' ' || rest[0] == '\t') {
			for _, pattern := range strings.Fields(rest) {
				if !path.IsAbs(pattern) {
					pattern = path.Join(path.Dir(file), pattern)
				}
				for _, name := range c.tree.names(path.Dir(pattern)) {
					if ok, _ := path.Match(path.Base(pattern), name); ok && len(dirs) < maxRunPaths {
						dirs = append(dirs, c.confDirs(path.Join(path.Dir(pattern), name), depth+1)...)
					}
				}
			}
			continue
		}
		if line, _, _ = strings.Cut(line, "="); path.IsAbs(line) {
			dirs = append(dirs, strings.TrimSpace(line))
		}
	}
	return dirs
}
