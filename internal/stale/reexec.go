package stale

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// reexecName is what the link to the file looks like by which a program tells
// that it can replace itself (docs/reexec-protocol.md).
const reexecName = "/memfd:moult-reexec (deleted)"

const mostDescriptors = 4096 // that are looked at for it

// reexec reads what the process says about replacing itself; nil if nothing.
func (l *visit) reexec() *Reexec {
	marked := func(u used) bool {
		f := l.content(u.node, u.area)
		return f != nil && f.marked
	}
	if !slices.ContainsFunc(l.files, marked) {
		return nil
	}
	return l.shown()
}

// ReexecOf returns what the process of that number says about replacing itself,
// whatever it runs; nil if nothing.
func ReexecOf(pid int) *Reexec {
	p, err := openProcess("/proc", pid)
	if err != nil {
		return nil
	}
	defer p.close()
	return (&visit{search: &search{live: true}, scratch: new(scratch), p: p, first: p}).shown()
}

// shown looks for the file in which the process says it.
func (l *visit) shown() *Reexec {
	n := 0
	for fd, err := range l.first.numbers("fd") {
		if n++; err != nil || n > mostDescriptors {
			return nil
		}
		name := "fd/" + strconv.Itoa(fd)
		if text, err := l.first.link(name); err != nil || text != reexecName {
			continue
		}
		if x := l.readReexec(name); x != nil {
			return x
		}
	}
	return nil
}

func (l *visit) readReexec(name string) *Reexec {
	fd, err := openAt(l.first.dir, name, unix.O_RDONLY)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	// A program that takes descriptors from others, as a message bus does, can be
	// sent one that looks like its own: whoever made it has to be its user, or root.
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Uid != 0 && int(st.Uid) != l.uid() {
		return nil
	}
	n, err := descriptor(fd).Read(l.page[:4096])
	if err != nil {
		return nil
	}
	x, pid, ok := parseReexec(l.page[:n])
	if !ok || pid != l.innerPID() {
		return nil // inherited from another process
	}
	const all = unix.F_SEAL_WRITE | unix.F_SEAL_GROW | unix.F_SEAL_SHRINK
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	x.Sealed = err == nil && seals&all == all
	return x
}

// parseReexec reads "moult-reexec VERSION" and lines of a word and a number.
// Words that it does not know may follow.
func parseReexec(text []byte) (x *Reexec, pid int, ok bool) {
	x = &Reexec{}
	for i, line := range strings.Split(string(text), "\n") {
		word, value, _ := strings.Cut(line, " ")
		if i == 0 && word != "moult-reexec" {
			return nil, 0, false
		}
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			if i == 0 {
				return nil, 0, false
			}
			continue
		}
		switch word {
		case "moult-reexec":
			x.Protocol = n
		case "pid":
			pid = n
		case "generation":
			x.Generation = n
		case "rejected":
			x.Rejected = n
		case "starting":
			x.Starting = n != 0
		case "signal":
			if n > 64 {
				return nil, 0, false
			}
			x.Signal = n
		}
	}
	return x, pid, true
}

// innerPID is the number that the process has in its own PID namespace.
func (l *visit) innerPID() int {
	text, err := l.read("status", 8<<10)
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(text, []byte("\nNSpid:\t"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	f := bytes.Fields(line)
	if len(f) == 0 {
		return l.first.pid
	}
	pid, _ := strconv.Atoi(string(f[len(f)-1]))
	return pid
}
