package linkcheck

import (
	"context"
	"debug/elf"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"moult.example/internal/testneed"
)

// hostFiles are the programs and libraries for x86-64 below some directories.
func hostFiles(t testing.TB, dirs ...string) (paths []string) {
	c, err := newChecker(Options{}, map[fileID]bool{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.objects.close()
	for _, dir := range dirs {
		filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil
			}
			if fi, err := d.Info(); err != nil || fi.Mode()&0o111 == 0 && !libraryName(d.Name()) {
				return nil
			}
			o, err := c.objects.open(p)
			if err == nil && o.bad == nil && (o.image.kind == Program || o.image.kind == Library) && o.image.machine == elf.EM_X86_64 && o.image.wide {
				paths = append(paths, p)
			}
			return nil
		})
	}
	return paths
}

// Whatever this host has, works: what we call broken, the loader does, too.
func TestHost(t *testing.T) {
	if _, err := os.Stat("/lib64/ld-linux-x86-64.so.2"); err != nil {
		testneed.Skip(t, "no loader of glibc for x86-64 here")
	}
	all := hostFiles(t, "/usr/bin", "/usr/sbin", "/usr/lib", "/usr/libexec")
	r, err := Check(context.Background(), all, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r.Programs+r.Libraries != len(all) {
		t.Errorf("got %d programs and %d libraries, want %d of both", r.Programs, r.Libraries, len(all))
	}
	for _, f := range r.Findings {
		if f.Severity != Break {
			continue
		}
		program := f.Object
		if len(f.Programs) > 0 {
			program = f.Programs[0]
		}
		v := real(t, "/", program, "")
		if v.fatal == "" && v.assertion == "" && len(v.missing)+len(v.undefined)+len(v.versions) == 0 {
			t.Errorf("%s of %s: the loader has nothing against it: %+v", f.Problem, program, f)
		}
	}
	t.Logf("%d files, %d references, %d breaks, %d warnings", len(all), r.References, r.Count(Break), r.Count(Warning))

	// And file by file, what is said of each: all of them by make difftest.
	step := 1
	if *diffCases == 0 {
		step = 1 + len(all)/150
	}
	same := 0
	for i := 0; i < len(all); i += step {
		fi, err := os.Stat(all[i])
		if err != nil || fi.Mode()&0o004 == 0 || fi.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 || fi.Size() > 64<<20 {
			continue
		}
		if info, err := needsOf(t, all[i]); err != nil || len(info.Needed) == 0 || info.Interp != "" && info.Interp != "/lib64/ld-linux-x86-64.so.2" || muslFile(info) {
			continue
		}
		if how := differ(real(t, "/", all[i], ""), ours(t, all[i], "")); how != "" {
			t.Errorf("%s: %s", all[i], how)
		}
		same++
	}
	t.Logf("%d files compared one by one", same)
}

func muslFile(info Info) bool {
	for _, n := range info.Needed {
		if n == "libc.so" || n == "libc.musl-x86_64.so.1" {
			return true
		}
	}
	return false
}
