package main

import (
	"errors"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"moult.example/internal/deploy"
	"moult.example/internal/disk"
)

// app is what all subcommands share: the world outside, and the flags that mean
// the same everywhere.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	args           []string // of the command line, for the history

	json  bool // one JSON document instead of text
	quiet bool // no progress, no remarks: errors only

	lookBudget time.Duration // see runsOld

	disk     func(path string) (disk.FS, error) // nil is the real one
	progress *progress
	servers  servers
	printed  bool // the result is out, so an error adds no second document
	asIs     bool // the text has a form of its own: it is not folded
}

func newApp(stdin io.Reader, stdout, stderr io.Writer, environ []string) *app {
	env := map[string]string{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, getenv: func(name string) string { return env[name] }}
	a.lookBudget = lookBudget
	a.progress = newProgress(a)
	a.disk = faultyDisk(a)
	return a
}

// The groups of the command list, in the order of the help.
const (
	groupReplace  = "replace"
	groupLook     = "look"
	groupMaintain = "maintain"
	groupLearn    = "learn"
)

// command is one line of the command table.
type command struct {
	name  string
	group string
	build func(*app) *cobra.Command
}

func (c command) make(a *app, group string) *cobra.Command {
	cmd := c.build(a)
	cmd.GroupID = group
	cmd.DisableFlagsInUseLine = true
	completeFlags(cmd)
	return cmd
}

// commandTable is every command, by its group in the order of the help.
func commandTable() []command {
	return append([]command{
		{"install", groupReplace, newInstallCommand},
		{"apply", groupReplace, newApplyCommand},
		{"stage", groupReplace, newStageCommand},
		{"commit", groupReplace, newCommitCommand},
		{"rollback", groupReplace, newRollbackCommand},
		{"recover", groupReplace, newRecoverCommand},
		{"pack", groupReplace, newPackCommand},
		{"exec", groupReplace, newExecCommand},
		{"restart", groupReplace, newRestartCommand},
		{"ps", groupLook, newPSCommand},
		{"status", groupLook, newStatusCommand},
		{"check", groupLook, newCheckCommand},
		{"history", groupLook, newHistoryCommand},
		{"verify", groupLook, newVerifyCommand},
		{"diff", groupLook, newDiffCommand},
		{"targets", groupLook, newTargetsCommand},
		{"gc", groupMaintain, newGCCommand},
		{"pin", groupMaintain, newPinCommand},
		{"forget", groupMaintain, newForgetCommand},
		{"lab", groupLearn, newLabCommand},
		{"version", groupLearn, newVersionCommand},
		{"completion", groupLearn, newCompletionCommand},
	}, manCommands()...)
}

// named is the command that a command line begins with, "" if it does not begin
// with the name of one.
func named(args []string) string {
	for _, c := range commandTable() {
		if len(args) > 0 && args[0] == c.name {
			return c.name
		}
	}
	return ""
}

// newRootCommand is the tree of all commands, or, to start sooner, of only one.
// Help, completion and the man pages are made from it.
func newRootCommand(a *app, only string) *cobra.Command {
	root := &cobra.Command{
		Use:   "moult",
		Short: "replace executables and shared libraries while they run",
		Long: `moult replaces executables and shared libraries while they run, as whole
releases. After a crash, a kill or a power cut a target holds its old release
or its new one; when moult reports success, the release is on the disk.`,
		Example: `  moult apply ./build /opt/app      make a release live, in one step
  moult rollback /opt/app           the one before, with the same inodes
  moult install build/tool /usr/local/bin
  moult status /opt/app`,
		Annotations:   exits(statusFound, statusUnfinished, statusBusy),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs, // an unknown command comes here
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownCommand(cmd, args[0])
			}
			return cmd.Help()
		},
	}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print one JSON document")
	root.PersistentFlags().BoolVarP(&a.quiet, "quiet", "q", false, "no progress and no remarks")
	root.PersistentFlags().BoolP("help", "h", false, "print this help")
	root.Flags().Bool("version", false, "print the version")
	root.Version = version()
	root.SetVersionTemplate("moult {{.Version}}\n")
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetHelpFunc(help)
	root.SetFlagErrorFunc(flagError)
	root.CompletionOptions.DisableDefaultCmd = true

	root.AddGroup(
		&cobra.Group{ID: groupReplace, Title: "Replace"},
		&cobra.Group{ID: groupLook, Title: "Look"},
		&cobra.Group{ID: groupMaintain, Title: "Maintain"},
		&cobra.Group{ID: groupLearn, Title: "Learn"},
	)
	for _, c := range commandTable() {
		if only == "" || c.name == only {
			root.AddCommand(c.make(a, c.group))
		}
	}
	root.SetHelpCommand(newHelpCommand())
	root.SetHelpCommandGroupID(groupLearn)
	return root
}

// options are the engine's, as this command line has them.
func (a *app) options(wait wait) deploy.Options {
	return deploy.Options{
		Wait:    time.Duration(wait),
		OnEvent: a.progress.event,
		Command: strings.Join(append([]string{"moult"}, a.args...), " "),
		Disk:    a.disk,
	}
}

// openDisk holds a directory for what a command makes itself.
func (a *app) openDisk(path string) (disk.FS, error) {
	if a.disk != nil {
		return a.disk(path)
	}
	return disk.Open(path)
}

// closeDisk gives it up; what was made is durable or removed by then.
func closeDisk(fsys disk.FS) {
	if c, ok := fsys.(io.Closer); ok {
		_ = c.Close() // of a directory that was only held
	}
}

// withTarget opens a target for the time of one job.
func (a *app) withTarget(path string, wait wait, job func(*deploy.Target) error) error {
	t, err := deploy.Open(path, a.options(wait))
	if err != nil {
		return err
	}
	err = job(t)
	a.progress.finish()
	return errors.Join(err, t.Close())
}

// wait is the value of --wait: how long to wait for a target on which another
// moult is at work. Below zero is for ever.
type wait time.Duration

var _ pflag.Value = (*wait)(nil)

// waitFlag gives a command its --wait.
func waitFlag(flags *pflag.FlagSet, w *wait) {
	flags.Var(w, "wait", "wait this `TIME` for a busy target: 30s, 5m, forever")
}

func (w *wait) Set(text string) error {
	if text == "forever" {
		*w = -1
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return errors.New("want a time such as 30s or 5m, or forever")
	}
	*w = wait(d)
	return nil
}

func (w *wait) String() string {
	switch {
	case *w < 0:
		return "forever"
	case *w == 0:
		return ""
	}
	return time.Duration(*w).String()
}

func (w *wait) Type() string { return "time" }
