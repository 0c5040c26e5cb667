package realtest

import (
	"debug/elf"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

// What is copied of this host at most.
const (
	mostFiles = 3000
	mostBytes = 250 << 20
	mostEach  = 512 << 10 // but for what the test runs
)

// system copies this host's programs and libraries to dir/bin and dir/lib and
// returns how many files that are, and how many of them are ELF.
func system(t testing.TB, dir string) (files, elfs int) {
	t.Helper()
	libs, _ := filepath.Glob("/usr/lib/*-linux-gnu")
	c := copier{TB: t, seen: map[string]bool{}}
	// Few enough programs that there is room for libraries.
	c.copy("/usr/bin", dir+"/bin", mostFiles/2, mostBytes/2)
	for _, from := range append(libs, "/usr/lib64") {
		c.copy(from, dir+"/lib", mostFiles, mostBytes)
	}
	return c.files, c.elfs
}

type copier struct {
	testing.TB
	files, elfs int
	bytes       int64
	seen        map[string]bool
}

func (c *copier) copy(from, to string, most int, bytes int64) {
	c.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil
		}
		if err != nil {
			return err
		}
		dst := to + strings.TrimPrefix(path, from)
		fi, err := d.Info()
		switch {
		case err != nil || c.seen[dst]:
			return err
		case d.IsDir():
			return os.MkdirAll(dst, 0o755)
		case fi.Mode()&fs.ModeSymlink != 0:
			text, err := os.Readlink(path)
			if err != nil {
				return err
			}
			c.seen[dst] = true
			return os.Symlink(text, dst)
		case !fi.Mode().IsRegular() || fi.Size() > mostEach && !slices.Contains(tools, d.Name()) && d.Name() != "libc.so.6" || c.files >= most || c.bytes+fi.Size() > bytes:
			return nil
		}
		c.seen[dst] = true
		return c.file(path, dst, fi)
	})
	must(c, err)
}

func (c *copier) file(from, to string, fi fs.FileInfo) error {
	src, err := os.Open(from)
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	n, err := io.Copy(dst, src)
	if err2 := dst.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return err
	}
	c.files++
	c.bytes += n
	if f, err := elf.Open(to); err == nil {
		f.Close()
		c.elfs++
	}
	mode := fi.Mode() & (fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid)
	if os.Geteuid() != 0 {
		mode &= fs.ModePerm // nobody but root may give such files an owner
	}
	return os.Chmod(to, mode)
}

// change makes another release of a copied system, as an upgrade would: dozens
// of files with other bytes, some new, some gone, some with another mode.
func change(t testing.TB, dir string) {
	t.Helper()
	programs, err := filepath.Glob(dir + "/bin/*")
	must(t, err)
	libs, err := filepath.Glob(dir + "/lib/*.so.*")
	must(t, err)
	slices.Sort(libs)
	for i, path := range append(programs[:60], libs[:min(60, len(libs))]...) {
		if fi, err := os.Lstat(path); err != nil || !fi.Mode().IsRegular() || fi.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			continue
		}
		switch i % 10 {
		case 0:
			must(t, os.Remove(path))
		case 1:
			must(t, os.Chmod(path, 0o700))
		default: // bytes behind its end do not change what a program does
			appendTo(t, path, "changed")
		}
	}
	for _, name := range tools {
		if fi, err := os.Lstat(dir + "/bin/" + name); err == nil && fi.Mode().IsRegular() {
			appendTo(t, dir+"/bin/"+name, "changed")
		}
	}
	tree{"bin/new-tool": "#!/bin/sh\necho new\n", "share/new/file": "new"}.write(t, dir)
}

func appendTo(t testing.TB, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, errors.Join(err, f.Close()))
}

// tools are programs that are on every host.
var tools = []string{"ls", "cat", "env", "sort", "sha256sum", "tar", "grep", "find"}

// works runs programs from the target with the target's libraries.
func works(t testing.TB, target string) {
	t.Helper()
	for _, name := range tools {
		cmd := exec.Command(target+"/bin/"+name, "--version")
		cmd.Env = []string{"LD_LIBRARY_PATH=" + target + "/lib"}
		got := finish(t, cmd)
		if got.status != 0 || !strings.Contains(got.stdout, name) {
			t.Errorf("%v", got)
		}
	}
	cmd := exec.Command(target+"/bin/cat", "/proc/self/maps")
	cmd.Env = []string{"LD_LIBRARY_PATH=" + target + "/lib"}
	real, err := filepath.EvalSymlinks(target + "/lib")
	must(t, err)
	if got := finish(t, cmd); !strings.Contains(got.stdout, real+"/libc.so.6") {
		t.Errorf("a program from the target has not the target's libraries:\n%v", got)
	}
}

// A release of a few thousand files of this very host is applied, changed,
// applied, rolled back, packed and applied again. At each step the target is
// the release, hash for hash, and its programs run.
func TestSystem(t *testing.T) {
	h := newHost(t)
	if _, err := os.Stat("/usr/bin/ls"); err != nil {
		testneed.Skip(t, "needs programs in /usr/bin")
	}
	source, target := h.path("source"), h.path("app")
	files, elfs := system(t, source)
	t.Logf("%d files, %d of them ELF", files, elfs)
	if elfs < 500 {
		t.Errorf("%d ELF files are not a system", elfs)
	}
	owners := "--owners=none"
	if os.Geteuid() == 0 {
		owners = "--owners=numbers" // some are set-user-id
	}
	check := func(what string, want map[string]string) {
		t.Helper()
		sameTree(t, what, digests(t, target, ".moult"), want)
		h.ok("verify", target)
		works(t, target)
	}
	h.ok("apply", owners, source, target)
	first := digests(t, source)
	check("applied", first)

	change(t, source)
	second := digests(t, source)
	var plan struct{ Changes []struct{ Action string } }
	h.document(&plan, 0, "apply", owners, "--dry-run", source, target)
	if n := len(plan.Changes); n < 50 || n > 500 {
		t.Errorf("planned %d changes, want some dozens", n)
	}
	h.ok("apply", owners, source, target)
	check("changed", second)

	h.ok("rollback", target)
	check("rolled back", first)

	packed := h.path("system.moult")
	h.ok("pack", owners, source, "-o", packed)
	h.ok("apply", packed, target)
	check("packed", second)
	var result struct{ Unchanged bool }
	if h.document(&result, 0, "apply", owners, source, target); !result.Unchanged {
		t.Error("the packed release and its source are not the same release")
	}
	h.ok("apply", packed, h.path("other"))
	sameTree(t, "packed, elsewhere", digests(t, h.path("other"), ".moult"), second)
}
