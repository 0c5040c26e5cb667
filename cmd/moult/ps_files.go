package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
	"moult.example/internal/stale"
)

// psFileDocument is the JSON document of moult ps FILE.
type psFileDocument struct {
	Time  time.Time    `json:"time"`
	Files []psUsedFile `json:"files"`
}

type psUsedFile struct {
	Path       deploy.Path `json:"path"`
	Links      int         `json:"links"` // names that the file has
	Users      []psUser    `json:"users"`
	Stale      []int       `json:"stale"`      // processes that run what was there before
	Unreadable []int       `json:"unreadable"` // each may use it too
	Hidden     bool        `json:"hidden,omitempty"`
	Overwrite  psAdvice    `json:"overwrite"`
	Rename     psAdvice    `json:"rename"`
	Delete     psAdvice    `json:"delete"`
}

type psUser struct {
	psIdentity
	Uses []psUse `json:"uses"`
}

type psUse struct {
	Way  string      `json:"way"`
	Path deploy.Path `json:"path"`
	FD   *int        `json:"fd,omitempty"`
	Lock string      `json:"lock,omitempty"`
}

type psAdvice struct {
	Safe bool   `json:"safe"`
	Why  string `json:"why"`
}

// psFiles says of each file who uses it. One that cannot be looked at keeps
// none of the others from it.
func (a *app) psFiles(ctx context.Context, f *psFlags) error {
	var reports []*stale.FileReport
	var errs []error
	for _, name := range f.files {
		r, err := stale.FileUsers(ctx, stale.Options{UIDs: f.uids}, name)
		if err != nil {
			errs = append(errs, &operandError{err})
			continue
		}
		r.Users = slices.DeleteFunc(r.Users, func(u stale.FileUser) bool {
			return !f.wants(u.Unit) || len(f.uids) > 0 && !slices.Contains(f.uids, u.UID)
		})
		reports = append(reports, r)
	}
	if len(reports) == 0 {
		return errors.Join(errs...)
	}
	now := time.Now()
	v := a.psView(f)
	older, err := a.psOlder(ctx, f, reports)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	err = a.print(psFileDocumentOf(reports, older, now), func(w io.Writer) {
		for i, r := range reports {
			if i > 0 {
				fmt.Fprintln(w)
			}
			for _, line := range v.fileLines(r, older[i], now) {
				fmt.Fprintln(w, line)
			}
		}
	})
	if err := errors.Join(append(errs, err)...); err != nil || !f.check {
		return err
	}
	for _, r := range reports {
		if len(r.Users) > 0 {
			return errFound
		}
	}
	return nil
}

// operandError is an operand of ps that cannot be looked at.
type operandError struct{ error }

func (e *operandError) Unwrap() error { return e.error }

func (e *operandError) Error() string {
	var at *fs.PathError
	if errors.As(e.error, &at) {
		return at.Path + ": " + at.Err.Error() // which system call said so helps nobody
	}
	return e.error.Error()
}

func psFileDocumentOf(reports []*stale.FileReport, older []psEarlier, now time.Time) psFileDocument {
	d := psFileDocument{Time: utc(now), Files: []psUsedFile{}}
	for i, r := range reports {
		one := psUsedFile{
			Path: deploy.Path(r.Path), Links: r.Links, Users: []psUser{}, Stale: append([]int{}, older[i].pids...), Unreadable: append([]int{}, r.Unreadable...), Hidden: r.Hidden,
			Overwrite: psAdvice(r.Overwrite), Rename: psAdvice(r.Rename), Delete: psAdvice(r.Delete),
		}
		for _, u := range r.Users {
			user := psUser{psIdentity: psIdentity{
				PID: u.PID, Ticks: u.Ticks, Started: utc(u.Start), UID: u.UID, User: u.User, Comm: deploy.Path(u.Comm), Exe: deploy.Path(u.Exe),
				Command: paths(u.Command), Unit: psUnitOf(u.Unit), Container: psContainerOf(u.Container),
			}, Uses: []psUse{}}
			for _, use := range u.Uses {
				one := psUse{Way: string(use.Way), Path: deploy.Path(use.Path), Lock: use.Lock}
				if use.FD >= 0 {
					one.FD = &use.FD
				}
				user.Uses = append(user.Uses, one)
			}
			one.Users = append(one.Users, user)
		}
		d.Files = append(d.Files, one)
	}
	return d
}

