package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/user"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"moult.example/internal/deploy"
	"moult.example/internal/stale"
)

// psFlags are the flags of ps, and its operands when their kind is known.
type psFlags struct {
	check    bool
	users    []string
	unit     string
	sort     string
	strict   bool
	space    bool
	verbose  bool
	watch    bool
	interval time.Duration

	asked string // see answersFlag

	unitDirs []string // nil are systemd's; for tests

	find func(context.Context, stale.Options) (*stale.Report, error) // nil is stale.Find; for tests

	uids    []int
	targets []string // without symbolic links
	files   []string
}

func newPSCommand(a *app) *cobra.Command {
	var f psFlags
	c := &cobra.Command{
		Use:   "ps [FLAGS] [TARGET... | FILE...]",
		Short: "which processes still run what was replaced",
		Long: `List the processes that run code of a file which is not what they would load if
they were started now: all of this host, or those that run something of a TARGET
which is not its live generation. The verdicts:

  STALE    a fresh start would load other bytes
  GONE     a fresh start would find nothing there, and fail
  CORRUPT  overwritten in place: the process can crash at any time

With a FILE: who uses it at this moment, in which way, and whether it is safe to
overwrite it, to rename another over it, or to delete it.

With --unit and --check a unit that is stopped is well. One that has no process
and is not known to systemd either is an error: its name may be wrong.

Nothing is run and nothing is changed. Only root sees every process; for others
moult says how many it could not look into.`,
		Example: `  moult ps
  moult ps /opt/app --check || echo "restart something"
  moult ps /usr/lib/x86_64-linux-gnu/libssl.so.3
  moult ps --watch --unit 'nginx*'`,
		Annotations:       exitsAs(map[int]string{statusFound: "with --check: there is such a process"}, statusFound),
		ValidArgsFunction: completeTargets,
	}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if f.asked != "" {
			return askFileSystem(f.asked)
		}
		if err := f.settle(args); err != nil {
			return err
		}
		ctx := cmd.Context()
		switch {
		case len(f.files) > 0:
			return a.psFiles(ctx, &f)
		case f.watch:
			return a.psWatch(ctx, &f)
		}
		found, err := a.psLook(ctx, &f)
		if err != nil {
			return err
		}
		return a.psPrint(found, &f)
	}
	f.add(c.Flags())
	return c
}

func (f *psFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&f.check, "check", false, "end with status 3 if there is any")
	flags.StringSliceVarP(&f.users, "user", "u", nil, "only processes of a `USER`, by name or number; several\nwith commas")
	flags.StringVar(&f.unit, "unit", "", "only those of a systemd `UNIT`: app.service, app, 'app@*'")
	flags.StringVar(&f.sort, "sort", "verdict", "by `KEY`: verdict, pid, user, start, since or unit")
	flags.BoolVar(&f.strict, "strict", false, "list also who has another inode of the very same bytes")
	flags.BoolVar(&f.space, "space", false, "list each deleted file that still takes space, open ones\ntoo, and who holds it")
	flags.BoolVarP(&f.verbose, "verbose", "v", false, "list all files, with the reasons, and the command lines")
	flags.BoolVarP(&f.watch, "watch", "w", false, "look again and again, and show what changes; q ends it")
	flags.DurationVar(&f.interval, "interval", 2*time.Second, "with --watch: look every `TIME`")
	flags.StringVar(&f.asked, answersFlag, "", "")
	flags.Lookup(answersFlag).Hidden = true
}

// settle checks the flags, and finds out what the operands are.
func (f *psFlags) settle(operands []string) error {
	if _, known := psOrders[f.sort]; !known {
		return &usageError{message: "unknown --sort " + f.sort, hint: "verdict, pid, user, start, since or unit"}
	}
	if f.interval < 100*time.Millisecond {
		return &usageError{message: "--interval is too short", hint: "100ms at least"}
	}
	if _, err := path.Match(f.unit, ""); err != nil {
		return &usageError{message: fmt.Sprintf("--unit %q is no pattern: %v", f.unit, err)}
	}
	for _, name := range f.users {
		uid, err := uidOf(name)
		if err != nil {
			return &usageError{message: fmt.Sprintf("there is no user %q", name), hint: "a name or a number"}
		}
		f.uids = append(f.uids, uid)
	}
	for _, operand := range operands {
		real, err := stale.Answered(0, func() (string, error) { return targetOf(operand) })
		switch {
		case errors.Is(err, stale.ErrNoAnswer):
			return &operandError{&fs.PathError{Op: "lstat", Path: operand, Err: err}}
		case err != nil:
			return err
		case real != "":
			f.targets = append(f.targets, real)
		default:
			f.files = append(f.files, operand)
		}
	}
	switch {
	case len(f.targets) > 0 && len(f.files) > 0:
		return &usageError{message: fmt.Sprintf("%q is a target and %q is none", f.targets[0], f.files[0]), hint: "want targets or files, not both"}
	case f.watch && f.check:
		return &usageError{message: "want --watch or --check, not both"}
	case f.watch && len(f.files) > 0:
		return &usageError{message: "--watch is for processes, not for files"}
	}
	return nil
}

