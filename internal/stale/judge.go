package stale

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// outcome is what came of one file.
type outcome struct {
	*used
	next          *target // nil if it could not be found out
	name          string  // what a fresh start would open
	verdict       Verdict
	why           string
	note          string
	since         int64
	hasID, nextID string // build ids, if they were read
}

// tell says that there is something to tell.
func (o outcome) tell() bool { return o.verdict != None || o.note != "" }

// judgeAll compares each file with what a fresh start would load, and returns
// those of which there is something to tell, the worst first.
func (l *visit) judgeAll() []outcome {
	var all []outcome
	for i := range l.files {
		if o := l.judge(&l.files[i]); o.tell() {
			all = append(all, o)
		}
	}
	l.weighGone(all)
	slices.SortStableFunc(all, func(a, b outcome) int { return cmp.Compare(b.verdict.Severity(), a.verdict.Severity()) })
	return all
}

func (l *visit) judge(u *used) outcome {
	r, name := l.next(u)
	o := outcome{used: u, name: name}
	if r == nil {
		o.note = "the process has changed its root directory since; what a fresh start would find is not known"
		return o
	}
	t, ok := l.inPlaceOf(u.node, r, name)
	if ok && u.kind == KindExe {
		t, ok = l.program(u, t)
	}
	if !ok {
		l.blind = true
		return o
	}
	o.next, o.name = t, t.path
	switch {
	case t.err == nil && u.is(t):
		l.written(&o)
	case t.err == nil && t.regular():
		l.compare(&o)
	case t.err == nil:
		o.verdict, o.why = Gone, "there is no file any more but something else"
	case missing(t.err):
		l.missed(&o)
	case t.err == unix.EACCES || t.err == unix.EPERM:
		l.blind = true // a mount of FUSE is closed to root, too
	default:
		o.note = "what is there now cannot be looked at: " + t.err.Error()
	}
	return o
}

// inPlaceOf is lookUp for a file that is mapped: most processes that have it ask
// for the same.
func (l *visit) inPlaceOf(n *node, r *root, name string) (*target, bool) {
	if t := n.next.Load(); t != nil && t.root == r && t.path == name {
		return t, true
	}
	t, ok := l.lookUp(r, name)
	if ok {
		n.next.Store(t)
	}
	return t, ok
}

// missed is the outcome for a file where nothing is any more.
func (l *visit) missed(o *outcome) {
	if l.noCode(o.used) {
		return
	}
	if own, sure := l.ownTemporary(o); own {
		if !sure {
			o.note = "it is gone from a directory of temporary files; the process may have put it there itself"
		}
		return
	}
	o.verdict, o.why = Gone, "nothing is there any more"
	if o.node.known && o.node.nlink == 0 {
		o.since = o.node.changed
	}
	l.writtenBefore(o)
}

// noCode says that a file with code is none that a loader would load: a cache of
// a just-in-time compiler, usually.
func (l *visit) noCode(u *used) bool {
	return u.kind == KindLibrary && u.name == "" && l.content(u.node, u.area) == nil
}

// ownTemporary says that a file is one that a process has made for itself,
// loaded and removed: Java, Python and others unpack libraries like this. It is
// not sure where nothing tells when the file was made.
func (l *visit) ownTemporary(o *outcome) (own, sure bool) {
	if o.kind == KindExe || !slices.ContainsFunc(temporary, func(dir string) bool { return strings.HasPrefix(o.name, dir) }) {
		return false, false
	}
	start, err := l.started()
	if err != nil || o.node.born == 0 {
		return true, false
	}
	return o.node.born > start, true
}

var temporary = []string{"/tmp/", "/var/tmp/", "/dev/shm/", "/run/user/"}

// started is when the process was started, in nanoseconds since 1970, and one
// tick more: the kernel counts whole ticks, and a file's times lag by up to
// one.
func (l *visit) started() (int64, error) {
	st, err := l.status()
	if err != nil {
		return 0, err
	}
	return l.boot.UnixNano() + int64(st.ticks+1)*int64(tick), nil
}

// is says whether the target is the file that is mapped.
func (u *used) is(t *target) bool {
	if u.node.known {
		return u.node.id == t.id
	}
	// Only the numbers that maps prints are known. Its device is not that of
	// stat(2) on file systems without a device of their own; there the number of
	// the inode has to do.
	if u.node.id.Ino != t.id.Ino {
		return false
	}
	return u.node.id.Dev == t.id.Dev || unix.Major(t.id.Dev) == 0
}

// next says what a fresh start would open in the place of a file: the path, and
// the root directory that it starts from. The root is nil if it is not known.
func (l *visit) next(u *used) (*root, string) {
	r, name := l.named(u)
	if r != nil && l.Places != nil {
		name = l.Places.Live(name)
	}
	return r, name
}

func (l *visit) named(u *used) (*root, string) {
	r := l.root
	if loadable(u.name) {
		if r.text == "" {
			return r, u.name
		}
		// Loaded before the process changed its root directory, its names start
		// from the one that it had.
		if _, ok := r.inside(l.printed(u)); !ok {
			r = l.top(r)
		}
		return r, u.name
	}
	text := l.printed(u)
	name, ok := r.inside(text)
	if there, is := l.fromWorking(u, name); ok && is {
		return r, there
	}
	if !ok {
		r, name = l.top(r), text
	}
	if r == nil {
		return nil, text
	}
	// A file may really be called that.
	if cut, deleted := strings.CutSuffix(name, deletedSuffix); deleted {
		if t, ok := l.lookUp(r, name); !ok || t.err != nil || !u.is(t) {
			name = l.public(r, cut, u)
		}
	}
	return r, name
}

// fromWorking is what a relative name leads to, if the process still stands where
// it was loaded from: the file that it has was moved aside in that very
// directory, or a link there led to it. Elsewhere the name is anybody's.
func (l *visit) fromWorking(u *used, has string) (string, bool) {
	if u.name == "" || u.name[0] == '/' || strings.HasSuffix(has, deletedSuffix) {
		return "", false
	}
	cwd, err := l.p.link("cwd")
	if err != nil {
		return "", false
	}
	inside, ok := l.root.inside(cwd)
	name := path.Join(inside, u.name)
	if !ok || name == has || path.Dir(name) != path.Dir(has) {
		return "", false
	}
	t, ok := l.lookUp(l.root, name)
	return name, ok && t.err == nil
}

// loadable says that a name can be opened again by another process: it is
// absolute, and not a link of /proc, which would lead elsewhere.
func loadable(name string) bool {
	return strings.HasPrefix(name, "/") && !strings.HasPrefix(name, "/proc/") && !strings.HasPrefix(name, "/dev/fd/")
}

// printed is the path of a mapped file as the kernel prints it.
func (l *visit) printed(u *used) string {
	if u.text == "" {
		// It has one name, or it has had one: which of several hard links that are
		// gone it was is not worth a question to the kernel.
		if n := u.node; n.known && n.nlink <= 1 && n.root == l.root {
			return n.text
		}
		if a, ok := l.areas.at(u.start); ok && a.ino == u.ino {
			u.text = a.text
		} else {
			u.text = u.node.text
		}
	}
	if l.areas.text && strings.Contains(u.text, `\012`) {
		// Only maps writes a newline like this; the link has the name as it is.
		if text, err := l.p.link(u.mapFile()); err == nil {
			u.text = text
		} else if u.node.text != "" && u.node.known {
			u.text = u.node.text
		}
	}
	return u.text
}
