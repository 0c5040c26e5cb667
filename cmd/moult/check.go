package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"moult.example/internal/deploy"
	"moult.example/internal/release"
)

// checkJob is one moult check.
type checkJob struct {
	source  sourceFlags
	o       deploy.CheckOptions
	against string
	path    string // of libraries, separated by colons
	plugins []string
	noTypes bool
	verbose bool
}

func newCheckCommand(a *app) *cobra.Command {
	var j checkJob
	c := &cobra.Command{
		Use:   "check [FLAGS] RELEASE|FILE...",
		Short: "would every program and library load?",
		Long: `Say what would go wrong if programs and libraries were loaded: libraries,
symbols and versions that are not there, and all else that the dynamic linker
looks at. Nothing is executed. FILEs are ELF files; anything else is a RELEASE.

With --against they are laid over TARGET, a target of moult's or any directory
or file: what was wrong before is counted only, the programs of this host that
use a library which changes are judged too, and the types in functions that they
use are compared where there is debug information.

Plugins are judged in the programs that load them: those of moult.toml, of
--plugin, and those that running processes have loaded. With --against it also
names what looks up its release twice when it is started.

` + releaseForms,
		Example: `  moult check /usr/bin/git
  moult check ./build
  moult check ./build --against /opt/app
  moult check libz.so.1.3 --against /usr/lib/x86_64-linux-gnu/libz.so.1.2.13`,
		Annotations: exitsAs(map[int]string{statusFound: "something is broken"}, statusFound),
		Args:        operands("RELEASE|FILE..."),
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		return a.check(cmd.Context(), &j, args)
	}
	f := c.Flags()
	f.StringVar(&j.o.Root, "root", "", "judge as if the root directory were `DIR`")
	f.StringVar(&j.against, "against", "", "lay it over `TARGET`, which is there, and judge who uses it")
	f.StringVar(&j.path, "library-path", "", "as if LD_LIBRARY_PATH were `DIRS`")
	f.StringArrayVar(&j.plugins, "plugin", nil, "`PLUGIN=HOST`: the program HOST loads the file PLUGIN; may be\ngiven more than once")
	f.BoolVar(&j.o.ABIDiff, "abidiff", false, "compare types with abidiff of libabigail, too")
	f.BoolVar(&j.noTypes, "no-types", false, "do not compare types")
	f.BoolVarP(&j.verbose, "verbose", "v", false, "list notes, and what was wrong before")
	j.source.add(f)
	return c
}

// check judges what the operands are.
func (a *app) check(ctx context.Context, j *checkJob, args []string) error {
	if err := j.options(); err != nil {
		return err
	}
	files, err := elfFiles(j.o.Root, args)
	if err != nil {
		return err
	}
	if files == nil && len(args) > 1 {
		return &usageError{message: "several operands, and not all are ELF files", hint: "one RELEASE, or programs and libraries"}
	}
	if files != nil {
		l, err := j.layFiles(files)
		if err != nil {
			return err
		}
		return a.judge(ctx, j, l)
	}
	return a.checkRelease(ctx, j, args[0])
}

func (j *checkJob) options() error {
	if j.o.ABIDiff && j.against == "" {
		return &usageError{message: "--abidiff compares two versions, and there is one", hint: "name what is there: --against TARGET"}
	}
	j.o.Learn = j.o.Root == ""
	j.o.Outside, j.o.Types = j.against != "", !j.noTypes
	j.o.Plugins = map[string][]string{}
	if j.path != "" {
		j.o.LibraryPath = filepath.SplitList(j.path)
	}
	for _, pair := range j.plugins {
		plugin, host, ok := strings.Cut(pair, "=")
		if !ok || plugin == "" || host == "" {
			return &usageError{message: fmt.Sprintf("--plugin %q is not PLUGIN=HOST", pair), hint: "--plugin lib/mod.so=bin/server"}
		}
		j.o.Plugins[plugin] = append(j.o.Plugins[plugin], host)
	}
	return nil
}

