package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"moult.example/internal/release"
)

// runHook runs a command of the release by sh -c, in the target's directory,
// and kills it with all that it started when its time is up.
func (s *state) runHook(ctx context.Context, when, command string, m *release.Manifest, j *journal) error {
	if err := s.t.checkCommands(m); err != nil {
		return err
	}
	limit := time.Duration(m.Hooks.Timeout)
	if limit <= 0 {
		limit = 60 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Dir = s.t.path
	cmd.Env = append(os.Environ(),
		"MOULT_TARGET="+s.t.path, "MOULT_NAME="+s.name, "MOULT_RELEASE="+j.Release, "MOULT_VERSION="+j.Version,
		"MOULT_FROM="+strconv.Itoa(j.From), "MOULT_GENERATION="+strconv.Itoa(j.Generation))
	out, err := runGroup(cmd)
	if ctx.Err() == context.DeadlineExceeded {
		err = fmt.Errorf("not done after %s, killed", limit)
	}
	if err != nil {
		return fmt.Errorf("the hook %s the commit (%s): %w%s", when, firstOf(command), err, lastLines(out))
	}
	return nil
}

// firstOf is the beginning of a command, for an error.
func firstOf(command string) string {
	line, rest, _ := strings.Cut(strings.TrimSpace(command), "\n")
	if r := []rune(line); len(r) > 60 {
		line, rest = string(r[:60]), "…"
	}
	if rest != "" {
		line += " …"
	}
	return Path(line).Quoted()
}

// runAgain runs what is to run after the commit of the live generation, if it has
// failed: who applies the same release once more wants it done.
func (s *state) runAgain(live int, m *release.Manifest) (warnings []string, err error) {
	last, err := s.lastCommit(live)
	if err != nil || last.Result != "after-failed" {
		return nil, err
	}
	j := s.newJournal(last.Job, last.From, live, m)
	warnings, err = s.runAfter(j, m)
	r := s.t.newRecord("after", live, live)
	r.Release, r.Version = j.Release, j.Version
	if err != nil {
		r.Result, r.Note = "after-failed", err.Error()
		err = fmt.Errorf("%w again: %w", ErrAfter, err)
	} else {
		warnings = append(warnings, "what was to run after the commit, and had failed, was run again")
	}
	return warnings, errors.Join(err, s.record(r))
}

// lastCommit is the record of how a generation became live for the last time,
// with the result of what was to run after that.
func (s *state) lastCommit(live int) (last Record, err error) {
	records, err := s.history()
	for _, r := range records {
		switch {
		case r.To != live || r.Result == "undone":
		case r.Job == jobCommit || r.Job == jobRollback || r.Job == jobAdopt:
			last = r
		case r.Job == "after":
			last.Result, last.Note = r.Result, r.Note
		}
	}
	return last, err
}

// runGroup runs a command in a process group of its own, which ends with it.
func runGroup(cmd *exec.Cmd) (out []byte, err error) {
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it has ended well; something that it has started goes on
	}
	return b.Bytes(), err
}

// lastLines is the end of what a command said, for an error.
func lastLines(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	text := strings.Join(lines[max(0, len(lines)-3):], " | ")
	if text == "" {
		return ""
	}
	return ": " + text
}

// runAfter does what has to follow a commit: the loader's cache, systemd's
// units, and the release's own hook.
func (s *state) runAfter(j *journal, m *release.Manifest) (warnings []string, err error) {
	old := &release.Manifest{}
	if j.From != noGeneration {
		if was, err := s.manifest(j.From); err == nil {
			old = was
		}
	}
	dirs := changedDirs(old, m, s.t.path)
	var errs []error
	if cached := loaderDirs(dirs); len(cached) > 0 {
		warnings, errs = after(warnings, errs, "ldconfig", "-X")
	}
	if slices.ContainsFunc(dirs, isUnitDir) && exists("/run/systemd/system") {
		warnings, errs = after(warnings, errs, "systemctl", "daemon-reload")
	}
	if m.Hooks.After != "" {
		if err := s.runHook(context.Background(), "after", m.Hooks.After, m, j); err != nil {
			errs = append(errs, err)
		}
	}
	return warnings, errors.Join(errs...)
}

// after runs one of the system's own commands. Without root it can only say
// that somebody should.
func after(warnings []string, errs []error, name string, args ...string) ([]string, []error) {
	line := strings.Join(append([]string{name}, args...), " ")
	if os.Geteuid() != 0 {
		return append(warnings, "not root, so "+line+" was not run"), errs
	}
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/sbin/" + name // not in the PATH of every cron or sudo
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if out, err := runGroup(exec.CommandContext(ctx, path, args...)); err != nil {
		errs = append(errs, fmt.Errorf("%s: %w%s", line, err, lastLines(out)))
	}
	return warnings, errs
}

// changedDirs are the public directories in which something differs between
// two releases, sorted.
func changedDirs(old, m *release.Manifest, target string) []string {
	var dirs []string
	for _, c := range compareManifests(old, m, false) {
		dirs = append(dirs, filepath.Join(target, parentOf(string(c.Path))))
	}
	slices.Sort(dirs)
	return slices.Compact(dirs)
}

// isUnitDir says whether systemd reads its units from a directory
// (systemd.unit(5)).
func isUnitDir(dir string) bool {
	for _, root := range []string{"/etc/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"} {
		if dir == root || strings.HasPrefix(dir, root+"/") {
			return true
		}
	}
	return false
}

// loaderDirs picks those directories that ldconfig(8) puts in the loader's
// cache: the default ones and those of /etc/ld.so.conf.
func loaderDirs(dirs []string) []string {
	if len(dirs) == 0 {
		return nil
	}
	known := map[string]bool{"/lib": true, "/usr/lib": true, "/lib64": true, "/usr/lib64": true}
	readLoaderConf("/etc/ld.so.conf", known, 0)
	var cached []string
	for _, dir := range dirs {
		if known[dir] {
			cached = append(cached, dir)
		}
	}
	return cached
}

func readLoaderConf(path string, known map[string]bool, deep int) {
	data, err := os.ReadFile(path)
	if err != nil || deep > 8 {
		return
	}
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		fields := strings.FieldsFunc(line, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' || r == ':' })
		if len(fields) > 1 && fields[0] == "include" {
			for _, pattern := range fields[1:] {
				if !filepath.IsAbs(pattern) {
					pattern = filepath.Join(filepath.Dir(path), pattern)
				}
				files, _ := filepath.Glob(pattern)
				for _, file := range files {
					readLoaderConf(file, known, deep+1)
				}
			}
			continue
		}
		for _, dir := range fields {
			known[filepath.Clean(dir)] = true
			if real, err := filepath.EvalSymlinks(dir); err == nil {
				known[real] = true
			}
		}
	}
}