// fileLines says who uses a file, and what may be done to it.
func (v psView) fileLines(r *stale.FileReport, older psEarlier, now time.Time) []string {
	head := plain(r.Path)
	if r.Links > 1 && !r.Dir {
		head += fmt.Sprintf(" (one of %d names of the file)", r.Links)
	}
	switch len(r.Users) {
	case 0:
		head += ": no process uses it"
	default:
		head += ": " + plural(len(r.Users), "process uses it", "processes use it")
	}
	out := v.wrap("", head)
	if len(older.pids) > 0 {
		out = append(out, v.wrap("", older.text())...)
	}
	if len(r.Users) > 0 {
		rows := [][]string{{"PID", "USER", "STARTED", "HOW", "UNIT", "COMMAND"}}
		for _, u := range r.Users {
			rows = append(rows, []string{
				strconv.Itoa(u.PID), cut(plain(userName(u.UID, u.User)), 16), ago(now, u.Start), v.ways(u.Uses),
				where(u.Unit, u.Container), v.command(u.Command, u.Comm),
			})
		}
		layout := v.layOut(rows)
		out = append(out, v.styled(layout[0], styleHead))
		out = append(out, layout[1:]...)
		out = append(out, "")
	}
	for _, x := range []struct {
		what string
		stale.Advice
	}{{"overwrite", r.Overwrite}, {"rename over", r.Rename}, {"delete", r.Delete}} {
		if r.Dir && x.what == "overwrite" {
			continue // nobody can
		}
		word, style := "safe", ""
		if !x.Safe {
			word, style = "NOT SAFE", styleAlarm
		}
		lead := fmt.Sprintf("  %-11s  %-8s  ", x.what, word)
		lines := v.wrap(strings.Repeat(" ", len(lead)), x.Why)
		lines[0] = strings.TrimRight(fmt.Sprintf("  %-11s  %s  %s", x.what, v.styled(fmt.Sprintf("%-8s", word), style), strings.TrimLeft(lines[0], " ")), " ")
		out = append(out, lines...)
	}
	if unseen := v.unseen(r.Unreadable, r.Hidden, ", and may use it too"); len(unseen) > 0 {
		out = append(append(out, ""), unseen...)
	}
	return out
}

// wayText is how a process uses a file, in words.
var wayText = map[stale.Way]string{
	stale.WayExe: "runs it", stale.WayLibrary: "runs code of it", stale.WayShared: "maps it, shared", stale.WayMap: "maps it",
	stale.WayWrite: "writes", stale.WayRead: "reads", stale.WayCwd: "stands in it", stale.WayRoot: "is rooted in it",
}

// ways are the ways of one process, each once, with the descriptors.
func (v psView) ways(uses []stale.FileUse) string {
	var texts []string
	for _, u := range uses {
		text := wayText[u.Way]
		if text == "" {
			text = string(u.Way)
		}
		if v.verbose && u.FD >= 0 {
			text += fmt.Sprintf(" (fd %d)", u.FD)
		}
		if u.Lock != "" {
			text += ", locked"
			if v.verbose {
				text += " (" + oneLine(u.Lock) + ")"
			}
		}
		if !slices.Contains(texts, text) {
			texts = append(texts, text)
		}
	}
	return strings.Join(texts, ", ")
}

// signalName is SIGUSR2, or signal 40.
func signalName(n int) string {
	if name := unix.SignalName(unix.Signal(n)); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", n)
}
