package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"moult.example/internal/stale"
)

// emptyUnit is what ps says of a --unit in which there is no process: whoever
// watches a service by a name that was typed wrongly must not see that all is
// well for ever.
type emptyUnit struct {
	pattern string
	state   string // "stopped": systemd has a file for it; "unknown": it has none
	alias   string // the name that it has where processes are
	hidden  bool
}

// The states of a unit without a process.
const (
	unitStopped = "stopped"
	unitUnknown = "unknown"
)

// lookUnit says what is with a --unit of which nothing was found; nil if there
// is a process in it.
func (f *psFlags) lookUnit(ctx context.Context) (*emptyUnit, error) {
	found, hidden, err := stale.InUnit(ctx, stale.Options{}, f.wants)
	if err != nil || found {
		return nil, err
	}
	return f.unitWithout(hidden), nil
}

// unitWithout looks for the file of a unit in which nobody is.
func (f *psFlags) unitWithout(hidden bool) *emptyUnit {
	e := &emptyUnit{pattern: f.unit, state: unitUnknown, hidden: hidden}
	dirs := f.unitDirs
	if dirs == nil {
		dirs = unitDirs()
	}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // most are not there
		}
		for _, entry := range entries {
			name := entry.Name()
			if !holdsProcesses(name) || !f.wants(stale.Unit{Name: name}) && !f.wantsInstance(name) {
				continue
			}
			real, err := filepath.EvalSymlinks(filepath.Join(dir, name))
			base := filepath.Base(real)
			if err == nil && real != os.DevNull && base != name && !strings.Contains(base, "@.") {
				e.alias = base
				continue
			}
			e.state = unitStopped
		}
	}
	return e
}

// wantsInstance says whether --unit is about instances of a template, as app@1 is
// of app@.service.
func (f *psFlags) wantsInstance(template string) bool {
	if !strings.Contains(template, "@.") {
		return false
	}
	before, _, is := strings.Cut(f.unit, "@")
	kind := ".service"
	if holdsProcesses(f.unit) {
		kind = path.Ext(f.unit)
	}
	ok, _ := path.Match(before+"@"+kind, template)
	return is && ok
}

// holdsProcesses leaves out timers, targets, paths and slices: a process is in
// what they start.
func holdsProcesses(unit string) bool {
	return slices.Contains([]string{".service", ".scope", ".socket", ".mount", ".swap"}, path.Ext(unit))
}

// unitDirs are the directories in which systemd keeps the files of units, those
// of the host and those of this user (systemd.unit(5)).
func unitDirs() []string {
	var dirs []string
	for _, dir := range []string{"/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"} {
		dirs = append(dirs, dir+"/systemd/system", dir+"/systemd/user")
	}
	runs := []string{"/run"}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		runs = append(runs, dir)
	}
	for _, run := range runs {
		for _, name := range []string{"transient", "generator", "generator.early", "generator.late", "user"} {
			dirs = append(dirs, run+"/systemd/"+name)
		}
	}
	if home, err := os.UserHomeDir(); err == nil {
		dirs = append(dirs, home+"/.config/systemd/user", home+"/.local/share/systemd/user")
	}
	return dirs
}

// text is what people are told.
func (e *emptyUnit) text() string {
	who := "No process"
	if e.hidden {
		who = "No process that is shown"
	}
	text := fmt.Sprintf("%s is in a unit %s", who, plain(e.pattern))
	switch {
	case e.state == unitStopped:
		return text + ": systemd has it, but it does not run."
	case e.alias != "":
		return text + ": that is another name of " + plain(e.alias) + "."
	}
	return text + ", and systemd has none of that name."
}

// err is what --check makes of it: a unit that is stopped runs no old code.
func (e *emptyUnit) err() error {
	if e == nil || e.state == unitStopped {
		return nil
	}
	return &unitError{e}
}

// unitError says that there is nothing that could have been checked.
type unitError struct{ *emptyUnit }

func (e *unitError) Error() string {
	return "n" + strings.TrimSuffix(strings.TrimPrefix(e.text(), "N"), ".")
}

func (e *unitError) hint() string {
	if e.alias != "" {
		return "--unit " + plain(e.alias)
	}
	return "moult ps names the units of what it lists, systemctl list-units all that run"
}
