package hostfacts

import (
	"io/fs"

	"golang.org/x/sys/unix"
)

// Flags are what chattr(1) sets and even root cannot get past.
type Flags struct {
	Immutable  bool // cannot be changed, renamed, unlinked or linked; in a directory no name can be added or removed
	AppendOnly bool // the same, but that data, or a directory's names, may be added
}

// FileFlags returns the flags of a file or directory. A symbolic link has
// none and is not followed. Where the file system knows no flags, or the
// kernel tells them only to who may open the file, there are none.
func FileFlags(path string) (Flags, error) {
	const both = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND
	var st unix.Statx_t
	err := retry(func() error {
		return unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, &st)
	})
	if err != nil {
		return Flags{}, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	if st.Attributes_mask&both == both {
		return Flags{st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0, st.Attributes&unix.STATX_ATTR_APPEND != 0}, nil
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR: // to open anything else may have effects
		return flagsByDescriptor(path)
	}
	return Flags{}, nil
}

// Of linux/fs.h: FS_IMMUTABLE_FL and FS_APPEND_FL.
const immutableFlag, appendFlag = 0x10, 0x20

// flagsByDescriptor asks file systems that do not answer statx(2).
func flagsByDescriptor(path string) (Flags, error) {
	var fd int
	err := retry(func() (err error) {
		fd, err = unix.Open(path, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		return err
	})
	if err == unix.EACCES || err == unix.EPERM {
		return Flags{}, nil
	}
	if err != nil {
		return Flags{}, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var flags uint32
	err = retry(func() (err error) {
		flags, err = unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
		return err
	})
	switch err {
	case nil:
		return Flags{flags&immutableFlag != 0, flags&appendFlag != 0}, nil
	case unix.ENOTTY, unix.EOPNOTSUPP, unix.EINVAL, unix.ENOSYS:
		return Flags{}, nil
	default:
		return Flags{}, &fs.PathError{Op: "ioctl FS_IOC_GETFLAGS", Path: path, Err: err}
	}
}
