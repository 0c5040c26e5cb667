package moult_test

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

// checkout is a directory like one in which make has run, with all that make
// install takes, and nothing to build it from.
func checkout(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	moult := filepath.Join(dir, "moult")
	run("go", "build", "-tags", "man", "-o", moult, "./cmd/moult")
	for _, made := range []string{"out/man", "out/completion"} {
		if err := os.MkdirAll(filepath.Join(dir, made), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run(moult, "man", filepath.Join(dir, "out/man"))
	for shell, name := range map[string]string{"bash": "moult", "zsh": "_moult", "fish": "moult.fish"} {
		script, err := exec.Command(moult, "completion", shell).Output()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "out/completion", name), script, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	run("cp", append(append([]string{"-R"}, pages...), "LICENSE", "Makefile", "docs", "examples", "include", "packaging", dir)...)
	return dir
}

// files are the regular files below a directory, each with its size and time.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			all = append(all, strings.TrimPrefix(name, dir)+" "+info.ModTime().String())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// make install places what was built, builds nothing and leaves the checkout as
// it is; links between the installed pages lead somewhere; make uninstall removes
// all of it, and nothing else.
func TestInstall(t *testing.T) {
	t.Parallel()
	testneed.Tool(t, "make")
	dir, root := checkout(t), filepath.Join(t.TempDir(), "a root")
	doMake := func(target string) {
		t.Helper()
		cmd := exec.Command("make", "-s", target, "DESTDIR="+root, "PREFIX=/usr", "GO=false")
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "MAKEFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("make %s: %v\n%s", target, err, out)
		}
	}
	doc := filepath.Join(root, "usr/share/doc/moult")
	for _, theirs := range []string{filepath.Join(root, "usr/share/man/man1/moulting.1"), filepath.Join(doc, "docs/mine.txt")} {
		if err := os.MkdirAll(filepath.Dir(theirs), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(theirs, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	built, foreign := files(t, dir), files(t, root)
	doMake("install")
	if now := files(t, dir); !slices.Equal(now, built) {
		t.Errorf("the checkout was %q, is %q", built, now)
	}
	for _, name := range []string{
		"bin/moult", "share/man/man1/moult-apply.1", "share/bash-completion/completions/moult",
		"lib/systemd/system/moult-recover.service", "include/moult.h", "share/pkgconfig/moult.pc",
	} {
		if _, err := os.Stat(filepath.Join(root, "usr", name)); err != nil {
			t.Error(err)
		}
	}
	pages, err := filepath.Glob(filepath.Join(dir, "out/man/*.1"))
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if _, err := os.Stat(filepath.Join(root, "usr/share/man/man1", filepath.Base(page))); err != nil {
			t.Errorf("COMMANDS in the Makefile lacks a command: %v", err)
		}
	}
	checkLinks(t, doc)
	doMake("uninstall")
	if left := files(t, root); !slices.Equal(left, foreign) {
		t.Errorf("uninstall has left %q, want %q", left, foreign)
	}
	if left, err := filepath.Glob(doc + "/*"); err != nil || !slices.Equal(left, []string{doc + "/docs"}) {
		t.Errorf("directories are left: %q, %v", left, err)
	}
	doMake("uninstall") // nothing is there, and that is no failure
}

var pageLink = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)\s]*)?\)`)

// checkLinks finds relative links in the pages below a directory that lead out of
// it or nowhere.
func checkLinks(t *testing.T, dir string) {
	t.Helper()
	links := 0
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".md" {
			return err
		}
		text, err := os.ReadFile(name)
		for _, link := range pageLink.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			links++
			to := filepath.Join(filepath.Dir(name), link[1])
			if _, err := os.Stat(to); err != nil || !strings.HasPrefix(to, dir+"/") {
				t.Errorf("%s: the link to %s leads nowhere", strings.TrimPrefix(name, dir+"/"), link[1])
			}
		}
		return err
	})
	if err != nil || links < 20 {
		t.Errorf("%d links below %s, want more: %v", links, dir, err)
	}
}