// targetOf is the path of a target without symbolic links, "" if the operand is
// something else.
func targetOf(operand string) (string, error) {
	if _, err := os.Lstat(filepath.Join(operand, ".moult", "layout")); err != nil {
		return "", nil
	}
	abs, err := filepath.Abs(operand)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

func uidOf(name string) (int, error) {
	if u, err := user.Lookup(name); err == nil {
		name = u.Uid
	}
	uid, err := strconv.Atoi(name)
	if err == nil && uid < 0 {
		err = strconv.ErrRange
	}
	return uid, err
}

// psFound is what ps has found, sorted.
type psFound struct {
	stale.Report
	old     []stale.Process // those with a verdict
	suspect []stale.Process // those of which something can only be suspected
	at      time.Time
	empty   *emptyUnit // nil if anything is in the --unit, or there was none
}

// psLook looks at the processes once, and picks what was asked for.
func (a *app) psLook(ctx context.Context, f *psFlags) (psFound, error) {
	o := stale.Options{UIDs: f.uids, Strict: f.strict, Open: f.space, Places: deploy.NewPlaces(a.options(0)), Answers: a.servers.answer}
	find := f.find
	if find == nil {
		find = stale.Find
	}
	report, err := find(ctx, o)
	if err != nil {
		return psFound{}, err
	}
	found := f.pick(*report, time.Now())
	if f.unit != "" && len(found.old)+len(found.suspect) == 0 {
		found.empty, err = f.lookUnit(ctx)
	}
	return found, err
}

// pick leaves of a report what was asked for, in the order that was asked for.
func (f *psFlags) pick(report stale.Report, now time.Time) psFound {
	found := psFound{Report: report, at: now, old: make([]stale.Process, 0, len(report.Processes))}
	for _, p := range report.Processes {
		if len(f.uids) > 0 && !slices.Contains(f.uids, p.UID) || !f.wants(p.Unit) || len(f.targets) > 0 && !f.ofTargets(&p) {
			continue
		}
		p.Files = slices.SortedStableFunc(slices.Values(p.Files), compareFiles)
		if p.Verdict() != stale.None {
			found.old = append(found.old, p)
		} else {
			found.suspect = append(found.suspect, p)
		}
	}
	found.old = psSorted(found.old, f.sort)
	if len(f.uids) > 0 || f.unit != "" || len(f.targets) > 0 {
		found.heldByThese()
	}
	return found
}

// heldByThese leaves of the deleted files those that the processes hold which
// were asked for.
func (found *psFound) heldByThese() {
	these := map[int]bool{}
	for _, p := range slices.Concat(found.old, found.suspect) {
		these[p.PID] = true
	}
	all := found.Held
	found.Held, found.HeldBytes = nil, 0
	for _, h := range all {
		if slices.ContainsFunc(h.PIDs, func(pid int) bool { return these[pid] }) {
			found.Held = append(found.Held, h)
			if !h.Unknown {
				found.HeldBytes += h.Bytes
			}
		}
	}
}

// wants says whether --unit lets a process through.
func (f *psFlags) wants(u stale.Unit) bool {
	if f.unit == "" {
		return true
	}
	for _, pattern := range []string{f.unit, f.unit + ".service"} {
		if ok, _ := path.Match(pattern, u.Name); ok {
			return true
		}
	}
	return false
}

// ofTargets leaves of a process what is about the targets, and says whether
// there is anything.
func (f *psFlags) ofTargets(p *stale.Process) bool {
	p.Files = slices.DeleteFunc(slices.Clone(p.Files), func(x stale.File) bool {
		return !f.below(x.Runs.Target, x.Gets.Target, x.Path, x.Mapped)
	})
	p.Hints = slices.DeleteFunc(slices.Clone(p.Hints), func(h stale.Hint) bool { return !f.below("", "", h.Path) })
	return len(p.Files) > 0 || len(p.Hints) > 0
}

func (f *psFlags) below(runs, gets string, paths ...string) bool {
	for _, t := range f.targets {
		if t == runs || t == gets {
			return true
		}
		for _, path := range paths {
			if strings.HasPrefix(path, strings.TrimSuffix(t, "/")+"/") {
				return true
			}
		}
	}
	return false
}

// compareFiles sorts a process's files: the worst first, then what it executes,
// then by name.
func compareFiles(a, b stale.File) int {
	exe := func(f stale.File) int {
		if f.Kind == stale.KindExe {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(b.Verdict.Severity(), a.Verdict.Severity()), cmp.Compare(exe(a), exe(b)), cmp.Compare(a.Path, b.Path))
}

func (a *app) psPrint(found psFound, f *psFlags) error {
	var err error
	if a.json {
		all := found.old
		found.old = nil
		err = a.printList(psDocumentOf(found, f), "processes", func(yield func(any) bool) {
			var d psProcess
			for i := range all {
				if d = psProcessOf(all[i]); !yield(&d) {
					return
				}
			}
		})
		found.old = all
	} else {
		v := a.psView(f)
		err = a.print(nil, func(w io.Writer) {
			for _, line := range v.lines(found, f) {
				fmt.Fprintln(w, line)
			}
		})
	}
	switch {
	case err != nil || !f.check:
	case len(found.old) > 0:
		return errFound
	default:
		return found.empty.err()
	}
	return err
}
