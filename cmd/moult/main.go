// Command moult replaces executables and shared libraries while they run, as
// whole releases, and says which processes still run the old code.
//
// There is one file for each subcommand; it parses, calls the engine, prints,
// and holds no rule. Results go to standard output, everything else to standard
// error. Prefixes, hints and exit statuses belong to errors.go alone.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

func main() {
	lazyCollector(0)
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}

// run is the whole program but for its process: it returns the exit status.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	return newApp(stdin, stdout, stderr, environ).run(args)
}

// run does what a command line says.
//
// The first SIGINT, SIGTERM or SIGHUP cancels the context, which stops whatever
// has not passed the point of no return. Later ones are swallowed: a commit
// that has begun takes milliseconds to finish and would have to be recovered
// if it did not.
func (a *app) run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), stopSignals()...)
	defer stop()
	a.args = args
	root := newRootCommand(a, named(args))
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
