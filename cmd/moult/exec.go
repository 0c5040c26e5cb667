package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
	"moult.example/internal/disk"
)

// The ways of moult exec --by.
const (
	byMount       = "mount"
	byEnvironment = "environment"
)

// execJob is one moult exec.
type execJob struct {
	hold      deploy.HoldOptions
	by        string // "" is what can be
	verbose   bool
	inherited int // the descriptor that the moult before unshare(1) has handed on; -1: there was none
}

func newExecCommand(a *app) *cobra.Command {
	j := execJob{hold: deploy.HoldOptions{Generation: -1}}
	c := &cobra.Command{
		Use:   "exec [FLAGS] TARGET [--] COMMAND [ARG...]",
		Short: "run a program that stays with one generation",
		Long: `Run a program that sees one generation of an owned target for its whole life,
whatever is committed meanwhile, by absolute paths too, and so do the programs
that it starts. gc keeps the generation until the last of them has ended. moult
becomes the program: the same process, with its signals and exit status.

As root, or where users may have namespaces of their own, the program gets a
mount namespace in which the target shows that generation. Elsewhere only its
environment is changed: PATH and LD_LIBRARY_PATH lead to the generation, but
absolute paths in the program do not. A COMMAND without a slash is looked for in
the release's bin and sbin, then in PATH.`,
		Example: `  moult exec /opt/app batch --night
  moult exec --generation 41 /opt/app /opt/app/bin/report
  moult stage ./build /opt/app && moult exec --generation 43 /opt/app selftest`,
		Annotations:       exits(statusNotExecutable, statusNotFound),
		ValidArgsFunction: completeTarget(0),
		Args:              operands("TARGET", "COMMAND..."),
		RunE: func(cmd *cobra.Command, args []string) error {
			command := args[1:]
			if command[0] == "--" { // as many programs that start others take it
				command = command[1:]
			}
			if len(command) == 0 {
				return &usageError{message: "no COMMAND is given", hint: "usage: " + cmd.UseLine()}
			}
			if j.by != "" && j.by != byMount && j.by != byEnvironment {
				return &usageError{message: "unknown --by " + j.by, hint: "mount or environment"}
			}
			t, err := deploy.Open(args[0], a.options(0))
			if err != nil {
				return err
			}
			return errors.Join(a.becomeHeld(t, &j, command), t.Close())
		},
	}
	f := c.Flags()
	f.SetInterspersed(false) // what follows TARGET is COMMAND's
	f.IntVarP(&j.hold.Generation, "generation", "g", -1, "run generation `N`, not the live one")
	f.StringVar(&j.by, "by", "", "only this `WAY`: mount or environment")
	f.StringVar(&j.hold.Name, "name", "", "the product must be `NAME`")
	f.BoolVarP(&j.verbose, "verbose", "v", false, "say which generation it is, and by which way")
	f.BoolVar(&a.json, "json", false, "print an error of moult as one JSON document") // what COMMAND prints is its own
	f.IntVar(&j.inherited, inheritedFlag, -1, "")
	f.Lookup("generation").DefValue = "" // in the help
	f.Lookup(inheritedFlag).Hidden = true
	return c
}

const inheritedFlag = "inherited-descriptor"

// becomeHeld ends only with an error: on success the process is another program.
func (a *app) becomeHeld(t *deploy.Target, j *execJob, command []string) error {
	h, err := t.Hold(j.hold)
	if err != nil {
		return err
	}
	if j.inherited >= 0 {
		_ = unix.Close(j.inherited) // h holds the generation now
	}
	err = a.becomeProgram(h, j, command)
	return errors.Join(err, h.Close())
}

func (a *app) becomeProgram(h *deploy.Held, j *execJob, command []string) error {
	wd, err := os.Getwd()
	if err != nil {
		wd = "" // it was removed; so be it
	}
	way, why := byEnvironment, error(nil)
	if j.by != byEnvironment {
		runtime.LockOSThread() // for good: the thread becomes the program
		why = h.Enter()
		if errors.Is(why, disk.ErrNoView) && j.inherited < 0 {
			why = errors.Join(why, becomeNamespaceOwner(h, j, command))
		}
		switch {
		case why == nil:
			way = byMount
		case !errors.Is(why, disk.ErrNoView) || j.by == byMount:
			return why
		}
	}
	if j.inherited >= 0 {
		if err := dropRights(); err != nil {
			return err
		}
	}
	if err := enterDirectory(h, wd, way); err != nil {
		return err
	}
	environ := os.Environ()
	if way == byEnvironment {
		environ = h.Environ(environ)
	}
	path, err := findProgram(h, way, command[0], environ)
	if err != nil {
		return err
	}
	if j.verbose {
		a.remark("exec: %s %s by %s%s: %s", h.Target.Quoted(), generation(h.Generation), way, inBrackets(reason(why)), deploy.Path(path).Quoted())
	}
	if _, err := h.Inherit(); err != nil {
		return err
	}
	err = syscall.Exec(path, command, environ)
	return &commandError{command[0], &fs.PathError{Op: "exec", Path: path, Err: err}}
}

