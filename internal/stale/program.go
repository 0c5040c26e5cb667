package stale

import (
	"bytes"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// head is what a target begins with.
type head struct {
	elf    *elfFile // nil if it is none
	interp string   // of a script: the program after "#!"
}

// headOf reads the beginning of a target, once.
func (l *visit) headOf(t *target) (head, bool) {
	return l.nexts.get(t, l.patience, func() (head, bool) {
		fd, err := t.open()
		if err != nil {
			return head{}, true
		}
		defer unix.Close(fd)
		var start [256]byte
		n, _ := unix.Pread(fd, start[:], 0)
		if interp, ok := interpreter(start[:max(n, 0)]); ok {
			return head{interp: interp}, true
		}
		f, _ := readELF(descriptorAt(fd))
		return head{elf: f}, true
	})
}

// open opens the target for reading, and says ESTALE if it is another file by
// now.
func (t *target) open() (int, error) {
	fd, err := t.root.open(t.path, unix.O_RDONLY)
	if err != nil {
		return -1, err
	}
	if f, err := inspect(fd, "", 0); err != nil || f.id != t.id {
		unix.Close(fd)
		return -1, unix.ESTALE
	}
	return fd, nil
}

// interpreter reads the first line of a script, as execve(2) does.
func interpreter(start []byte) (string, bool) {
	rest, ok := bytes.CutPrefix(start, []byte("#!"))
	if !ok {
		return "", false
	}
	rest = bytes.TrimLeft(rest, " \t")
	end := bytes.IndexAny(rest, " \t\n\x00")
	if end < 0 {
		end = len(rest)
	}
	return string(rest[:end]), end > 0
}

// program finds the file that would be executed if this target were: a script
// is run by its interpreter, which may be a script again.
func (l *visit) program(u *used, t *target) (*target, bool) {
	if t.err != nil && missing(t.err) && u.name != "" && l.isArgument(u.name) {
		// The kernel gives the name of a script to its interpreter.
		l.script = t
		return l.byPrinted(u)
	}
	for range 5 { // as many as the kernel follows
		if t.err != nil || u.is(t) || !t.regular() {
			return t, true
		}
		h, ok := l.headOf(t)
		if !ok {
			return nil, false
		}
		if h.interp == "" {
			// A file for another kind of machine is run by what is registered with
			// binfmt_misc: what is mapped is that, under its own name.
			if has := l.content(u.node, u.area); u.name != "" && has != nil && !has.sameMachine(h.elf) {
				return l.byPrinted(u)
			}
			return t, true
		}
		if l.script == nil {
			l.script = t
		}
		name := h.interp
		if !strings.HasPrefix(name, "/") {
			return l.byPrinted(u)
		}
		if l.Places != nil {
			name = l.Places.Live(name)
		}
		if t, ok = l.lookUp(t.root, name); !ok {
			return nil, false
		}
	}
	return t, true
}

// byPrinted looks up the path that the kernel prints for a file.
func (l *visit) byPrinted(u *used) (*target, bool) {
	plain := *u
	plain.name = ""
	r, name := l.next(&plain)
	if r == nil {
		return &target{path: name, err: unix.EXDEV}, true
	}
	return l.lookUp(r, name)
}

// isArgument says that a name is the first or second argument.
func (l *visit) isArgument(name string) bool {
	args := l.arguments()
	return slices.Contains(args[min(1, len(args)):min(3, len(args))], name)
}

func (f *elfFile) sameMachine(g *elfFile) bool {
	return g != nil && f.machine == g.machine && f.wide == g.wide
}
