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
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
	"moult.example/internal/lab"
	"moult.example/internal/restart"
)

// The exit statuses. They are an interface: other programs branch on them.
const (
	statusDone        = 0
	statusFailed      = 1
	statusUsage       = 2
	statusFound       = 3
	statusUnfinished  = 4
	statusBusy        = 5
	statusInterrupted = 130

	statusNotExecutable = 126 // exec only; else the status is the program's
	statusNotFound      = 127
)

// statusText is what each status means, for the help.
var statusText = map[int]string{
	statusDone:        "done",
	statusFailed:      "failed; nothing changed",
	statusUsage:       "wrong usage",
	statusFound:       "found something",
	statusUnfinished:  "changed, but not finished or not healthy: see moult status",
	statusBusy:        "busy: another moult holds the target",
	statusInterrupted: "interrupted; nothing changed",

	statusNotExecutable: "COMMAND was found, but could not be executed",
	statusNotFound:      "COMMAND was not found",
}

// usageError is a command line that cannot be meant.
type usageError struct {
	message string
	hint    string
}

func (e *usageError) Error() string { return e.message }

// errFound ends a command that looked and found something. What it found is
// its result, so nothing more is said.
var errFound = errors.New("found something")

// diagnosis is everything that a failed command says.
type diagnosis struct {
	Error    string           `json:"error"`
	Hint     string           `json:"hint,omitempty"`
	Problems []deploy.Problem `json:"problems,omitempty"`
	Status   int              `json:"status"`
}

// diagnose maps an error to the exit status and the way out. It is the only
// place that does.
func diagnose(err error) diagnosis {
	d := diagnosis{Error: err.Error(), Status: statusFailed}
	var usage *usageError
	var refused *deploy.RefusedError
	var conflict *deploy.ConflictError
	var command *commandError
	var ask *askError
	var operand *operandError
	var source *sourceError
	var unit *unitError
	var remains *restart.RemainsError
	var noParent *noParentError
	var list *deploy.ListError
	var compiler *lab.CompilerError
	var launch *lab.LaunchError
	var product *deploy.NoProductError
	var unsaid *unsaidError
	switch {
	case errors.As(err, &unsaid):
		d.Status, d.Hint = statusUnfinished, "moult status shows what is live"
	case errors.As(err, &command):
		d.Status = command.status()
	case errors.As(err, &usage):
		d.Status, d.Hint = statusUsage, usage.hint
	case errors.As(err, &conflict):
		d.Status, d.Hint = statusUnfinished, "the rest is done; if theirs is not wanted, move it away and apply the release again"
	case errors.Is(err, deploy.ErrUnfinished):
		d.Status, d.Hint = statusUnfinished, "moult recover finishes it, and so does the next command that writes"
	case errors.Is(err, deploy.ErrCutShort):
		d.Status, d.Hint = statusUnfinished, "moult recover finishes or undoes it; it can be run any number of times"
	case errors.Is(err, deploy.ErrAfter):
		d.Status, d.Hint = statusUnfinished, "mend it and apply the same release again, which runs it once more; or moult rollback"
	case errors.Is(err, restart.ErrUnhealthy):
		d.Status, d.Hint = statusUnfinished, "moult ps shows who runs what, moult status what is live"
	case errors.As(err, &ask):
		d.Hint = "--yes does all that was shown; --deny leaves out what it matches"
	case errors.As(err, &operand) && errors.Is(err, fs.ErrNotExist):
		d.Hint = "want a TARGET, which moult targets lists, or a FILE that is there; without either it is about all of this host"
	case errors.Is(err, deploy.ErrBusy):
		d.Status, d.Hint = statusBusy, "--wait 30s waits for it"
	case errors.Is(err, deploy.ErrInstallPartly):
		d.Status, d.Hint = statusUnfinished, "run it again: it is safe to repeat"
	case errors.Is(err, deploy.ErrInstallMount):
		d.Hint = "replace the file that is mounted there; mount its directory if it is to be replaced from here"
	case errors.Is(err, deploy.ErrInstallImmutable):
		d.Hint = "lsattr shows it; chattr -i -a takes it away"
	case errors.Is(err, context.Canceled):
		d.Status, d.Error = statusInterrupted, "interrupted, nothing has changed"
	case errors.As(err, &refused):
		d.Hint, d.Problems = refused.Hint(), refused.Problems
	case errors.As(err, &product):
		d.Hint = "--name wants one of these; without it, moult status shows them all"
	case errors.Is(err, deploy.ErrNoTarget):
		d.Hint = "moult targets lists those of this host; moult apply makes one"
	case errors.Is(err, deploy.ErrNoGeneration):
		d.Hint = "moult status lists the generations"
	case errors.Is(err, deploy.ErrNewer):
		d.Hint = "use the moult that wrote it, or a newer one"
	case errors.As(err, &remains):
		d.Status, d.Hint = statusFound, cmp.Or(leftHint(remains.Left), "moult ps shows who runs what")
	case errors.Is(err, errFound):
		d.Status = statusFound
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		d.Hint = "moult gc frees what no process uses any more"
	case errors.As(err, &noParent):
		d.Hint = "there is no directory " + deploy.Path(noParent.dir).Quoted() + "; install -D makes it"
	case errors.As(err, &list):
		d.Hint = "MOULT_STATE_DIR=DIR names another place for it"
	case errors.As(err, &unit):
		d.Hint = unit.hint()
	case errors.As(err, &source):
		d.Hint = "the user " + whoRuns() + " must be able to read it"
	case errors.As(err, &compiler):
		d.Hint = "it needs a C compiler and the C library's headers, as gcc and libc6-dev are; CC=COMPILER names another"
	case errors.As(err, &launch):
		d.Hint = "--dir DIR tries it in another directory"
	case errors.Is(err, unix.EPERM) && os.Geteuid() == 0:
		d.Hint = "lsattr shows whether it is immutable, which chattr -ia undoes; else this root lacks a capability"
	case errors.Is(err, fs.ErrPermission):
		d.Hint = "run it as the user who owns the target, or as root"
	}
	return d
}

