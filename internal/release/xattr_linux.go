package release

import (
	"bytes"
	"strconv"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// noListxattrat says that the kernel, or a seccomp filter, has no listxattrat(2)
// (Linux 6.13).
var noListxattrat atomic.Bool

// xattrs returns the extended attributes of a file that a release carries. buf
// must hold XATTR_LIST_MAX (64 KiB).
func xattrs(dir int, name string, buf []byte) (map[string]string, error) {
	n, err := listxattr(dir, name, buf)
	if n == 0 || err == unix.EOPNOTSUPP {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found map[string]string
	for _, key := range bytes.Split(bytes.TrimSuffix(buf[:n], []byte{0}), []byte{0}) {
		if !shipped(string(key)) {
			continue
		}
		value := make([]byte, 256)
		n, err := unix.Lgetxattr(procPath(dir, name), string(key), value)
		if err == unix.ERANGE {
			value = make([]byte, maxXattr)
			n, err = unix.Lgetxattr(procPath(dir, name), string(key), value)
		}
		if err != nil {
			return nil, err
		}
		if found == nil {
			found = map[string]string{}
		}
		found[string(key)] = string(value[:n])
	}
	return found, nil
}

func listxattr(dir int, name string, buf []byte) (int, error) {
	if !noListxattrat.Load() {
		p, err := unix.BytePtrFromString(name)
		if err != nil {
			return 0, err
		}
		n, _, errno := unix.Syscall6(unix.SYS_LISTXATTRAT, uintptr(dir), uintptr(unsafe.Pointer(p)),
			unix.AT_SYMLINK_NOFOLLOW, uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.ENOSYS, unix.EPERM:
			noListxattrat.Store(true)
		default:
			return 0, errno
		}
	}
	return unix.Llistxattr(procPath(dir, name), buf)
}

// procPath is a path by which calls that take no directory reach name in one,
// without another walk from the root. It costs three times an "at" call.
func procPath(dir int, name string) string {
	return "/proc/self/fd/" + strconv.Itoa(dir) + "/" + name
}
