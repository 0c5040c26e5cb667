package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"moult.example/internal/stale"
)

// What processes, files and times are called before people.

// where says where a process belongs: its unit, its container, or both.
func where(u stale.Unit, c stale.Container) string {
	text := plain(u.Name)
	if u.Name == "" {
		text = ""
	} else if u.User {
		text += " (user)"
	}
	if c != (stale.Container{}) {
		name := c.Name
		if len(name) == 64 { // the whole id, of which people know the beginning
			name = name[:12]
		}
		text = strings.TrimSpace(c.Engine+" "+plain(name)) + strings.TrimSuffix(" "+text, " ")
	}
	return cut(text, 28)
}

func userName(uid int, name string) string {
	if name == "" {
		return strconv.Itoa(uid)
	}
	return name
}

// command is what people know a process by: its arguments, the first without
// its directories unless everything is wanted.
func (v psView) command(args []string, comm string) string {
	if len(args) > 0 && strings.HasPrefix(args[0], "/") && !strings.Contains(args[0], " ") && !v.verbose {
		args = append([]string{args[0][strings.LastIndexByte(args[0], '/')+1:]}, args[1:]...)
	}
	text := strings.Join(args, " ")
	if text == "" {
		return "[" + plain(comm) + "]"
	}
	if strings.IndexFunc(text, notShown) >= 0 || !utf8.ValidString(text) {
		return plain(text)
	}
	return text
}

// plain is a name that a process or a file gave itself, harmless on a terminal:
// quoted if there is anything in it that could be taken for something else.
func plain(name string) string {
	if name == "" || !utf8.ValidString(name) || strings.IndexFunc(name, notShown) >= 0 || strings.ContainsAny(name, "\"' \\") {
		return strconv.Quote(name)
	}
	return name
}

func notShown(r rune) bool { return !unicode.IsPrint(r) }

// trimDeleted takes off what the kernel adds to the name of a deleted file.
func trimDeleted(name string) string { return strings.TrimSuffix(name, " (deleted)") }

// cut shortens a text to so many characters, the last of which says so.
func cut(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:max(0, width-1)]) + "…"
}

// ago is how long a time is past, in one unit.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	d := max(0, now.Sub(t))
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds ago", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	}
	return fmt.Sprintf("%dd ago", int(d.Hours()/24))
}

// plural writes a number with a noun that has a plural of its own.
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

func them(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}
