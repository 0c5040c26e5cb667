// Command moult replaces executables and shared libraries while they run, as
// whole releases, and says which processes still run the old code.
//
// There is one file for each subcommand; it parses, calls the engine, prints,
// and holds no rule. Results go to standard output, everything else to standard
// error. Prefixes, hints and exit statuses belong to errors.go alone.
package main

import (
	"context"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

func main() {
	lazyCollector(0)
	os.Exit(newApp(os.Stdin, os.Stdout, os.Stderr, os.Environ()).run(untilSignal(), os.Args[1:]))
}

// untilSignal is the context of the whole process.
//
// The first SIGINT, SIGTERM or SIGHUP cancels it, which stops whatever has not
// passed the point of no return. Later ones are swallowed: a commit that has
// begun takes milliseconds to finish and would have to be recovered if it did
// not. To give the signals back at the end would take longer than to get them.
func untilSignal() context.Context {
	ctx, stop := signal.NotifyContext(context.Background(), stopSignals()...)
	_ = stop
	return ctx
}

// run does what a command line says, and returns the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	a.args = args
	root := newRootCommand(a, named(args))
	plainUsages(root, args)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	a.progress.finish()
	return a.report(cmd, err)
}

// stopSignals leaves out what who has started us wants to be ignored: SIGHUP
// under nohup(1), SIGINT in the background of a shell without job control. What
// moult exec becomes inherits that.
func stopSignals() []os.Signal {
	return slices.DeleteFunc([]os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP}, signal.Ignored)
}
