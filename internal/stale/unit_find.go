package stale

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// InUnit says whether there is a process, old or not, in a unit that match
// knows. Hidden says that /proc does not show all processes.
func InUnit(ctx context.Context, o Options, match func(Unit) bool) (found, hidden bool, err error) {
	proc := o.Proc
	if proc == "" {
		proc = "/proc"
	}
	dir, err := os.Open(proc)
	if err != nil {
		return false, false, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return false, false, err
	}
	hidden = true
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue
		}
		if err := ctx.Err(); err != nil {
			return false, false, err
		}
		hidden = hidden && name != "1" // process 1 is always there
		text, err := readSome(filepath.Join(proc, name, "cgroup"))
		if err != nil {
			continue // ended meanwhile
		}
		if u, _ := parseHome(controlGroup(text)); u.Name != "" && match(u) {
			return true, false, nil
		}
	}
	return false, hidden, nil
}

// readSome reads the beginning of a file of /proc, which is all of any that is
// not out of the common.
func readSome(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, 16<<10))
}
