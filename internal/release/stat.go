package release

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// Stat is what tells, without reading it, that a file still holds what it held:
// any write moves at least the change time, which nobody can set back. Times
// are in nanoseconds since 1970.
type Stat struct {
	Dev, Ino     uint64
	Size         int64
	MTime, CTime int64
}

// StatOf takes a Stat from what stat(2) says.
func StatOf(st *unix.Stat_t) Stat {
	return Stat{
		Dev:   uint64(st.Dev),
		Ino:   st.Ino,
		Size:  st.Size,
		MTime: nanoseconds(st.Mtim),
		CTime: nanoseconds(st.Ctim),
	}
}

// nanoseconds is 0, "not known", for a time that an int64 cannot hold (before
// 1677, after 2262).
func nanoseconds(t unix.Timespec) int64 {
	const most = math.MaxInt64/1_000_000_000 - 1
	if sec := int64(t.Sec); sec > most || sec < -most {
		return 0
	}
	return t.Nano()
}

// margin is how long before a look at a file its last change must have been, so
// that a change after the look is certain to give it another change time.
//
// The kernel stamps files with a clock that moves once a tick (1 to 10 ms): two
// writes within a tick leave the same times. Multigrain timestamps (Linux 6.13
// on ext4, XFS, btrfs and tmpfs) give a file that was looked at a new time on
// its next change, but other kernels and file systems do not. A change time in
// whole milliseconds is taken for that of a file system which keeps seconds, or
// two as FAT does: the price of a mistake is that a file is read again.
func margin(ctime int64) time.Duration {
	if ctime%1e6 == 0 {
		return 2100 * time.Millisecond
	}
	return 20 * time.Millisecond
}

// settled says that a change after the moment seen cannot leave st as it is.
func (st Stat) settled(seen time.Time) bool {
	return st.CTime != 0 && st.CTime <= seen.Add(-margin(st.CTime)).UnixNano()
}
