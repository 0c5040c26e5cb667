package stale

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// pidInfo is struct pidfd_info of linux/pidfd.h in its first form (Linux 6.13).
type pidInfo struct {
	mask, cgroup                       uint64
	pid, tgid, ppid                    uint32
	ruid, rgid, euid, egid, suid, sgid uint32
	fsuid, fsgid                       uint32
	exit                               int32
}

const (
	ioctlPidInfo = 0xc040ff0b // _IOWR(0xff, 11, struct pidfd_info)

	pidInfoCgroup = 1 << 2
)

// controlGroupID asks the kernel for the number of the process's control group,
// in place of reading a file whose making is dear. It goes by the process's
// number: whoever uses the answer finds out afterwards whether the process was
// still the same.
func (l *visit) controlGroupID() (id uint64, ok bool) {
	if !l.live {
		return 0, false
	}
	fd, err := unix.PidfdOpen(l.first.pid, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	l.pid = pidInfo{mask: pidInfoCgroup}
	err = ioctl(fd, ioctlPidInfo, unsafe.Pointer(&l.pid))
	return l.pid.cgroup, err == nil && l.pid.mask&pidInfoCgroup != 0
}
