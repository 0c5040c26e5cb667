package linkcheck

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

// tiny is a library without a symbol, that the loader takes.
type tiny struct {
	soname, rpath, runpath string
	needed                 []string
	flags1                 uint64
	machine                elf.Machine
	wide                   bool
}

func (l *tiny) bytes() []byte {
	names := "\x00"
	add := func(s string) uint64 {
		at := len(names)
		names += s + "\x00"
		return uint64(at)
	}
	var dyn []uint64
	for _, n := range l.needed {
		dyn = append(dyn, tagNeeded, add(n))
	}
	for _, s := range []struct {
		tag  elf.DynTag
		text string
	}{{elf.DT_SONAME, l.soname}, {elf.DT_RPATH, l.rpath}, {elf.DT_RUNPATH, l.runpath}} {
		if s.text != "" {
			dyn = append(dyn, uint64(s.tag), add(s.text))
		}
	}
	for len(names)%8 != 0 {
		names += "\x00"
	}
	class := elf.ELFCLASS64
	if !l.wide {
		class = elf.ELFCLASS32
	}
	dyn = append(dyn, tagStrtab, 0, tagStrsz, uint64(len(names)), uint64(elf.DT_SYMTAB), 0x10000, uint64(elf.DT_SYMENT), 24,
		uint64(elf.DT_FLAGS_1), l.flags1, tagNull, 0)
	b := handmade(class, binary.LittleEndian, names, dyn...)
	b[20] = 1 // e_version
	binary.LittleEndian.PutUint16(b[18:], uint16(l.machine))
	if l.wide {
		for at := 64; at < 64+2*56; at += 56 {
			binary.LittleEndian.PutUint32(b[at+4:], uint32(elf.PF_R|elf.PF_W))
			align := uint64(8)
			if at == 64 {
				align = 4096
			}
			binary.LittleEndian.PutUint64(b[at+48:], align)
		}
	}
	return b
}

// layout writes libraries at random places with random ways to them. The first
// is the program; LD_LIBRARY_PATH is returned.
func layout(r *rand.Rand, dir string) (program, libraryPath string, err error) {
	const dirs, libs = 4, 7
	at := func(i int) string { return filepath.Join(dir, fmt.Sprint("d", i)) }
	paths := func() string {
		var all []string
		for range 1 + r.IntN(3) {
			d := r.IntN(dirs)
			all = append(all, []string{
				at(d), fmt.Sprint("$ORIGIN/../d", d), fmt.Sprint("${ORIGIN}/../d", d, "/"), "$ORIGIN", fmt.Sprint("$ORIGIN/../l", d), at(d) + "/$PLATFORM", at(d) + "/$LIB", at(9),
			}[r.IntN(8)])
		}
		return strings.Join(all, ":")
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", "", err
	}
	for i := range dirs {
		for _, sub := range []string{"", "glibc-hwcaps/x86-64-v2", "glibc-hwcaps/x86-64-v3", "x86_64"} {
			if sub != "" && r.IntN(3) > 0 {
				continue
			}
			if err := os.MkdirAll(filepath.Join(at(i), sub), 0o755); err != nil {
				return "", "", err
			}
		}
		if err := os.Symlink(fmt.Sprint("d", r.IntN(dirs)), filepath.Join(dir, fmt.Sprint("l", i))); err != nil {
			return "", "", err
		}
	}
	name := func(i int) string { return fmt.Sprintf("libmoult%d.so", i) }
	var written []string
	for i := range libs {
		for range 1 + r.IntN(4) {
			l := tiny{machine: elf.EM_X86_64, wide: true}
			for range r.IntN(3) + (libs-i)/libs {
				n := name(r.IntN(libs + 1))
				switch r.IntN(12) {
				case 0:
					n = at(r.IntN(dirs)) + "/" + n
				case 1:
					n = "$ORIGIN/" + n
				case 2:
					n = "libc.so.6"
				}
				l.needed = append(l.needed, n)
			}
			switch r.IntN(5) {
			case 0, 1:
				l.rpath = paths()
			case 2, 3:
				l.runpath = paths()
			}
			if r.IntN(3) == 0 {
				l.soname = name(r.IntN(libs))
			}
			if r.IntN(15) == 0 {
				l.flags1 = flagNoDefaults
			}
			switch r.IntN(12) {
			case 0:
				l.machine = elf.EM_AARCH64
			case 1:
				l.wide = false
			}
			if i == 0 {
				l.machine, l.wide = elf.EM_X86_64, true
			}
			p := filepath.Join(at(r.IntN(dirs)), []string{"", "", "", "glibc-hwcaps/x86-64-v2", "glibc-hwcaps/x86-64-v3", "x86_64"}[r.IntN(6)], name(i))
			if i == 0 {
				p = filepath.Join(at(r.IntN(dirs)), "main")
			}
			if _, err := os.Lstat(filepath.Dir(p)); err != nil {
				continue
			}
			os.Remove(p)
			if odd := r.IntN(60); i > 0 && odd < 3 {
				if err := oddEntry(p, odd); err != nil {
					return "", "", err
				}
				continue
			}
			if len(written) > 0 && i > 0 && r.IntN(8) == 0 { // the same file by another name
				if err := os.Symlink(written[r.IntN(len(written))], p); err != nil {
					return "", "", err
				}
				continue
			}
			if err := os.WriteFile(p, l.bytes(), 0o755); err != nil {
				return "", "", err
			}
			written = append(written, p)
			if program == "" {
				program = p
			}
			if i == 0 {
				break
			}
		}
	}
	if r.IntN(3) > 0 {
		var all []string
		for range 1 + r.IntN(3) {
			all = append(all, at(r.IntN(dirs)))
		}
		libraryPath = strings.Join(all, ":")
	}
	return program, libraryPath, nil
}