// report says on standard error what went wrong and returns the exit status.
// With --json a command that has printed no result prints the error as its
// document.
func (a *app) report(cmd *cobra.Command, err error) int {
	if err == nil {
		return statusDone
	}
	d := diagnose(err)
	if errors.Is(err, errFound) && d.Status == statusFound {
		return d.Status
	}
	prefix := "moult: "
	if cmd != nil && cmd.HasParent() {
		prefix += strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" ") + ": "
	}
	lines := errorLines(err, d)
	if cmd != nil && cmd.GroupID == groupLook {
		d.Error = onlyLooked(d.Error)
		for i := range lines {
			lines[i] = onlyLooked(lines[i])
		}
	}
	for _, line := range lines {
		if line != "" {
			a.say(prefix + oneLine(line))
		}
	}
	if refused, ok := sole(err).(*deploy.RefusedError); d.Hint != "" && (!ok || oneWayOut(refused.Problems)) {
		a.say("moult: hint: " + d.Hint)
	}
	if a.json && !a.printed {
		if err := a.print(d, nil); err != nil {
			a.say("moult: " + err.Error())
		}
	}
	return d.Status
}

// onlyLooked leaves out of an error's text that nothing has changed: of a command
// that changes nothing that goes without saying, and sounds as if it had tried.
func onlyLooked(text string) string { return strings.ReplaceAll(text, deploy.Refused, "") }

// whoRuns is the name of the user who runs this, or else the number.
func whoRuns() string {
	uid := strconv.Itoa(os.Geteuid())
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return "uid " + uid
}

// sole is the error in joins of one.
func sole(err error) error {
	for {
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok || len(joined.Unwrap()) != 1 {
			return err
		}
		err = joined.Unwrap()[0]
	}
}

// oneWayOut says that no two problems have different hints, so that one is said
// for all.
func oneWayOut(problems []deploy.Problem) bool {
	return !slices.ContainsFunc(problems, func(p deploy.Problem) bool { return p.Hint != problems[0].Hint })
}

// errorLines are the errors of several targets, or the problems of a refusal with
// their ways out, each for a line of its own.
func errorLines(err error, d diagnosis) []string {
	const show = 8
	if refused, ok := sole(err).(*deploy.RefusedError); ok && len(refused.Problems) > 1 {
		lines := []string{deploy.Refused}
		for _, p := range refused.Problems {
			if oneWayOut(refused.Problems) {
				p.Hint = ""
			}
			lines = append(lines, problemText(p))
		}
		if more := len(refused.Problems) - show; more > 1 {
			lines = append(lines[:show+1], fmt.Sprintf("and %d more", more))
		}
		return lines
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || d.Error != err.Error() {
		return []string{d.Error}
	}
	var lines []string
	for _, e := range joined.Unwrap() {
		lines = append(lines, e.Error())
	}
	if strings.Join(lines, "\n") != d.Error { // one sentence that wraps several
		return []string{d.Error}
	}
	if more := len(lines) - show; more > 1 {
		lines = append(lines[:show], fmt.Sprintf("and %d more", more))
	}
	return lines
}

// remark says something beside the result, on standard error.
func (a *app) remark(format string, args ...any) {
	if !a.quiet {
		a.progress.finish()
		a.say("moult: " + fmt.Sprintf(format, args...))
	}
}

// say writes a line to standard error.
func (a *app) say(line string) { io.WriteString(a.stderr, foldTo(a.stderr, line+"\n")) }

// oneLine keeps errors that were joined on one line, and control characters of
// file names off the terminal.
func oneLine(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}
