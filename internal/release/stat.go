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

// Now is the moment by the clock that the kernel stamps files with,
// CLOCK_REALTIME_COARSE of clock_gettime(2): it moves once a tick (1 to 10 ms)
// and is behind [time.Now] by up to that.
func Now() time.Time {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_REALTIME_COARSE, &t) != nil {
		return time.Now().Add(-10 * time.Millisecond) // the longest tick
	}
	return time.Unix(t.Unix())
}

// Settled says that a change after the moment seen, by [Now], cannot leave st
// as it is.
//
// Two writes within a tick leave the same times. But what is changed after the
// look is stamped with that clock as it was at the look, or later: a change time
// before it cannot come back. (Multigrain timestamps, Linux 6.13 on ext4, XFS,
// btrfs and tmpfs, are never behind that clock.) A change time in whole
// milliseconds is taken for that of a file system which keeps seconds, or two as
// FAT does: the price of a mistake is that a file is read again.
func (st Stat) Settled(seen time.Time) bool {
	if st.CTime%1e6 == 0 {
		seen = seen.Add(-2100 * time.Millisecond)
	}
	return st.CTime != 0 && st.CTime < seen.UnixNano()
}
