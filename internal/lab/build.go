package lab

import (
	"context"
	"embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

//go:embed src
var sources embed.FS

// The files of a tree. The program finds the libraries by its run path,
// $ORIGIN/../lib, and loads the plugin late.
const (
	exeFile    = "bin/prog"
	otherFile  = "bin/other" // the same program again, as a second one
	libFile    = "lib/liba.so"
	libBFile   = "lib/libb.so"
	pluginFile = "lib/libplugin.so"
)

// part is one thing to compile.
type part struct {
	object  string // file below obj
	source  string
	defines string
}

var parts = []part{
	{"liba.1", "lib.c", "NAME=a VERSION=1 PAGES=256"},
	{"liba.2", "lib.c", "NAME=a VERSION=2 PAGES=256"},
	{"liba.fix", "lib.c", "NAME=a VERSION=2 PAGES=256 SAME_LAYOUT"},
	{"liba.small", "lib.c", "NAME=a VERSION=2 PAGES=16"},
	{"libb.1", "lib.c", "NAME=b VERSION=1 PAGES=16"},
	{"libb.2", "lib.c", "NAME=b VERSION=2 PAGES=16"},
	{"libplugin.1", "lib.c", "NAME=plugin VERSION=1 PAGES=16"},
	{"libplugin.2", "lib.c", "NAME=plugin VERSION=2 PAGES=16"},
	{"prog.1", "prog.c", "VERSION=1 PAGES=64"},
	{"prog.2", "prog.c", "VERSION=2 PAGES=64"},
	{"prog.small", "prog.c", "VERSION=2 PAGES=16"},
}

// tree is what one release of the lab consists of, by object.
type tree struct {
	name               string
	prog, a, b, plugin string
	withOther          bool
}

// The trees that differ from v1 in one file are what moult apply, which takes
// releases, gets in place of that file.
var trees = []tree{
	{name: "v1", prog: "1", a: "1", b: "1", plugin: "1"},
	{name: "v2", prog: "2", a: "2", b: "2", plugin: "2"},
	{name: "exe", prog: "2", a: "1", b: "1", plugin: "1"},
	{name: "exe-small", prog: "small", a: "1", b: "1", plugin: "1"},
	{name: "lib", prog: "1", a: "2", b: "1", plugin: "1"},
	{name: "lib-small", prog: "1", a: "small", b: "1", plugin: "1"},
	{name: "fix", prog: "1", a: "fix", b: "1", plugin: "1"},
	{name: "fix-small", prog: "1", a: "small", b: "1", plugin: "1"},
	{name: "plugin", prog: "1", a: "1", b: "1", plugin: "2"},
	{name: "plugin-small", prog: "1", a: "1", b: "1", plugin: "2"},
	{name: "two", prog: "1", a: "1", b: "1", plugin: "1", withOther: true},
	{name: "two-lib", prog: "1", a: "2", b: "1", plugin: "1", withOther: true},
	{name: "two-lib-small", prog: "1", a: "small", b: "1", plugin: "1", withOther: true},
}

func (l *lab) tree(name string) string   { return filepath.Join(l.dir, "trees", name) }
func (l *lab) object(name string) string { return filepath.Join(l.dir, "obj", name) }

// build compiles the parts and lays out the trees.
func (l *lab) build(ctx context.Context) error {
	for _, dir := range []string{"src", "obj", "trees", "state"} {
		if err := os.Mkdir(filepath.Join(l.dir, dir), 0o755); err != nil {
			return err
		}
	}
	names, err := sources.ReadDir("src")
	if err != nil {
		return err
	}
	for _, e := range names {
		text, err := sources.ReadFile("src/" + e.Name())
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(l.dir, "src", e.Name()), text, 0o644); err != nil {
			return err
		}
	}
	cc := l.compiler()
	for _, p := range parts {
		if err := l.compile(ctx, cc, p); err != nil {
			return err
		}
	}
	l.report.Tools = append(l.report.Tools, Tool{"cc", l.version(ctx, cc[0], cc[1:]...)})
	for _, t := range trees {
		if err := l.lay(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) compiler() []string {
	for _, cc := range []string{l.opt.CC, os.Getenv("CC")} {
		if words := strings.Fields(cc); len(words) > 0 {
			return words
		}
	}
	return []string{"cc"}
}

// CompilerError means that the C compiler is missing or does not compile.
type CompilerError struct {
	Command string
	Output  string // the first line of what it said
	Err     error
}

func (e *CompilerError) Error() string {
	if e.Output == "" {
		return fmt.Sprintf("compile with %s: %v", e.Command, e.Err)
	}
	return fmt.Sprintf("compile with %s: %v: %s", e.Command, e.Err, e.Output)
}

func (e *CompilerError) Unwrap() error { return e.Err }

func (l *lab) compile(ctx context.Context, cc []string, p part) error {
	args := append(cc[1:len(cc):len(cc)], "-O1", "-o", l.object(p.object))
	for _, d := range strings.Fields(p.defines) {
		args = append(args, "-D"+d)
	}
	args = append(args, filepath.Join(l.dir, "src", p.source))
	if p.source == "lib.c" {
		name, _, _ := strings.Cut(p.object, ".")
		args = append(args, "-fPIC", "-shared", "-Wl,-soname,"+name+".so")
	} else {
		// linked against version 1, as a program lives longer than a library
		args = append(args, l.object("liba.1"), l.object("libb.1"), "-ldl",
			"-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN/../lib")
	}
	if out, err := l.tool(ctx, cc[0], args...); err != nil {
		return &CompilerError{strings.Join(cc, " "), firstLineOf(out), err}
	}
	return nil
}

// lay copies the objects of a tree to their places. Files of version 1 are an
// hour older than the others, for tools that compare times.
func (l *lab) lay(ctx context.Context, t tree) error {
	files := [][2]string{
		{"prog." + t.prog, exeFile}, {"liba." + t.a, libFile},
		{"libb." + t.b, libBFile}, {"libplugin." + t.plugin, pluginFile},
	}
	if t.withOther {
		files = append(files, [2]string{"prog.1", otherFile})
	}
	for _, dir := range []string{"bin", "lib"} {
		if err := os.MkdirAll(filepath.Join(l.tree(t.name), dir), 0o755); err != nil {
			return err
		}
	}
	now := time.Now().Truncate(time.Second)
	for _, f := range files {
		dst := filepath.Join(l.tree(t.name), f[1])
		if err := l.copy(ctx, l.object(f[0]), dst); err != nil {
			return err
		}
		when := now
		if strings.HasSuffix(f[0], ".1") {
			when = now.Add(-time.Hour)
		}
		if err := os.Chtimes(dst, when, when); err != nil {
			return err
		}
	}
	return nil
}

// copy copies a file or a tree, with modes and times. It runs cp, so that no
// descriptor of ours that is open for writing leaks into a process started at
// the same time, which would make the copy "text file busy".
func (l *lab) copy(ctx context.Context, src, dst string) error {
	out, err := l.tool(ctx, "cp", "-Rp", src, dst)
	if err != nil {
		return fmt.Errorf("copy %s: %s", src, reason(out, err))
	}
	return nil
}
