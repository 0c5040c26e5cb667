package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"moult.example/internal/deploy"
)

// installFlags are the flags of install as they are written; their meaning is
// found when all are known.
type installFlags struct {
	deploy.InstallOptions
	targets      []string
	backup       bool // -b
	control      control
	context      string
	defaultLabel bool // -Z
	ignored      bool // -c
	verbose      bool
}

func newInstallCommand(a *app) *cobra.Command {
	var f installFlags
	c := &cobra.Command{
		Use:   "install [FLAGS] SOURCE... DEST",
		Short: "install files as install(1) does, safe while they are in use",
		Long: `Copy files to their places and set their mode and owner, with the forms and
the flags of install(1):

  moult install SOURCE DEST             as DEST, or into a directory DEST
  moult install SOURCE... DIRECTORY     into a directory that exists
  moult install -t DIRECTORY SOURCE...  the same; with -D it is made
  moult install -d DIRECTORY...         make directories that are missing

Each file is made whole under a name of its own, is synced, and then takes its
place in one step: whoever runs or maps the old file keeps it. Several files
are all made before the first takes its place. Unlike install(1), an error
means that nothing was installed, none of the files.

A file of an owned target is the release's: it is installed, with a remark, and
the next apply puts the release's back.

A new file has mode 0755 and belongs to who runs this; other names of the old
file keep the old bytes. The environment's VERSION_CONTROL and
SIMPLE_BACKUP_SUFFIX are the defaults of --backup and --suffix.`,
		Example: `  moult install build/tool /usr/local/bin
  moult install -m 644 -D unit/tool.service /etc/systemd/system/tool.service
  moult install --keep build/server /opt/server/bin/server
  make install INSTALL="moult install"`,
		Annotations: exits(statusUnfinished),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.install(cmd, &f, args)
		},
	}
	f.define(c.Flags())
	c.Flags().SetNormalizeFunc(abbreviations(c))
	return c
}

func (f *installFlags) define(flags *pflag.FlagSet) {
	flags.SortFlags = false
	flags.StringVarP(&f.Mode, "mode", "m", "", "`MODE` as in chmod, without the umask (default 0755)")
	flags.StringVarP(&f.Owner, "owner", "o", "", "give it to a `USER`")
	flags.StringVarP(&f.Group, "group", "g", "", "give it to a `GROUP`")
	flags.BoolVar(&f.Keep, "keep", false, "keep mode (set-id bits too), owner, ACL and label of the file replaced")
	flags.BoolVar(&f.KeepCaps, "keep-caps", false, "as --keep, and its capabilities too")
	flags.BoolVarP(&f.Times, "preserve-timestamps", "p", false, "keep the source's modification time")
	flags.BoolVarP(&f.Directories, "directory", "d", false, "make directories: all operands are such")
	flags.BoolVarP(&f.MakeLeading, "leading", "D", false, "make the directories on the way to DEST, or -t's")
	flags.StringArrayVarP(&f.targets, "target-directory", "t", nil, "install all operands into a `DIRECTORY`")
	flags.BoolVarP(&f.NoTargetDir, "no-target-directory", "T", false, "DEST is the name of a file, not a directory")
	flags.BoolVarP(&f.Compare, "compare", "C", false, "leave alone what is the same in content, owner and mode")
	flags.Var(&f.control, "backup", "keep the old file; `CONTROL` is none, simple, numbered, existing")
	flags.Lookup("backup").NoOptDefVal = defaultControl
	flags.BoolVarP(&f.backup, "make-backup", "b", false, "as --backup without CONTROL")
	flags.StringVarP(&f.Suffix, "suffix", "S", "", "`SUFFIX` of a simple backup (default ~)")
	flags.BoolVarP(&f.Strip, "strip", "s", false, "strip symbols")
	flags.StringVar(&f.StripProgram, "strip-program", "", "`PROGRAM` that does it (default strip)")
	flags.BoolVar(&f.Label.Preserve, "preserve-context", false, "keep the source's SELinux label")
	flags.BoolVarP(&f.defaultLabel, "default-context", "Z", false, "set the SELinux label of the policy")
	flags.StringVar(&f.context, "context", "", "set the SELinux label `CTX`, or as -Z without")
	flags.Lookup("context").NoOptDefVal = defaultContext
	flags.BoolVar(&f.NoSync, "no-sync", false, "do not wait for the disk: for staging roots of packages")
	flags.BoolVarP(&f.DryRun, "dry-run", "n", false, "say what would be done, and change nothing")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "say what is done, as install -v does")
	flags.BoolVarP(&f.ignored, "copy", "c", false, "ignored, for old makefiles")
}

