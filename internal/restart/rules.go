package restart

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
	"moult.example/internal/stale"
)

// RulesDir is where the administrator of a host says how to restart what.
const RulesDir = "/etc/moult/restart.d"

const maxRulesFile = 1 << 20 // bytes

// ReadRules reads the rules of a directory: its files *.toml in the order of
// their names. Rules are commands that root will run, so the directory, the one
// that it is in and each file must belong to root and be writable by nobody else;
// anything else is an error, also where one file alone is wrong. A directory that is not there has
// no rules.
func ReadRules(dir string) ([]Rule, error) {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = onlyRoots(dir, info, fs.ModeDir)
	}
	if err == nil { // who may rename it may put another in its place
		if info, err = os.Stat(filepath.Dir(dir)); err == nil {
			err = onlyRoots(filepath.Dir(dir), info, fs.ModeDir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	files, err := os.ReadDir(dir) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("rules: %w", err)
	}
	var all []Rule
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".toml") || strings.HasPrefix(f.Name(), ".") {
			continue
		}
		path := filepath.Join(dir, f.Name())
		text, err := readTrusted(path)
		if err != nil {
			return nil, fmt.Errorf("rules: %w", err)
		}
		rules, err := release.ParseRestart(path, text)
		if err != nil {
			return nil, fmt.Errorf("rules: %w", err)
		}
		for i, r := range rules {
			all = append(all, Rule{RestartRule: r, From: fmt.Sprintf("%s, rule %d", path, i+1)})
		}
	}
	return all, nil
}

func readTrusted(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		err = onlyRoots(path, info, 0)
	}
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxRulesFile+1))
	if err == nil && len(text) > maxRulesFile {
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it has more than %d bytes", maxRulesFile)}
	}
	return text, err
}

// onlyRoots says what is wrong with a file that only root may have written.
// With an ACL the group's bits are its mask, so no name in it may write either.
func onlyRoots(path string, info fs.FileInfo, kind fs.FileMode) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode().Type() != kind:
		return fmt.Errorf("%s is a %s where there should be none", path, info.Mode().Type())
	case !ok || st.Uid != 0:
		return fmt.Errorf("%s does not belong to root, so its commands are not run", path)
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s can be written by others than root (mode %04o), so its commands are not run", path, info.Mode().Perm())
	}
	return nil
}

// ruleFor finds the first rule for a process, and its place in the order.
func (o Options) ruleFor(p stale.Process, unit string) (*Rule, int) {
	for i := range o.Rules {
		r := &o.Rules[i]
		if r.Target != "" && !belongs(p, r.Target) {
			continue
		}
		if r.Matches(pathsFor(p, r.Target), unit, p.Command) {
			return r, i
		}
	}
	return nil, len(o.Rules)
}

// pathsFor are the paths under which a rule may know a process: below a target
// without the target and the generation, otherwise as they are and without the
// generation.
func pathsFor(p stale.Process, target string) []string {
	var paths []string
	add := func(path string) {
		public := PublicPath(path)
		if target != "" {
			if below, ok := strings.CutPrefix(public, target+"/"); ok {
				paths = append(paths, below)
			}
			return
		}
		paths = append(paths, path)
		if public != path {
			paths = append(paths, public)
		}
	}
	add(exePath(p))
	for _, f := range p.Files {
		if isBad(f.Verdict) {
			add(f.Path)
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// exePath is the executable without what the kernel adds when it is deleted.
func exePath(p stale.Process) string { return strings.TrimSuffix(p.Exe, " (deleted)") }

// PublicPath is a path below a generation as people know it: below its target,
// without "..", which the loader leaves in what it finds by way of $ORIGIN. Any
// other path is returned as it is.
func PublicPath(name string) string {
	target, below, ok := strings.Cut(name, "/.moult/")
	if !ok {
		return name
	}
	if rest, ok := strings.CutPrefix(below, "live/"); ok {
		return path.Clean(target + "/" + rest)
	}
	if rest, ok := strings.CutPrefix(below, "generations/"); ok {
		if _, rest, ok := strings.Cut(rest, "/"); ok {
			return path.Clean(target + "/" + rest)
		}
	}
	return name
}

// belongs says that a process runs files of a target, or ran them before they
// were replaced.
func belongs(p stale.Process, target string) bool {
	for _, f := range p.Files {
		if isBad(f.Verdict) && (f.Runs.Target == target || f.Gets.Target == target ||
			below(f.Path, target) || below(f.Mapped, target)) {
			return true
		}
	}
	return false
}

// ofTarget says that its executable is the target's own.
func ofTarget(p stale.Process, target string) bool {
	if below(p.Exe, target) {
		return true
	}
	for _, f := range p.Files {
		if f.Kind == stale.KindExe && (f.Runs.Target == target || f.Gets.Target == target || below(f.Path, target)) {
			return true
		}
	}
	return false
}

func below(path, dir string) bool { return strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/") }

func isBad(v stale.Verdict) bool { return v.Severity() >= stale.Stale.Severity() }
