package stale

import (
	"bufio"
	"bytes"
	"strings"

	"golang.org/x/sys/unix"
)

// answers says that the file system of a device answers, to which the path leads.
// Only one that a program serves (FUSE) is asked, once: if that program hangs,
// who has asked cannot even be killed, so somebody else is sent.
func (l *visit) answers(path string, dev uint64) bool {
	s := l.search
	if s.Answers == nil || !s.live || unix.Major(dev) != 0 {
		return true
	}
	answers, ok := s.served.get(dev, s.patience, func() (bool, bool) {
		kind := l.p.fileSystem(dev)
		if !(kind == "fuse" || strings.HasPrefix(kind, "fuse.") || kind == s.asFUSE && kind != "") {
			return true, true
		}
		return s.Answers(path, s.patience/2), true
	})
	return ok && answers
}

// fileSystem is the type of the file system with that device, if the process has
// it mounted.
func (p *process) fileSystem(dev uint64) string {
	fd, err := openAt(p.dir, "mountinfo", unix.O_RDONLY)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	r := readers.Get().(*bufio.Reader)
	defer readers.Put(r)
	r.Reset(descriptor(fd))
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return "" // no line is longer than the buffer
		}
		if found, kind := parseMount(line); found == dev {
			return string(kind)
		}
	}
}

// parseMount reads "id parent major:minor … - type source options" (proc(5)). No
// field before the dash is one.
func parseMount(line []byte) (dev uint64, kind []byte) {
	head, tail, ok := bytes.Cut(line, []byte(" - "))
	f := bytes.Fields(head)
	if !ok || len(f) < 3 {
		return 0, nil
	}
	kind, _, _ = bytes.Cut(tail, []byte(" "))
	return parseDev(f[2], 10), kind
}