// What --backup and --context have without a value. No file system and no policy
// knows such names.
const (
	defaultControl = "default"
	defaultContext = "default"
)

// control is the value of --backup. Without a value, a second one leaves what the
// first has said, as in install(1).
type control string

// String implements [pflag.Value].
func (c *control) String() string { return string(*c) }

// Set implements [pflag.Value].
func (c *control) Set(text string) error {
	if text != defaultControl || *c == "" {
		*c = control(text)
	}
	return nil
}

// Type implements [pflag.Value].
func (c *control) Type() string { return "string" }

// abbreviations lets long flags be cut short as long as they stay clear, as all
// GNU programs do.
func abbreviations(c *cobra.Command) func(*pflag.FlagSet, string) pflag.NormalizedName {
	names := []string{"help", "json", "quiet"}
	c.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		var found []string
		for _, n := range names {
			if strings.HasPrefix(n, name) {
				found = append(found, n)
			}
		}
		if len(found) == 1 && !slices.Contains(names, name) {
			return pflag.NormalizedName(found[0])
		}
		return pflag.NormalizedName(name)
	}
}

func (a *app) install(cmd *cobra.Command, f *installFlags, operands []string) error {
	if err := f.settle(cmd, a.getenv, operands); err != nil {
		return err
	}
	f.Disk = a.disk
	result, err := deploy.Install(cmd.Context(), f.InstallOptions)
	for _, w := range result.Warnings {
		a.remark("warning: %s", w)
	}
	if err != nil && !result.Changed {
		return withoutParent(err, f.Dest)
	}
	a.remarkUndone(result)
	if !a.json && !f.verbose && !f.DryRun {
		return err // install(1) is silent, and works without a standard output
	}
	d := installDocument(result, f.DryRun)
	old := a.afterInstall(result, f.DryRun)
	d.Stale = known(old)
	a.asIs = !f.DryRun // a line is what install(1) says
	printErr := a.print(d, func(w io.Writer) {
		lines := result.Verbose("moult install")
		if f.DryRun {
			lines = result.Planned()
		}
		for _, line := range lines {
			fmt.Fprintln(w, line)
		}
		writeOld(w, old, "")
	})
	if err == nil {
		err = printErr
	}
	return err
}

// noParentError is an error of a file whose directory is not there.
type noParentError struct {
	error
	dir string
}

func (e *noParentError) Unwrap() error { return e.error }

// withoutParent makes it one, if that is what is wrong with a destination.
func withoutParent(err error, dest string) error {
	var at *fs.PathError
	if errors.As(err, &at) && errors.Is(at, fs.ErrNotExist) && at.Op == "create" && at.Path == dest && dest != "" {
		return &noParentError{err, filepath.Dir(dest)}
	}
	return err
}

// remarkUndone says that a file is a release's, so that the next apply undoes
// what was done to it.
func (a *app) remarkUndone(r deploy.InstallResult) {
	places, undone := deploy.NewPlaces(a.options(0)), 0
	for _, f := range r.Files {
		u, is := places.Undone(f.Dest)
		if !is || f.Unchanged {
			continue
		}
		if undone++; undone > 1 {
			continue
		}
		what := "puts the release's file back"
		if !u.Released {
			what = "leaves it out, as the release has none of that name"
		}
		a.remark("%s is in the target %s (generation %d): the next apply %s", deploy.Path(f.Dest).Quoted(), u.Target.Quoted(), u.Generation, what)
	}
	if undone > 1 {
		a.remark("and so are %d more", undone-1)
	}
}

