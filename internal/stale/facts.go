package stale

import (
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// facts are what statx(2) says of a file.
type facts struct {
	id      Inode
	mode    uint16
	nlink   uint32
	size    uint64
	blocks  uint64 // of 512 bytes
	changed int64  // ctime, in nanoseconds since 1970, as all times here
	written int64  // mtime
	born    int64  // 0 if the file system does not keep it
}

func (f facts) regular() bool { return f.mode&unix.S_IFMT == unix.S_IFREG }

// inspect follows symbolic links, unless flags say otherwise; the name may be
// "" for the descriptor itself.
func inspect(at int, name string, flags int) (facts, error) {
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	var st unix.Statx_t
	err := retry(func() error {
		return unix.Statx(at, name, flags|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS|unix.STATX_BTIME, &st)
	})
	if err != nil {
		return facts{}, err
	}
	f := facts{
		id:   Inode{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino},
		mode: st.Mode, nlink: st.Nlink, size: st.Size, blocks: st.Blocks,
		changed: nanoseconds(st.Ctime), written: nanoseconds(st.Mtime),
	}
	if st.Mask&unix.STATX_BTIME != 0 {
		f.born = nanoseconds(st.Btime)
	}
	return f, nil
}

func nanoseconds(t unix.StatxTimestamp) int64 { return t.Sec*1e9 + int64(t.Nsec) }

func clock(ns int64) time.Time {
	if ns == 0 {
		return time.Time{}
	}
	return time.Unix(0, ns)
}

// cache does each piece of work once. Work may hang, on a dead network mount;
// then those who want its result, too, wait no longer than it may take in all.
// Work that could not be done, because the process that it needs has ended, is
// left to the next.
type cache[K comparable, V any] struct {
	mu   sync.Mutex
	jobs map[K]*job[V]
}

type job[V any] struct {
	began time.Time
	done  chan struct{}
	value V
	kept  bool
}

// get returns false if the work is taking too long. The work says whether its
// result holds for others, too.
func (c *cache[K, V]) get(key K, patience time.Duration, work func() (V, bool)) (v V, ok bool) {
	for {
		c.mu.Lock()
		j := c.jobs[key]
		if j == nil {
			j = &job[V]{began: time.Now(), done: make(chan struct{})}
			if c.jobs == nil {
				c.jobs = map[K]*job[V]{}
			}
			c.jobs[key] = j
			c.mu.Unlock()
			j.value, j.kept = work()
			if !j.kept {
				c.mu.Lock()
				delete(c.jobs, key)
				c.mu.Unlock()
			}
			close(j.done)
			return j.value, true
		}
		c.mu.Unlock()
		if !j.wait(patience) {
			return v, false
		}
		if j.kept {
			return j.value, true
		}
	}
}

func (j *job[V]) wait(patience time.Duration) bool {
	select {
	case <-j.done:
		return true
	default:
	}
	t := time.NewTimer(patience - time.Since(j.began))
	defer t.Stop()
	select {
	case <-j.done:
		return true
	case <-t.C:
		return false
	}
}
