// Package lab shows what the usual ways of replacing a file do to the programs
// that use it, with real processes: it compiles a program and three libraries,
// runs them, replaces the files under them by each method, and looks.
//
// The rules of this room:
//
//   - Nothing is known beforehand. Every cell of the report comes from a wait
//     status, an answer over a pipe, a stat or what a tool printed.
//   - The files under test are changed by the tools under test alone (cp, mv,
//     install, ln, rsync, moult), which run as processes. For its own set-up
//     the package calls os directly, below its own work directory: it is the
//     one room beside internal/disk that may change files.
//   - Every process that it starts has an owner here who waits for it, also
//     when the context ends.
package lab

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options say where and how much. The zero value tries every method but
// moult's in the current directory.
type Options struct {
	// Dir is an existing directory in which the lab makes its work directory
	// and removes it again. The report holds for the file system that it is
	// on. Default: the current directory if it can be written, else
	// os.TempDir.
	Dir string

	// Moult is the moult program that is tried. "" leaves its methods out.
	Moult string

	// CC is the C compiler, with arguments if need be. Default: $CC, else cc.
	CC string

	// Methods are the names of those to try. Default: all.
	Methods []string

	// Quick counts launches for a shorter time. Everything else is the same.
	Quick bool

	// OnEvent hears of the progress, from one goroutine; nil is allowed.
	OnEvent func(Event)
}

// Event is one step of a run.
type Event struct {
	Method string // the title of the method that is tried; "" for the set-up
	Step   string // what is tried
	Done   int    // steps behind us
	Total  int    // all steps
}

// launchTime is how long the launches of one method are counted.
const (
	launchTime      = 800 * time.Millisecond
	quickLaunchTime = 250 * time.Millisecond
)

// lab is one run.
type lab struct {
	opt    Options
	dir    string            // the work directory
	env    []string          // of every tool
	tools  map[string]string // name to path, of those that are here
	report *Report
	method *method // the one that is tried now
	done   int
	total  int
	trials int // names directories
}

// Run tries each method and reports what it saw. An error means that nothing
// could be tried (no C compiler, no room, programs cannot be run there) or
// that ctx ended; the work directory is removed in any case.
func Run(ctx context.Context, opt Options) (*Report, error) {
	chosen, err := choose(opt.Methods)
	if err != nil {
		return nil, err
	}
	l := &lab{opt: opt}
	if err := l.open(); err != nil {
		return nil, err
	}
	defer os.RemoveAll(l.dir)
	defer quietCores()()

	if err := l.survey(ctx); err != nil {
		return nil, err
	}
	l.total = 1 + len(chosen)*len(steps)
	l.step("compile")
	if err := l.build(ctx); err != nil {
		return nil, cmp.Or(ctx.Err(), err) // what the end of ctx has cut short is no news
	}
	if s := l.launch(ctx, filepath.Join(l.tree("v1"), exeFile)); s.failure != "" {
		return nil, cmp.Or(ctx.Err(), error(&LaunchError{l.report.Dir, s.failure}))
	}
	l.done++
	for i := range chosen {
		l.method = &chosen[i]
		if why := l.missing(ctx, l.method); why != "" {
			l.report.Untried = append(l.report.Untried, Untried{l.method.name, l.method.title, why})
			l.done += len(steps)
			continue
		}
		row := Row{Method: l.method.name, Title: l.method.title, Command: l.method.people()}
		for _, s := range steps {
			l.step(s.name)
			err := s.try(ctx, l, &row)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %s: %w", l.method.title, s.name, err)
			}
			l.done++
		}
		l.report.Rows = append(l.report.Rows, row)
	}
	return l.report, nil
}

func (l *lab) step(name string) {
	if l.opt.OnEvent == nil {
		return
	}
	e := Event{Step: name, Done: l.done, Total: l.total}
	if l.method != nil {
		e.Method = l.method.title
	}
	l.opt.OnEvent(e)
}