// settle turns flags and operands into options, and refuses what cannot be meant.
func (f *installFlags) settle(cmd *cobra.Command, getenv func(string) string, operands []string) error {
	bad := func(format string, args ...any) error {
		return &usageError{message: fmt.Sprintf(format, args...), hint: "moult install --help has the forms and the flags"}
	}
	for _, name := range []string{"mode", "owner", "group"} {
		if flag := cmd.Flags().Lookup(name); flag.Changed && flag.Value.String() == "" {
			return bad("invalid %s ''", name)
		}
	}
	switch {
	case f.Directories && f.Strip:
		return bad("the strip option may not be used when installing a directory")
	case f.Directories && len(f.targets) > 0:
		return bad("target directory not allowed when installing a directory")
	case len(f.targets) > 1:
		return bad("multiple target directories specified")
	case f.Compare && f.Times:
		return bad("options --compare (-C) and --preserve-timestamps are mutually exclusive")
	case f.Compare && f.Strip:
		return bad("options --compare (-C) and --strip are mutually exclusive")
	case f.NoTargetDir && len(f.targets) > 0:
		return bad("cannot combine --target-directory (-t) and --no-target-directory (-T)")
	case len(operands) == 0:
		return bad("missing file operand")
	case f.NoTargetDir && len(operands) > 2:
		return bad("extra operand %q", operands[2])
	case len(operands) == 1 && !f.Directories && len(f.targets) == 0:
		return bad("missing destination file operand after %q", operands[0])
	}
	f.Sources = operands
	switch {
	case f.Directories:
	case len(f.targets) > 0:
		if f.TargetDir = f.targets[0]; f.TargetDir == "" {
			return bad("the target directory has no name")
		}
	default:
		f.Dest = operands[len(operands)-1]
		f.Sources = operands[:len(operands)-1]
	}
	f.settleLabel()
	return f.settleBackup(cmd, getenv)
}

func (f *installFlags) settleLabel() {
	f.Label.Policy = f.defaultLabel || f.context == defaultContext
	if f.context != defaultContext {
		f.Label.Context = f.context
	}
}

// settleBackup finds out how the old file is to be kept: what --backup says,
// else what the environment says, else numbered where there are such.
func (f *installFlags) settleBackup(cmd *cobra.Command, getenv func(string) string) error {
	flags := cmd.Flags()
	if !flags.Changed("suffix") {
		f.Suffix = getenv("SIMPLE_BACKUP_SUFFIX")
	}
	if !f.backup && !flags.Changed("backup") && !flags.Changed("suffix") {
		return nil
	}
	control := string(f.control)
	if control == "" || control == defaultControl {
		control = getenv("VERSION_CONTROL")
	}
	if control == "" {
		control = "existing"
	}
	var err error
	if f.Backup, err = deploy.ParseBackup(control); err != nil {
		return &usageError{message: err.Error()}
	}
	return nil
}

// installation is the JSON document of install.
type installation struct {
	Made     []deploy.Path   `json:"made,omitempty"`
	Files    []installedFile `json:"files"`
	Warnings []string        `json:"warnings,omitempty"`
	Changed  bool            `json:"changed"`
	DryRun   bool            `json:"dry_run,omitempty"`
	Stale    *int            `json:"stale,omitempty"` // processes that still run what was replaced
}

type installedFile struct {
	Source    deploy.Path `json:"source"`
	Dest      deploy.Path `json:"dest"`
	Replaced  bool        `json:"replaced"`
	Backup    deploy.Path `json:"backup,omitempty"`
	Unchanged bool        `json:"unchanged,omitempty"`
}

func installDocument(r deploy.InstallResult, dryRun bool) installation {
	d := installation{Files: []installedFile{}, Warnings: r.Warnings, Changed: r.Changed, DryRun: dryRun}
	for _, dir := range r.Made {
		d.Made = append(d.Made, deploy.Path(dir))
	}
	for _, f := range r.Files {
		d.Files = append(d.Files, installedFile{
			Source: deploy.Path(f.Source), Dest: deploy.Path(f.Dest), Replaced: f.Replaced,
			Backup: deploy.Path(f.Backup), Unchanged: f.Unchanged,
		})
	}
	return d
}
