// Command bench measures moult against the tools that people use in its place.
//
// It runs moult and its peers in turn, as real processes, on the same tree, and
// prints ratios of medians, each beside the most that it may be. Seconds are
// context, never a claim: they belong to the machine, and the ratios stay.
//
// The rule of this room: whatever moult is timed at includes making the result
// durable. A peer is timed at what its name says: "cp -a + sync -f" syncs,
// "rsync -a" does not. What a job is done on is made, and what it leaves is
// removed and synced, outside the timing.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

// options are the flags.
type options struct {
	moult   string  // path of the program; "" builds it
	dir     string  // where the work directory is made; "" is TMPDIR
	only    string  // names of sections, with commas; "" is all
	rounds  int     // of the sections that take long; others take a multiple
	scale   float64 // of the number of files and bytes
	json    bool
	seconds bool

	markdown bool
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program but for its process: it returns the exit status, 0
// if everything could be measured, whether the targets are met or not.
func run(args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	report, err := measureAll(ctx, o, stderr)
	if report != nil {
		write := report.writeText
		switch {
		case o.json:
			write = report.writeJSON
		case o.markdown:
			write = report.writeMarkdown
		}
		err = errors.Join(err, write(stdout, o))
	}
	if err != nil {
		fmt.Fprintln(stderr, "bench:", err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.moult, "moult", "", "measure the program at `PATH`; it is built if this is not given")
	flags.StringVar(&o.dir, "dir", "", "work in a new directory below `DIR`, whose file system is the one measured (default $TMPDIR)")
	flags.StringVar(&o.only, "only", "", "measure these `NAMES` only, with commas: "+strings.Join(sectionNames(), ", "))
	flags.IntVar(&o.rounds, "rounds", 5, "how often each job is done")
	flags.Float64Var(&o.scale, "scale", 1, "multiply the files and bytes of the trees, 0.1 for a quick try")
	flags.BoolVar(&o.json, "json", false, "print one JSON document, with every sample")
	flags.BoolVar(&o.markdown, "markdown", false, "print the table of docs/bench.md")
	flags.BoolVar(&o.seconds, "seconds", false, "print medians in seconds, CPU time and memory too, as context")
	flags.Usage = func() {
		fmt.Fprintln(stderr, "usage: go run ./internal/bench [flags]")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if o.rounds < 1 || o.scale <= 0 || o.scale > 10 {
		return o, errors.New("--rounds is at least 1, --scale more than 0 and at most 10")
	}
	for name := range strings.SplitSeq(o.only, ",") {
		if name != "" && findSection(name) == nil {
			return o, fmt.Errorf("--only %s: no such section; there are %s", name, strings.Join(sectionNames(), ", "))
		}
	}
	return o, nil
}