// checkRelease lays a release over the target, or over nothing.
func (a *app) checkRelease(ctx context.Context, j *checkJob, path string) (err error) {
	if j.against != "" {
		if _, err := os.Stat(j.against); err != nil {
			return fmt.Errorf("--against: %w", notThere(err)) // apply would make it; here it is a slip of the pen
		}
	}
	dir := ""
	unpack, err := toUnpack(path)
	if err != nil {
		return err
	}
	if !unpack {
		dir = path
	} else {
		sp, err := a.newSpool()
		if err != nil {
			return fmt.Errorf("a directory to unpack in: %w", err)
		}
		defer func() { err = errors.Join(err, sp.clear(), sp.remove()) }()
		j.o.Spool, j.o.SpoolDir = sp.fs, sp.path
	}
	return j.source.with(ctx, a, path, nil, false, func(rel *release.Release) error {
		if j.against == "" {
			l, err := deploy.LayRelease(ctx, rel, dir, j.o)
			if err != nil {
				return err
			}
			return a.judge(ctx, j, l)
		}
		return a.withTarget(j.against, 0, func(t *deploy.Target) error {
			l, err := t.Lay(ctx, rel, deploy.ApplyOptions{Name: j.source.name, Times: j.source.times}, j.o)
			if err != nil {
				return err
			}
			return a.judge(ctx, j, l)
		})
	})
}

// clear removes what was unpacked.
func (s *spool) clear() error {
	entries, err := os.ReadDir(s.path)
	for _, e := range entries {
		err = errors.Join(err, s.fs.Remove(e.Name()))
	}
	return err
}

// layFiles lays each file over the one of its name, or over the file that
// --against names.
func (j *checkJob) layFiles(files []string) (*deploy.Laid, error) {
	plugins, err := j.pluginFiles()
	if err != nil {
		return nil, err
	}
	j.o.Plugins = plugins
	at := make([]string, len(files))
	if j.against != "" {
		over, err := filepath.Abs(j.against)
		if err != nil {
			return nil, err
		}
		if real, err := filepath.EvalSymlinks(over); err == nil {
			over = real
		}
		st, err := os.Stat(over)
		if err != nil {
			return nil, err
		}
		if !st.IsDir() && len(files) > 1 {
			return nil, &usageError{message: "several files cannot be laid over one"}
		}
		for i, file := range files {
			if at[i] = over; st.IsDir() {
				at[i] = filepath.Join(over, filepath.Base(file))
				if _, err := os.Lstat(at[i]); errors.Is(err, fs.ErrNotExist) {
					return nil, &usageError{message: fmt.Sprintf("there is no %s to lay it over", oneLine(at[i])), hint: "name the file that it replaces: --against DIR/lib/" + oneLine(filepath.Base(file))}
				}
			}
		}
	}
	return deploy.LayFiles(files, at, j.o)
}

// elfFiles are the operands as absolute paths, as seen in the root, if all are
// ELF files; none if not.
func elfFiles(root string, args []string) ([]string, error) {
	var files []string
	for _, arg := range args {
		abs, err := inRoot(root, arg)
		if err != nil {
			return nil, err
		}
		name := abs
		if root != "" {
			name = filepath.Join(root, abs)
		}
		is, err := isELF(name)
		if errors.Is(err, fs.ErrNotExist) && len(args) > 1 {
			return nil, err
		}
		if !is {
			return nil, nil
		}
		files = append(files, abs)
	}
	return files, nil
}

// inRoot is the absolute path of a file as seen in the root.
func inRoot(root, name string) (string, error) {
	abs, err := filepath.Abs(name)
	if err != nil || root == "" {
		return abs, err
	}
	top, err := filepath.Abs(root)
	return strings.TrimPrefix(abs, strings.TrimSuffix(top, "/")), err
}

// pluginFiles are those of --plugin where no release is for them to be in:
// files, as the operands are.
func (j *checkJob) pluginFiles() (map[string][]string, error) {
	files := map[string][]string{}
	for plugin, hosts := range j.o.Plugins {
		plugin, err := inRoot(j.o.Root, plugin)
		if err != nil {
			return nil, err
		}
		for _, host := range hosts {
			if host, err = inRoot(j.o.Root, host); err != nil {
				return nil, err
			}
			files[plugin] = append(files[plugin], host)
		}
	}
	return files, nil
}

func isELF(name string) (bool, error) {
	st, err := os.Stat(name)
	if err != nil || !st.Mode().IsRegular() {
		return false, err
	}
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	head := make([]byte, 4)
	_, err = io.ReadFull(f, head)
	return err == nil && bytes.Equal(head, []byte("\x7fELF")), nil
}

// judge judges and prints; what is broken is found.
func (a *app) judge(ctx context.Context, j *checkJob, l *deploy.Laid) error {
	r, err := l.Judge(ctx, j.o)
	var named *deploy.NamedError
	if errors.As(err, &named) {
		return fmt.Errorf("--plugin: %w", err)
	}
	if err != nil {
		return err
	}
	if err := a.print(r, func(w io.Writer) { writeLinkReport(w, r, j.verbose) }); err != nil {
		return err
	}
	if r.Broken() > 0 {
		return errFound
	}
	return nil
}
