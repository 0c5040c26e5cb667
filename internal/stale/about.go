package stale

import (
	"io"
	"os/user"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// describe says who the process is, if there is anything to tell of it.
func (l *visit) describe(r *result, all []outcome) {
	p := Process{PID: l.first.pid}
	if !l.FilesOnly {
		p.Hints = l.hints()
	}
	if len(all) == 0 && len(p.Hints) == 0 {
		return
	}
	if !l.FilesOnly && !l.about(&p) {
		return // ended while we looked
	}
	for _, o := range all {
		p.Files = append(p.Files, l.file(o))
	}
	for _, f := range p.Files {
		if !p.Runs.Known() && !p.Gets.Known() || f.Kind == KindExe {
			if f.Runs.Known() || f.Gets.Known() {
				p.Runs, p.Gets = f.Runs, f.Gets
			}
		}
	}
	if !l.FilesOnly {
		p.Reexec = l.reexec()
	}
	r.found = &p
}

// about is what a process is, whatever it does. It says false if the process
// has ended.
func (l *visit) about(p *Process) (ok bool) {
	st, err := l.status()
	if err != nil && gone(err) {
		return false
	}
	p.PID, p.Ticks, p.Comm = l.first.pid, st.ticks, st.comm
	p.Start = l.boot.Add(time.Duration(st.ticks) * tick)
	p.Exe = l.exe()
	p.Command = l.arguments()
	p.UID = l.uid()
	if p.UID >= 0 {
		p.User, _ = l.users.get(p.UID, l.patience, func() (string, bool) {
			u, err := user.LookupId(strconv.Itoa(p.UID))
			if err != nil {
				return "", true
			}
			return u.Username, true
		})
	}
	p.Unit, p.Container = l.home()
	return true
}

// exe is the path of the executable as the kernel prints it.
func (l *visit) exe() string {
	for i := range l.files {
		if u := &l.files[i]; u.kind == KindExe && u.node.known && u.node.nlink <= 1 {
			return l.printed(u)
		}
	}
	text, _ := l.p.link("exe")
	return text
}

// uid is the process's effective user; -1 if it cannot be read. The owner of
// /proc/PID itself is that user, always. What is in it belongs to root where the
// process must not be dumped, as many that have changed their user.
func (l *visit) uid() int {
	var st unix.Stat_t
	if err := unix.Fstatat(l.first.dir, "", &st, unix.AT_EMPTY_PATH); err != nil {
		return -1
	}
	return int(st.Uid)
}

// arguments are those that the process was started with, or says so.
func (l *visit) arguments() []string {
	const most = 4096
	text, err := l.read("cmdline", most)
	if err != nil || len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
}

// read reads a file of the first thread's /proc/PID, up to a limit, which is at
// most 16 KiB. What it returns is valid until the next read.
func (l *visit) read(name string, most int) ([]byte, error) { return l.readOf(l.first, name, most) }

func (l *visit) readOf(p *process, name string, most int) ([]byte, error) {
	fd, err := openAt(p.dir, name, unix.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	// The kernel makes these files in one piece, when they are first read.
	n, err := descriptor(fd).Read(l.page[:most])
	if err == io.EOF {
		err = nil
	}
	return l.page[:n], err
}

// file is an outcome as others see it.
func (l *visit) file(o outcome) File {
	f := File{
		Path: o.name, Mapped: l.printed(o.used), Kind: o.kind, Verdict: o.verdict,
		Since: clock(o.since), Why: o.why, RunsBuildID: o.hasID, GetsBuildID: o.nextID,
	}
	if o.note != "" {
		f.Notes = []string{o.note}
	}
	if o.node.known {
		f.Has = o.node.id
	}
	if f.RunsBuildID == "" {
		if e := l.content(o.node, o.area); e != nil {
			f.RunsBuildID = e.buildID
		}
	}
	if o.next != nil && o.next.err == nil {
		f.Next = o.next.id
	}
	l.origins(&f, o)
	return f
}

// sources are the releases that a mapped file and the one in its place are from,
// and when the one took the place of the other; zero if that is not known.
type sources struct {
	runs, gets Origin
	since      time.Time
}

// place is a file that is mapped under a name, and what would be loaded in its
// stead.
type place struct {
	pair
	text string
}

// origins asks which releases the two files are from, once for all processes
// that have the same.
func (l *visit) origins(f *File, o outcome) {
	if l.Places == nil || !l.root.own {
		return
	}
	both, ok := l.sources.get(place{pair{o.node, o.next}, f.Mapped}, l.patience, func() (of sources, keep bool) {
		next := ""
		if o.next != nil && o.next.err == nil {
			next = l.resolved(o.next)
			of.gets, _ = l.Places.Origin(next)
		}
		text := strings.TrimSuffix(f.Mapped, deletedSuffix)
		name := text
		if d, ok := l.Places.(Displacer); ok && f.Has != (Inode{}) {
			if of.runs, ok = d.Displaced(text, f.Has); ok {
				name = f.Path // the kernel's is that of a temporary
			}
		}
		// What is at the path now is what is mapped, or the path is another one.
		if !of.runs.Known() && (f.Verdict == None || f.Verdict == Corrupt || text != next) {
			of.runs, _ = l.Places.Origin(text)
		}
		if d, ok := l.Places.(Dater); ok && of.runs.Known() && (f.Verdict == Stale || f.Verdict == Gone) {
			of.since, _ = d.Replaced(name, of.runs)
		}
		return of, true
	})
	if !ok {
		return
	}
	f.Runs, f.Gets = both.runs, both.gets
	// Whoever was started later, from what was no longer live, has run it since
	// then, which the times of files may tell or not.
	if both.since.IsZero() {
		return
	}
	if start, err := l.started(); err == nil && both.since.UnixNano() > start {
		f.Since = both.since
	}
}

// resolved is the path of a target without symbolic links, as the host has it.
func (l *visit) resolved(t *target) string {
	fd, err := t.root.open(t.path, unix.O_PATH)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	text, err := pathOf(fd)
	if err != nil {
		return ""
	}
	return text
}