// oddEntry makes a name that is there and cannot be loaded.
func oddEntry(p string, kind int) error {
	switch kind {
	case 0:
		return os.Mkdir(p, 0o755)
	case 1:
		return os.Symlink(p, p)
	default:
		return os.Symlink("/dev/null/x", p)
	}
}

// TestLayouts holds where we look for libraries against where the loader does.
func TestLayouts(t *testing.T) {
	if _, err := os.Stat("/lib64/ld-linux-x86-64.so.2"); err != nil {
		testneed.Skip(t, "no loader of glibc for x86-64 here")
	}
	cases, seed := *diffCases/4, *diffSeed
	if cases == 0 {
		cases = 200
	}
	if seed == 0 {
		seed = anySeed()
	}
	dir := t.TempDir()
	for d := dir; strings.Contains(d, "TestLayouts"); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir = filepath.Join(dir, "moult-diff-layout")
	bad, many := 0, 0
	for i := range cases {
		if *diffOnly >= 0 && i != *diffOnly {
			continue
		}
		r := rand.New(rand.NewPCG(seed, uint64(i)))
		program, libraryPath, err := layout(r, dir)
		if err != nil {
			t.Fatal(err)
		}
		re, our := real(t, dir, program, libraryPath), ours(t, program, libraryPath)
		if len(re.loaded) > 1 {
			many++
		}
		if how := differ(re, our); how != "" {
			if bad++; bad > 10 {
				break
			}
			t.Errorf("case %d of seed %d: %s", i, seed, strings.ReplaceAll(how, dir, ""))
			if *diffOnly >= 0 {
				fmt.Println(program, libraryPath, re.text)
			}
		}
	}
	t.Logf("seed %d: %d of %d load sets are the loader's, %d of several libraries", seed, cases-bad, cases, many)
	if many < cases/20 && *diffOnly < 0 {
		t.Errorf("%d of %d programs load several libraries, want more: the test does not bite", many, cases)
	}
}
