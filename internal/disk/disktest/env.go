package disktest

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"moult.example/internal/disk"
)

// FromEnv puts the fault that the environment asks for before a disk of a real
// program. All disks of the process count together.
//
//	MOULT_FAULT=WHAT:N[-][:KIND[:PATTERN]]
//	    WHAT: kill (before the operation), kill-after, eio, enospc, exdev,
//	    erofs, edquot, eperm, eacces, einval, ebusy, emfile
//	    N: the N-th operation, counted from 1; with "-" all from there on
//	    KIND and PATTERN: count only these, see Is; KIND may be empty
//	MOULT_FAULT_LOG=FILE
//	    appends a line for each operation that counts, before it is done:
//	    number, kind, names
//
// With neither it returns the disk as it is.
func FromEnv(under disk.FS) (disk.FS, error) {
	f, err := envFaults()
	if err != nil || f == nil {
		return under, err
	}
	return Wrap(under, f.hook), nil
}

var envFaults = sync.OnceValues(func() (*faults, error) {
	spec, logName := os.Getenv("MOULT_FAULT"), os.Getenv("MOULT_FAULT_LOG")
	if spec == "" && logName == "" {
		return nil, nil
	}
	f := &faults{}
	if spec != "" {
		fault, err := parseFault(spec)
		if err != nil {
			return nil, fmt.Errorf("MOULT_FAULT=%s: %w", spec, err)
		}
		f.fault = fault
	}
	if logName != "" {
		log, err := os.OpenFile(logName, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("MOULT_FAULT_LOG: %w", err)
		}
		f.seen = func(n int, op Op) { fmt.Fprintf(log, "%d %s\n", n, op) }
	}
	return f, nil
})

var faultErrnos = map[string]syscall.Errno{
	"eio": syscall.EIO, "enospc": syscall.ENOSPC, "exdev": syscall.EXDEV, "erofs": syscall.EROFS,
	"edquot": syscall.EDQUOT, "eperm": syscall.EPERM, "eacces": syscall.EACCES, "einval": syscall.EINVAL,
	"ebusy": syscall.EBUSY, "emfile": syscall.EMFILE,
}

func parseFault(spec string) (Fault, error) {
	var f Fault
	parts := strings.SplitN(spec, ":", 4)
	if len(parts) < 2 {
		return f, fmt.Errorf("want WHAT:N")
	}
	switch parts[0] {
	case "kill":
		f.KillBefore = true
	case "kill-after":
		f.KillAfter = true
	default:
		errno, ok := faultErrnos[parts[0]]
		if !ok {
			return f, fmt.Errorf("unknown fault %q", parts[0])
		}
		f.Errno = errno
	}
	number, on := strings.CutSuffix(parts[1], "-")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 {
		return f, fmt.Errorf("bad number %q", parts[1])
	}
	f.At, f.On = n, on
	if len(parts) > 2 {
		pattern := ""
		if len(parts) > 3 {
			pattern = parts[3]
		}
		if _, err := path.Match(pattern, ""); err != nil {
			return f, fmt.Errorf("bad pattern %q", pattern)
		}
		f.Match = Is(Kind(parts[2]), pattern)
	}
	return f, nil
}
