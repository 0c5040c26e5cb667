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

	pidInfoCreds  = 1 << 1
	pidInfoCgroup = 1 << 2
)

// info asks the kernel, in place of reading two files whose making is dear. It
// goes by the process's number: whoever uses the answer finds out afterwards
// whether the process was still the same.
func (l *visit) info() (pidInfo, bool) {
	if l.told != nil {
		return *l.told, l.told.mask != 0
	}
	l.told = &l.pid
	l.pid = pidInfo{}
	if !l.live {
		return l.pid, false
	}
	fd, err := unix.PidfdOpen(l.first.pid, 0)
	if err != nil {
		return l.pid, false
	}
	defer unix.Close(fd)
	const want = pidInfoCreds | pidInfoCgroup
	l.pid.mask = want
	if err := ioctl(fd, ioctlPidInfo, unsafe.Pointer(&l.pid)); err != nil || l.pid.mask&want != want {
		l.pid.mask = 0
	}
	return l.pid, l.pid.mask != 0
}
