package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// section is one paragraph of the report.
type section struct {
	name    string
	measure func(b *bench, ctx context.Context, s *Section) error
}

// The sections, in the order in which they run: the trees that first makes are
// those that update and nothing go on with.
func sections() []section {
	return []section{
		{"start", (*bench).measureStart},
		{"install", (*bench).measureInstall},
		{"window", (*bench).measureWindow},
		{"launches", (*bench).measureLaunches},
		{"first", (*bench).measureFirst},
		{"update", (*bench).measureUpdate},
		{"due", (*bench).measureDue},
		{"nothing", (*bench).measureNothing},
		{"clone", (*bench).measureClone},
		{"many", (*bench).measureMany},
		{"ps", (*bench).measurePs}, // before check, which makes this process large
		{"check", (*bench).measureLinks},
		{"reexec", (*bench).measureReexec},
	}
}

func sectionNames() []string {
	var names []string
	for _, s := range sections() {
		names = append(names, s.name)
	}
	return names
}

func findSection(name string) *section {
	for _, s := range sections() {
		if s.name == name {
			return &s
		}
	}
	return nil
}

// bench is one run of the program.
type bench struct {
	opt    options
	dir    string // the work directory
	moult  string // the program
	env    []string
	stderr io.Writer

	source *tree             // made by the first section that needs it
	set    *set              // likewise
	places map[string]*place // standing targets, by the name of the way
}

// measureAll runs every section that is asked for. With an error it returns
// what was measured before.
func measureAll(ctx context.Context, o options, stderr io.Writer) (report *Report, err error) {
	began := time.Now()
	dir, err := os.MkdirTemp(o.dir, "moult-bench-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, removeAll(dir)) }()
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	b := &bench{opt: o, dir: dir, stderr: stderr, places: map[string]*place{}}
	b.env = environment(dir)
	if b.moult, err = b.program(ctx); err != nil {
		return nil, err
	}
	report = &Report{Schema: 1, Scale: o.scale, Rounds: o.rounds, Host: thisHost(dir), Versions: b.versions(ctx)}
	if err := b.enoughSpace(); err != nil {
		return nil, err
	}
	for _, s := range sections() {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), s.name) {
			continue
		}
		b.say("%s", s.name)
		part := Section{Name: s.name}
		err := s.measure(b, ctx, &part)
		report.Sections = append(report.Sections, part)
		if err != nil {
			return report, fmt.Errorf("%s: %w", s.name, err)
		}
	}
	report.Seconds = math.Round(time.Since(began).Seconds())
	return report, nil
}

// say tells on standard error how far it is.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.stderr, "bench: "+format+"\n", args...)
}

// scaled is a count at the chosen scale, but not less than least.
func (b *bench) scaled(n, least int) int {
	return max(least, int(float64(n)*b.opt.scale))
}

// program is the moult that is measured: the one that was named, or one that is
// built from here; and installed, as its peers are. What the linker has written
// lies in the page cache as single pages, so that a start from there takes a
// quarter more of the processor than from the same file copied.
func (b *bench) program(ctx context.Context) (string, error) {
	built, err := b.build(ctx)
	if err != nil {
		return "", err
	}
	out := filepath.Join(b.dir, "moult")
	if text, err := exec.CommandContext(ctx, built, "install", built, out).CombinedOutput(); err != nil {
		return "", fmt.Errorf("install moult: %w\n%s", err, text)
	}
	return out, nil
}

func (b *bench) build(ctx context.Context) (string, error) {
	if b.opt.moult != "" {
		path, err := exec.LookPath(b.opt.moult)
		if err != nil {
			return "", err
		}
		return filepath.Abs(path)
	}
	out := filepath.Join(b.dir, "built")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, "moult.example/cmd/moult")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build moult: %w\n%s", err, text)
	}
	return out, nil
}

// enoughSpace refuses to fill a disk: the peers keep the tree seven times.
func (b *bench) enoughSpace() error {
	need, free := int64(12*b.opt.scale*treeBytes)+(1<<30), freeBytes(b.dir)
	if free < need {
		return fmt.Errorf("%s: %d MB needed, %d MB free; --dir and --scale help", filepath.Dir(b.dir), need>>20, free>>20)
	}
	return nil
}

func freeBytes(dir string) int64 {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return 0
	}
	return int64(st.Bavail) * st.Bsize
}

// discard gives up a tree that is of no more use. As long as there is room it
// stays until the end: ext4 does not reuse the inodes that were freed within
// the last minutes (recently_deleted in fs/ext4/ialloc.c) but searches past
// them, so what is removed here would slow down whoever makes files next. Its
// pages are given back, as if it were removed.
func (b *bench) discard(dir string) error {
	if freeBytes(b.dir) > int64(8*b.opt.scale*treeBytes) {
		if err := b.settle(dir); err != nil { // dirty pages would stay
			return err
		}
		return cool(dir)
	}
	return os.RemoveAll(dir)
}

// settle ends what an earlier job has left to do, so that it is no burden on
// the next one, and brings the trees that are read into the cache.
func (b *bench) settle(dir string, sources ...string) error {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	for _, source := range sources {
		if err := warm(source); err != nil {
			return err
		}
	}
	return nil
}

// removeAll removes a tree, also one in which directories are not ours to
// search: retired generations are 0700.
func removeAll(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove the work directory: %w", err)
	}
	return nil
}