// reason is why the first way could not be gone.
func reason(err error) string {
	if err == nil {
		return ""
	}
	return oneLine(err.Error())
}

// becomeNamespaceOwner starts this command again in a user namespace, where it
// may have mounts of its own. A program with several threads, as this one, may
// not enter one (unshare(2)); unshare(1) may, and it stays the same process. It
// is tried in a child first, since there is no way back.
func becomeNamespaceOwner(h *deploy.Held, j *execJob, command []string) error {
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		return fmt.Errorf("%w: %w", disk.ErrNoView, err)
	}
	flags := []string{"unshare", "--user", "--map-current-user", "--keep-caps"}
	try := exec.Command(unshare, append(flags[1:], "--mount", "true")...)
	if out, err := try.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s: %w", disk.ErrNoView, strings.TrimSpace(string(out)), err)
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	fd, err := h.Inherit()
	if err != nil {
		return err
	}
	args := append(flags, "--", self, "exec", "--generation", strconv.Itoa(h.Generation), "--"+inheritedFlag, strconv.Itoa(fd))
	if j.by != "" {
		args = append(args, "--by", j.by)
	}
	if j.verbose {
		args = append(args, "--verbose")
	}
	args = append(append(args, string(h.Target)), command...)
	err = syscall.Exec(unshare, args, os.Environ())
	return &fs.PathError{Op: "exec", Path: unshare, Err: err}
}

// dropRights gives up the rights that unshare(1) has kept for us in its user
// namespace, so that the program does not get them (capabilities(7)).
func dropRights() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl", err)
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return os.NewSyscallError("capget", err)
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	return os.NewSyscallError("capset", unix.Capset(&header, &data[0]))
}

// enterDirectory stands where it stood, as the held generation has it: a working
// directory is one by its inode, not by its path.
func enterDirectory(h *deploy.Held, wd, way string) error {
	if wd == "" {
		return nil
	}
	real, err := filepath.EvalSymlinks(wd)
	if err != nil {
		real = wd
	}
	target := string(h.Target)
	inside := h.Inside(real)
	if real != target && !strings.HasPrefix(real, target+"/") || way == byEnvironment && inside == real {
		return nil
	}
	if err := os.Chdir(inside); err != nil {
		return fmt.Errorf("%s has not the working directory: %w", generation(h.Generation), err)
	}
	return nil
}

// findProgram looks where a shell would, but in the generation first.
func findProgram(h *deploy.Held, way, name string, environ []string) (string, error) {
	seen := func(path string) string { return path }
	if way == byEnvironment {
		seen = h.Inside
	}
	if strings.Contains(name, "/") {
		if real, err := filepath.EvalSymlinks(name); err == nil && seen(real) != real {
			return seen(real), nil // a link from elsewhere into the target
		}
		path := seen(name)
		return path, mayExecute(name, path)
	}
	dirs, _ := h.Dirs()
	for _, pair := range slices.Backward(environ) {
		if list, ok := strings.CutPrefix(pair, "PATH="); ok {
			dirs = append(dirs, filepath.SplitList(list)...)
			break
		}
	}
	var denied error
	for _, dir := range dirs {
		path := filepath.Join(dir, name)
		err := mayExecute(name, path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, fs.ErrNotExist) && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &commandError{name, &fs.PathError{Op: "exec", Path: name, Err: fs.ErrNotExist}}
}

func mayExecute(name, path string) error {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = unix.EISDIR
	}
	if err == nil {
		err = unix.Access(path, unix.X_OK)
	}
	if err == unix.ENOTDIR {
		err = unix.ENOENT
	}
	if err != nil {
		return &commandError{name, &fs.PathError{Op: "exec", Path: path, Err: err}}
	}
	return nil
}

// commandError says that the program of moult exec could not be started; its
// status is that of a shell.
type commandError struct {
	name string
	err  error
}

func (e *commandError) Error() string { return e.err.Error() }
func (e *commandError) Unwrap() error { return e.err }

func (e *commandError) status() int {
	if errors.Is(e.err, fs.ErrNotExist) {
		return statusNotFound
	}
	return statusNotExecutable
}
