package stale

import (
	"context"
	"io/fs"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Find finds every process that runs code of a file which is not what it would
// load if it were started now: it asks what that would be, in the process's own
// root directory and with its mounts, and compares the inode with the one that
// is mapped. A file with the same bytes is not reported, nor is memory that has
// no file, nor what is mapped as data.
//
// What Find does not see: a library that a fresh start would find earlier in
// its search path than the one that is there, a library that is loaded only if
// something asks for it, and what an interpreter has read and closed, of which
// Hints tell.
//
// Without root it sees the caller's own processes; the others are Unreadable.
// An error says that the list of processes could not be read.
func Find(ctx context.Context, o Options) (*Report, error) {
	s, err := newSearch(o)
	if err != nil {
		return nil, err
	}
	defer s.close()
	visits, err := s.all(ctx, (*worker).look)
	if err != nil {
		return nil, err
	}
	rep := &Report{Hidden: s.hidden}
	for _, v := range visits {
		if v.seen {
			rep.Scanned++
		}
		if v.unreadable {
			rep.Unreadable = append(rep.Unreadable, v.pid)
		}
		if v.found != nil {
			rep.Processes = append(rep.Processes, *v.found)
		}
	}
	s.hold(rep, visits)
	return rep, nil
}

// search is one pass over all processes for Find.
type search struct {
	Options
	proc     string
	live     bool // proc is the procfs of our own PID namespace
	patience time.Duration
	pids     []int
	self     int
	ns       string    // our own mount namespace, as its link prints it; "" in a recorded tree
	home     rootPlace // our own root directory; zero in a recorded tree
	boot     time.Time
	hidden   bool

	abandoned bool // a worker was given up; set by the crew's owner alone

	mu      sync.Mutex
	devices map[uint64]deviceKind
	mixed   atomic.Bool      // a device that was trusted is so no more
	many    atomic.Bool      // there are several hierarchies of control groups
	homes   map[uint64]*home // by the number of a control group

	roots       cache[rootKey, *root]
	tops        cache[string, *root]
	inodes      cache[areaKey, *node]
	byID        cache[Inode, *node]
	heads       cache[*node, *elfFile]
	relocations cache[*node, relocations]
	asks        cache[pair, []string]
	nexts       cache[*target, head]
	sources     cache[place, sources]
	pairs       cache[pair, comparison]
	users       cache[int, string]
	served      cache[uint64, bool] // by device
}

func newSearch(o Options) (*search, error) {
	s := &search{Options: o, proc: o.Proc, patience: o.Patience, boot: bootTime(), homes: map[uint64]*home{}}
	if s.proc == "" {
		s.proc, s.live = "/proc", true
	}
	if s.patience == 0 {
		s.patience = defaultPatience
	}
	dir, err := openDir(unix.AT_FDCWD, s.proc, s.proc, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	for pid, err := range numbersIn(dir) {
		if err != nil {
			return nil, &fs.PathError{Op: "getdents", Path: s.proc, Err: err}
		}
		s.pids = append(s.pids, pid)
	}
	// Both are missing in a recorded tree.
	if text, err := readLink(dir, "self"); err == nil {
		s.self, _ = strconv.Atoi(text)
	}
	s.ns, _ = readLink(dir, "self/ns/mnt")
	if s.live {
		s.home, _ = rootPlaceOf(dir, "self/root") // without it, links are read
	}
	_, err = statAt(dir, "1")
	s.hidden = err == unix.ENOENT
	return s, nil
}

// close gives the roots back. If a worker was given up it may still use them,
// so they stay: a few descriptors, until it ends with the program.
func (s *search) close() {
	if s.abandoned {
		return
	}
	for _, j := range s.roots.jobs {
		if j.value != nil {
			unix.Close(j.value.fd)
		}
	}
	for _, j := range s.tops.jobs {
		if j.value != nil {
			unix.Close(j.value.fd)
		}
	}
}
