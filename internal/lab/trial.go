package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// steps are the trials of one method.
var steps = []struct {
	name string
	try  func(context.Context, *lab, *Row) error
}{
	{"executable, asleep", func(ctx context.Context, l *lab, r *Row) (err error) {
		r.ExeAsleep, err = l.inUse(ctx, trial{file: exeFile, before: "v1", after: "exe", field: "exe"})
		return err
	}},
	{"executable, calling", func(ctx context.Context, l *lab, r *Row) (err error) {
		r.ExeCalling, err = l.inUse(ctx, trial{file: exeFile, before: "v1", after: "exe", field: "exe", calling: true})
		return err
	}},
	{"library, asleep", func(ctx context.Context, l *lab, r *Row) (err error) {
		r.LibAsleep, err = l.inUse(ctx, trial{file: libFile, before: "v1", after: "lib", field: "a"})
		return err
	}},
	{"library, calling", func(ctx context.Context, l *lab, r *Row) (err error) {
		r.LibCalling, err = l.inUse(ctx, trial{file: libFile, before: "v1", after: "lib", field: "a", calling: true})
		return err
	}},
	{"library, small fix", func(ctx context.Context, l *lab, r *Row) (err error) {
		r.LibFix, err = l.inUse(ctx, trial{file: libFile, before: "v1", after: "fix", field: "a"})
		return err
	}},
	{"library, second program", func(ctx context.Context, l *lab, r *Row) (err error) {
		r.LibShared, err = l.inUse(ctx, trial{file: libFile, before: "two", after: "two-lib", field: "a", shared: true})
		return err
	}},
	{"plugin, loaded late", func(ctx context.Context, l *lab, r *Row) (err error) {
		r.Plugin, err = l.inUse(ctx, trial{file: pluginFile, before: "v1", after: "plugin", field: "plugin", late: true})
		return err
	}},
	{"mode, owner, links", func(ctx context.Context, l *lab, r *Row) (err error) {
		r.Traits, err = l.traits(ctx)
		return err
	}},
	{"launches", func(ctx context.Context, l *lab, r *Row) (err error) {
		r.Launches, err = l.launches(ctx)
		return err
	}},
}

// trial is one file replaced under one running program.
type trial struct {
	file          string // that is replaced
	before, after string // the trees, which differ in it
	field         string // of an answer: the version of the file
	calling       bool   // the program calls meanwhile, with cold pages; else it sleeps
	late          bool   // the program loads the file afterwards
	shared        bool   // the program that is looked at is the second one; the first is restarted
}

// inUse runs a trial. Its error means that the trial itself did not work.
func (l *lab) inUse(ctx context.Context, t trial) (Fate, error) {
	if l.method.small {
		t.after += "-small"
	}
	target, err := l.target(ctx, t.before)
	if err != nil {
		return Fate{}, err
	}
	path := filepath.Join(target, t.file)
	old, err := openVictim(path)
	if err != nil {
		return Fate{}, err
	}
	defer old.close()

	program := exeFile
	var first *process
	if t.shared {
		program = otherFile
		if first, err = l.start(ctx, filepath.Join(target, exeFile)); err != nil {
			return Fate{}, err
		}
		defer first.end()
	}
	p, err := l.start(ctx, filepath.Join(target, program))
	if err != nil {
		return Fate{}, err
	}
	defer p.end()
	home := homeOf(p)
	before, err := p.ask(ctx, "ask")
	if err == nil && !t.late && !isMapped(p.cmd.Process.Pid, old.stat.Ino) {
		err = fmt.Errorf("it does not run %s", t.file)
	}
	if err == nil && t.calling {
		err = l.chill(ctx, p, old)
	}
	if err != nil {
		return Fate{}, fmt.Errorf("the program before the replacement: %w", err)
	}

	out, toolErr := l.replace(ctx, t.after, t.file, target)
	if ctx.Err() != nil {
		return Fate{}, ctx.Err()
	}
	question := "ask"
	if t.late {
		question = "plug"
	}
	after, err := p.ask(ctx, question)
	var f Fate
	switch {
	case errors.Is(err, io.EOF):
		f = p.fate()
	case errors.Is(err, errHung):
		f = Fate{Outcome: Hung, Running: Nothing}
	case err != nil:
		return Fate{}, err
	case t.late:
		f = judgePlugin(after)
	default:
		f = judge(before, after, t.field)
	}
	if toolErr != nil {
		f.Said = reason(out, toolErr)
		if f.Outcome == Unharmed && old.untouched(path) {
			f.Outcome, f.Errno = Refused, errnoOf(string(out))
		}
	}
	f.Held = old.held(path, p.cmd.Process.Pid)
	if f.Home = strings.TrimPrefix(homeOf(p), target+"/"); f.Home == strings.TrimPrefix(home, target+"/") {
		f.Home = "kept"
	}
	if t.shared {
		first.end() // and the launch is its restart
	}
	started := l.launch(ctx, filepath.Join(target, exeFile))
	f.Started = started.code(t.field)
	if f.Started == Nothing && f.Said == "" {
		f.Said = started.failure
	}
	return f, ctx.Err()
}

