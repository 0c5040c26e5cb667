package deploy

import (
	"fmt"
	"os/exec"
	"os/user"
	"strconv"
	"strings"
)

// installOwner returns the number of a user or a group, or -1 if the text is
// empty or the number that chown(2) takes for "as it is". A name wins over a
// number, and a number may be octal or hexadecimal, as in install(1).
func installOwner(text, what, database string) (int, error) {
	if text == "" {
		return -1, nil
	}
	if id, ok := lookUpName(text, database); ok {
		return id, nil
	}
	if id, ok := parseID(text); ok {
		return id, nil
	}
	// A program without cgo knows the files in /etc alone; directory services
	// answer to getent(1). It is not asked for a number that is too large: it cuts
	// it short, and 4294967296 would be root.
	if strings.Trim(text, " \t\n\v\f\r+-0123456789") == "" {
		return 0, fmt.Errorf("invalid %s %s", what, quoteName(text))
	}
	if out, err := exec.Command("getent", "--", database, text).Output(); err == nil {
		if fields := strings.Split(string(out), ":"); len(fields) > 2 {
			if id, err := strconv.Atoi(fields[2]); err == nil {
				return id, nil
			}
		}
	}
	return 0, fmt.Errorf("invalid %s %s", what, quoteName(text))
}

func lookUpName(name, database string) (int, bool) {
	number := ""
	if database == "passwd" {
		if u, err := user.Lookup(name); err == nil {
			number = u.Uid
		}
	} else if g, err := user.LookupGroup(name); err == nil {
		number = g.Gid
	}
	id, err := strconv.Atoi(number)
	return id, err == nil
}

// parseID reads a number as strtoul(3) with base 0 does: blanks before it
// do not count, 0x is hexadecimal, a leading 0 octal.
func parseID(text string) (int, bool) {
	text = strings.TrimPrefix(strings.TrimLeft(text, " \t\n\v\f\r"), "+")
	base := 10
	switch lower := strings.ToLower(text); {
	case strings.HasPrefix(lower, "0x"):
		text, base = text[2:], 16
	case strings.HasPrefix(text, "0"):
		base = 8
	}
	n, err := strconv.ParseUint(text, base, 32)
	if err != nil {
		return 0, false
	}
	if n == 1<<32-1 {
		return -1, true
	}
	return int(n), true
}