// open makes the work directory.
func (l *lab) open() error {
	dir := l.opt.Dir
	if dir == "" {
		dir = "."
		if unix.Access(dir, unix.W_OK|unix.X_OK) != nil {
			dir = os.TempDir()
		}
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return err
	}
	if l.dir, err = os.MkdirTemp(dir, "moult-lab-"); err != nil {
		return err
	}
	// Nobody but the user walks into the work directory while it is there:
	// it holds files of other owners.
	l.env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		return strings.HasPrefix(v, "LC_") || strings.HasPrefix(v, "LD_") || strings.HasPrefix(v, "RSYNC_")
	}), "LC_ALL=C", "MOULT_STATE_DIR="+filepath.Join(l.dir, "state"))
	return nil
}

// survey writes down what the report holds for.
func (l *lab) survey(ctx context.Context) error {
	fstype, err := fileSystem(l.dir)
	if err != nil {
		return err
	}
	l.report = &Report{
		Kernel:     kernelRelease(),
		Machine:    runtime.GOARCH,
		FileSystem: fstype,
		Dir:        filepath.Dir(l.dir),
		Root:       os.Geteuid() == 0,
		Quick:      l.opt.Quick,
		Rows:       []Row{},
		Untried:    []Untried{},
	}
	l.tools = map[string]string{}
	for _, name := range []string{"sh", "cp", "mv", "rm", "ln", "install", "rsync"} {
		if path, err := exec.LookPath(name); err == nil {
			l.tools[name] = path
		}
	}
	if l.opt.Moult != "" {
		path, err := filepath.Abs(l.opt.Moult)
		if err != nil {
			return err
		}
		l.tools["moult"] = path
		l.env = append(l.env, "MOULT="+path)
	}
	for _, name := range []string{"cp", "rsync", "moult"} {
		if path, ok := l.tools[name]; ok {
			l.report.Tools = append(l.report.Tools, Tool{name, l.version(ctx, path)})
		}
	}
	return nil
}

// version is the first line of what a program says to --version, without what
// rsync adds to it.
func (l *lab) version(ctx context.Context, name string, args ...string) string {
	out, err := l.tool(ctx, name, append(args, "--version")...)
	if err != nil {
		return filepath.Base(name) + " of unknown version"
	}
	line, _, _ := strings.Cut(firstLineOf(out), " protocol ")
	return strings.Join(strings.Fields(line), " ")
}

// missing says why a method cannot be tried here, "" if it can.
func (l *lab) missing(ctx context.Context, m *method) string {
	for _, tool := range m.needs {
		if _, ok := l.tools[tool]; ok {
			continue
		}
		if tool == "moult" {
			return "no moult program was named"
		}
		return "no " + tool + " here"
	}
	if m.probe == "" {
		return ""
	}
	out, err := l.tool(ctx, l.tools["moult"], m.probe, "--help")
	if err != nil {
		return fmt.Sprintf("%s %s: %s", filepath.Base(l.tools["moult"]), m.probe, reason(out, err))
	}
	return ""
}

// fresh is a path below the work directory that nothing has used yet.
func (l *lab) fresh(what string) string {
	l.trials++
	return filepath.Join(l.dir, fmt.Sprintf("%s-%d", what, l.trials))
}

// choose returns the methods with these names, all for none.
func choose(names []string) ([]method, error) {
	if len(names) == 0 {
		return methods, nil
	}
	var chosen []method
	for _, name := range names {
		m := find(name)
		if m == nil {
			return nil, &UnknownMethodError{Name: name}
		}
		chosen = append(chosen, *m)
	}
	return chosen, nil
}

// LaunchError means that no program can be started where the lab is, as on a file
// system that is mounted with noexec.
type LaunchError struct {
	Dir string
	Why string
}

func (e *LaunchError) Error() string {
	return fmt.Sprintf("start a program in %s: %s", e.Dir, e.Why)
}

// UnknownMethodError is a name that no method has.
type UnknownMethodError struct{ Name string }

func (e *UnknownMethodError) Error() string {
	return fmt.Sprintf("no method is named %q; there are %s", e.Name, strings.Join(Names(), ", "))
}
