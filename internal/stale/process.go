package stale

import (
	"bufio"
	"bytes"
	"io"
	"iter"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// process is a process (or a thread) held by its directory in /proc: should
// its number be given to another one meanwhile, everything here says ESRCH
// instead of speaking of that other one.
type process struct {
	pid int
	dir int // descriptor of /proc/PID
}

func openProcess(proc string, pid int) (*process, error) {
	dir, err := openAt(unix.AT_FDCWD, proc+"/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	return &process{pid, dir}, nil
}

func (p *process) close() { unix.Close(p.dir) }

// stat looks at what a link in /proc/PID leads to: exe, cwd, root, fd/N.
func (p *process) stat(name string) (stat, error) { return statLink(p.dir, name) }

// link is the text of a link in /proc/PID: the path as the kernel knows it.
func (p *process) link(name string) (string, error) { return readLink(p.dir, name) }

// status is what we need of /proc/PID/stat.
type status struct {
	comm    string
	state   byte // 'R', 'S', …; 'Z' and 'X' have ended
	kernel  bool // a thread of the kernel
	threads int
	ticks   uint64 // start, in clock ticks since boot
}

func (s status) ended() bool { return s.state == 'Z' || s.state == 'X' }

func (p *process) status() (status, error) {
	fd, err := openAt(p.dir, "stat", unix.O_RDONLY)
	if err != nil {
		return status{}, err
	}
	defer unix.Close(fd)
	text, err := io.ReadAll(io.LimitReader(descriptor(fd), 4096))
	if err != nil {
		return status{}, err
	}
	s, ok := parseStatus(text)
	if !ok {
		return status{}, unix.EIO
	}
	return s, nil
}

// parseStatus reads "pid (comm) state …"; comm may hold anything, blanks and
// brackets too, but nothing after it does.
func parseStatus(text []byte) (status, bool) {
	const kernelThread = 0x00200000 // PF_KTHREAD
	from, to := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if from < 0 || to < from {
		return status{}, false
	}
	rest := text[to+1:]
	var f [20][]byte // f[0] is field 3 of proc(5)
	for i := range f {
		var ok bool
		if f[i], rest, ok = field(rest); !ok {
			return status{}, false
		}
	}
	flags, _, ok1 := number(f[6], 10)
	threads, _, ok2 := number(f[17], 10)
	ticks, _, ok3 := number(f[19], 10)
	if !ok1 || !ok2 || !ok3 || threads > 1<<31 {
		return status{}, false
	}
	return status{string(text[from+1 : to]), f[0][0], flags&kernelThread != 0, int(threads), ticks}, true
}

// numbers lists a directory of /proc/PID whose entries are numbers: fd, task.
func (p *process) numbers(name string) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		fd, err := openAt(p.dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			yield(0, err)
			return
		}
		defer unix.Close(fd)
		numbersIn(fd)(yield)
	}
}

// numbersIn lists the entries of an open directory that are numbers.
func numbersIn(fd int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for e, err := range entries(fd) {
			if err != nil {
				yield(0, err)
				return
			}
			n, err := strconv.Atoi(string(e.name))
			if err != nil || n < 0 {
				continue
			}
			if !yield(n, nil) {
				return
			}
		}
	}
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 64<<10) }}

// mappings yields the process's mappings that have a file, in one pass over
// the text: the kernel guarantees each line, not that nothing changes between
// them. A mapping is valid until the next.
func (p *process) mappings() iter.Seq2[mapping, error] {
	return func(yield func(mapping, error) bool) {
		fd, err := openAt(p.dir, "maps", unix.O_RDONLY)
		if err != nil {
			yield(mapping{}, err)
			return
		}
		defer unix.Close(fd)
		r := readers.Get().(*bufio.Reader)
		defer readers.Put(r)
		r.Reset(descriptor(fd))
		for {
			line, err := r.ReadSlice('\n')
			if err == io.EOF && len(line) == 0 {
				return
			}
			if err != nil {
				yield(mapping{}, err)
				return
			}
			m, ok := parseMapping(line[:len(line)-1])
			if !ok {
				yield(mapping{}, unix.EIO)
				return
			}
			if m.ino != 0 && !yield(m, nil) {
				return
			}
		}
	}
}

// mapFile names the link in /proc/PID that leads to a mapping's inode.
func (m mapping) mapFile() string {
	return "map_files/" + strconv.FormatUint(m.start, 16) + "-" + strconv.FormatUint(m.end, 16)
}

// shares says whether two threads have their working and root directory, or
// their descriptors, in common. Almost all have; a file server that calls
// unshare(CLONE_FS) to give each thread its own directory does not. Where
// kcmp(2) is missing or forbidden the answer is no, so that both are read.
func shares(pid, tid int, what uintptr) bool {
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(tid), what, 0, 0, 0)
	return errno == 0 && r == 0
}

// What kcmp(2) compares.
const (
	kcmpFiles = 2
	kcmpFS    = 3
)

// gone says that the process, or what was asked about it, has ended meanwhile.
func gone(err error) bool { return err == unix.ENOENT || err == unix.ESRCH }

// over says that the process has ended. Where gone does not say so it may have
// all the same: the kernel lets nobody follow a link of a process that ends at
// that moment (EACCES), which looks as if it were forbidden.
func (p *process) over() bool {
	st, err := p.status()
	return gone(err) || err == nil && st.ended() && st.threads < 2
}
