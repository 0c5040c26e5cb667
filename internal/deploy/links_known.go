package deploy

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"moult.example/internal/linkcheck"
	"moult.example/internal/release"
)

// linksFile is among a generation's books: its programs and libraries that the
// loader handles, and what each needs, so that nobody has to open 5,000 files to
// find out who needs the one that has changed. It is a cache: without it, or if
// it makes no sense, the files are read.
//
// It begins with linksMagic. Each file is its path in the target, kind, class,
// machine, interpreter, soname, the number of names that it needs, and these,
// each ended by a NUL.
const (
	linksFile  = "links"
	linksMagic = "moult-links 1\n"
)

// unchanged are the programs and libraries of the release that stay as they are.
// They are only looked for if what they need may have changed.
func (c *linkCheck) unchanged(ctx context.Context) ([]loadable, error) {
	p := c.p
	if p.liveM == nil {
		return nil, nil
	}
	data, err := readBook(p.s.abs(p.s.books(genDir(p.live)) + "/" + linksFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errNoBook) {
		return nil, err
	}
	known, ok := decodeLinks(data)
	if ok {
		stays := make(map[string]bool, len(p.steps))
		for i := range p.steps {
			if st := &p.steps[i]; st.act == actLink {
				stays[st.is] = true
			}
		}
		kept := known[:0]
		for _, l := range known {
			if stays[l.path] {
				kept = append(kept, l)
			}
		}
		p.loadables, p.loadablesKnown = kept, true
		return kept, nil
	}
	if len(c.names) == 0 {
		return nil, nil
	}
	infos := make([]linkcheck.Info, len(p.steps))
	err = parallel(ctx, len(p.steps), func(i int) error {
		st := &p.steps[i]
		if st.act != actLink || st.e.Type != release.File {
			return nil
		}
		f, err := os.OpenFile(c.at(st), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		infos[i], err = needsOf(f)
		return err
	})
	if err != nil {
		return nil, err
	}
	var out []loadable
	for i := range infos {
		if loads(&infos[i]) {
			out = append(out, loadable{path: p.steps[i].is, info: infos[i]})
		}
	}
	p.loadables, p.loadablesKnown = out, true
	return out, nil
}

func loads(info *linkcheck.Info) bool {
	return info.Kind == linkcheck.Library || info.Kind == linkcheck.Program && len(info.Needed) > 0
}

func encodeLinks(all []loadable) []byte {
	b := []byte(linksMagic)
	text := func(s string) { b = append(append(b, s...), 0) }
	for i := range all {
		l := &all[i]
		text(l.path)
		text(strconv.Itoa(int(l.info.Kind)))
		text(strconv.Itoa(int(l.info.Class)))
		text(strconv.Itoa(int(l.info.Machine)))
		text(l.info.Interp)
		text(l.info.Soname)
		text(strconv.Itoa(len(l.info.Needed)))
		for _, name := range l.info.Needed {
			text(name)
		}
	}
	return b
}

// decodeLinks says false of what encodeLinks has not written.
func decodeLinks(b []byte) (all []loadable, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte(linksMagic))
	if !ok {
		return nil, false
	}
	whole := string(b) // one copy for all names
	text := func() (s string) {
		end := 0
		for end < len(whole) && whole[end] != 0 {
			end++
		}
		if end == len(whole) {
			ok = false
			return ""
		}
		s, whole = whole[:end], whole[end+1:]
		return s
	}
	number := func() int {
		n, err := strconv.ParseUint(text(), 10, 16)
		ok = ok && err == nil
		return int(n)
	}
	for ok && whole != "" {
		l := loadable{path: text()}
		l.info.Kind, l.info.Class, l.info.Machine = linkcheck.Kind(number()), elf.Class(number()), elf.Machine(number())
		l.info.Interp, l.info.Soname = text(), text()
		for n := number(); ok && n > 0; n-- {
			l.info.Needed = append(l.info.Needed, text())
		}
		all = append(all, l)
	}
	return all, ok
}

// remember keeps the programs and libraries of the new generation for its books,
// if they are known: what stays, and what is new.
func (c *linkCheck) remember() {
	p := c.p
	if p.liveM != nil && !p.loadablesKnown {
		return
	}
	all := p.loadables
	for i := range c.infos {
		if loads(&c.infos[i]) {
			all = append(all, loadable{path: p.steps[i].is, info: c.infos[i]})
		}
	}
	p.loadables, p.loadablesKnown = all, true
}

// writeLinks adds what was found out to the books of the generation.
func (b *stager) writeLinks() error {
	if !b.loadablesKnown || b.links == nil {
		return nil
	}
	return writeFile(b.s.t.fs, b.s.books(b.dir)+"/"+linksFile, encodeLinks(b.loadables), false)
}

// machine is what this host runs.
type machine struct {
	class elf.Class
	elf.Machine
}

// hostMachine is that of the running program.
func hostMachine() (machine, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return machine{}, err
	}
	defer f.Close()
	info, err := needsOf(f)
	return machine{info.Class, info.Machine}, err
}

// second are the 32-bit loaders of processors that run two kinds of programs.
var second = map[elf.Machine]struct {
	machine elf.Machine
	loader  string
}{
	elf.EM_X86_64:  {elf.EM_386, "/lib/ld-linux.so.2"},
	elf.EM_AARCH64: {elf.EM_ARM, "/lib/ld-linux-armhf.so.3"},
}

// otherSystems are the loaders of systems that do not all say in their files'
// headers whose they are: the BSDs, Solaris and Android.
var otherSystems = map[string]bool{
	"/libexec/ld-elf.so.1": true, "/usr/libexec/ld-elf.so.1": true, "/usr/libexec/ld-elf.so.2": true,
	"/usr/libexec/ld.elf_so": true, "/libexec/ld.elf_so": true, "/usr/libexec/ld.so": true,
	"/lib/amd64/ld.so.1": true, "/lib/64/ld.so.1": true, "/usr/lib/amd64/ld.so.1": true, "/usr/lib/ld.so.1": true,
	"/system/bin/linker": true, "/system/bin/linker64": true,
}

// runs says that a file is for this host: of its own machine, or of the other
// that the processor runs and a loader is there for.
func (m machine) runs(info *linkcheck.Info) bool {
	switch info.OSABI {
	case elf.ELFOSABI_NONE, elf.ELFOSABI_LINUX, elf.ELFOSABI_ARM:
	default:
		return false
	}
	if otherSystems[info.Interp] {
		return false
	}
	if info.Class == m.class && info.Machine == m.Machine {
		return true
	}
	other, ok := second[m.Machine]
	if !ok || info.Machine != other.machine || info.Class != elf.ELFCLASS32 {
		return false
	}
	_, err := os.Stat(other.loader)
	return err == nil
}