// homeOf is the directory of the file that the process runs, as the kernel
// names it; "" if it has none.
func homeOf(p *process) string {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", p.cmd.Process.Pid))
	if err != nil {
		return ""
	}
	return filepath.Dir(exe)
}

// target makes a fresh one that holds a tree, in the way that the method wants.
func (l *lab) target(ctx context.Context, tree string) (string, error) {
	place := l.fresh("target")
	if err := os.MkdirAll(filepath.Join(place, "aside"), 0o755); err != nil {
		return "", err
	}
	target := filepath.Join(place, "target")
	if l.method.layout == "" {
		return target, l.copy(ctx, l.tree(tree), target)
	}
	out, err := l.shell(ctx, `"$MOULT" apply --layout `+l.method.layout+` "$1" "$2"`, l.tree(tree), target)
	if err != nil {
		return "", fmt.Errorf("first apply: %s", reason(out, err))
	}
	return target, nil
}

// replace runs the method: on one file of a tree, or on the whole of a tree
// that differs in that file.
func (l *lab) replace(ctx context.Context, tree, file, target string) ([]byte, error) {
	if l.method.layout != "" {
		return l.shell(ctx, l.method.set, l.tree(tree), target)
	}
	return l.shell(ctx, l.method.one, filepath.Join(l.tree(tree), file), filepath.Join(target, file))
}

// chill takes most pages of the victim out of memory and has the program call
// the rest without a pause.
func (l *lab) chill(ctx context.Context, p *process, v *victim) error {
	if _, err := p.ask(ctx, "cold"); err != nil {
		return err
	}
	if err := v.evict(); err != nil {
		return err
	}
	_, err := p.ask(ctx, "call")
	return err
}

// judge compares the answers before and after.
func judge(before, after, field string) Fate {
	was, is := fields(before), fields(after)
	f := Fate{Outcome: Unharmed, Running: Old}
	if n, err := strconv.Atoi(is["faults"]); err == nil {
		m, _ := strconv.Atoi(was["faults"])
		f.Faults = n - m
	}
	delete(was, "faults")
	delete(is, "faults")
	if maps.Equal(was, is) {
		return f
	}
	f.Outcome, f.Running = Wrong, Garbled
	if is[field] == "2" {
		f.Running = New
	}
	return f
}

func judgePlugin(answer string) Fate {
	switch answer {
	case "plugin=1":
		return Fate{Outcome: Unharmed, Running: Old}
	case "plugin=2":
		return Fate{Outcome: Mixed, Running: New}
	case "plugin=0":
		return Fate{Outcome: Wrong, Running: Garbled}
	}
	return Fate{Outcome: Unloaded, Running: Nothing, Said: trim(answer)}
}

// fields are the name=value words of an answer.
func fields(answer string) map[string]string {
	m := map[string]string{}
	for _, word := range strings.Fields(answer) {
		if name, value, ok := strings.Cut(word, "="); ok {
			m[name] = value
		}
	}
	return m
}

// launched is what a program said that was started, asked and gone.
type launched struct {
	versions map[string]string
	failure  string // why there are no versions
}

// code is what it runs of the file that this field speaks of.
func (s launched) code(field string) string {
	switch s.versions[field] {
	case "1":
		return Old
	case "2":
		return New
	}
	return Nothing
}

func (s launched) mixed() bool {
	v := s.versions
	return v["exe"] != v["a"] || v["exe"] != v["b"] || v["exe"] != v["plugin"]
}

// launch starts the program, which prints its versions and ends.
func (l *lab) launch(ctx context.Context, path string) launched {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "launch")
	cmd.Dir = l.dir
	cmd.Env = l.env
	cmd.WaitDelay = answerTime
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return launched{failure: failure(stderr.Bytes(), err)}
	}
	return launched{versions: fields(string(out))}
}

// failure is why a launch failed, in a few words that do not name the path.
func failure(stderr []byte, err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		var errno unix.Errno
		if errors.As(err, &errno) {
			return "execve: " + errno.Error()
		}
		return err.Error()
	}
	line := trim(firstLineOf(stderr))
	if _, what, ok := strings.Cut(line, "error while loading shared libraries: "); ok {
		return "loader: " + what
	}
	if head, _, ok := strings.Cut(line, "by ld.so: "); ok {
		return head + "by ld.so"
	}
	if line != "" {
		return line
	}
	return exit.String()
}
