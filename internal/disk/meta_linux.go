package disk

import (
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const (
	aclAccess  = "system.posix_acl_access"
	aclDefault = "system.posix_acl_default"
	capability = "security.capability"
)

// setMetaFd sets owner, ACL, attributes, mode, capabilities and times, in this
// order: chown clears set-id bits and capabilities, even for the same owner;
// an ACL that was inherited would turn group bits into its mask, so it goes (or
// is replaced) before the mode is set; a capability is last, when the file
// belongs to whom it should.
func setMetaFd(fd int, m Meta) error {
	if m.UID < -1 || m.UID > MaxID || m.GID < -1 || m.GID > MaxID {
		return unix.EINVAL
	}
	if m.UID >= 0 || m.GID >= 0 {
		if err := unix.Fchown(fd, m.UID, m.GID); err != nil {
			return err
		}
	}
	if err := setACLs(fd, m); err != nil {
		return err
	}
	for name, value := range m.Xattrs {
		if name == capability || name == aclAccess || name == aclDefault {
			continue
		}
		if err := unix.Fsetxattr(fd, name, []byte(value), 0); err != nil {
			return err
		}
	}
	// Only now: who is not root may set user.* on what it may write to.
	if !m.KeepMode {
		if err := unix.Fchmod(fd, m.Mode); err != nil {
			return err
		}
	}
	if value, ok := m.Xattrs[capability]; ok {
		if err := unix.Fsetxattr(fd, capability, []byte(value), 0); err != nil {
			return err
		}
	}
	if m.MTime.IsZero() {
		return nil
	}
	// Through /proc, for want of a futimens that takes nanoseconds in x/sys; a
	// descriptor cannot be led astray.
	ts, err := times(m.MTime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), ts, 0)
}

// onlyMode says that there is nothing to set but permissions.
func (m Meta) onlyMode() bool {
	return m.UID == -1 && m.GID == -1 && len(m.Xattrs) == 0 && m.MTime.IsZero() && !m.KeepMode
}

// chmodClosed sets the mode of a directory that its owner, who is not root, may
// not read.
func chmodClosed(dir int, base string, mode uint32) error {
	fd, err := open(dir, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode)
}

// setACLs gives the file the ACLs of m and takes away others.
func setACLs(fd int, m Meta) error {
	for _, name := range []string{aclAccess, aclDefault} {
		var err error
		if value, ok := m.Xattrs[name]; ok {
			err = unix.Fsetxattr(fd, name, []byte(value), 0)
		} else {
			err = ignoreMissing(unix.Fremovexattr(fd, name))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ignoreMissing forgives an attribute that is not there, or cannot be.
func ignoreMissing(err error) error {
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return nil
	}
	return err
}

// setMetaLink sets what a symbolic link itself can have.
func setMetaLink(dir int, base string, m Meta) error {
	if m.UID < -1 || m.UID > MaxID || m.GID < -1 || m.GID > MaxID {
		return unix.EINVAL
	}
	if m.UID >= 0 || m.GID >= 0 {
		if err := unix.Fchownat(dir, base, m.UID, m.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if label, ok := m.Xattrs["security.selinux"]; ok {
		if err := unix.Lsetxattr("/proc/self/fd/"+strconv.Itoa(dir)+"/"+base, "security.selinux", []byte(label), 0); err != nil {
			return err
		}
	}
	if m.MTime.IsZero() {
		return nil
	}
	ts, err := times(m.MTime)
	if err != nil {
		return err
	}
	return unix.UtimesNanoAt(dir, base, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// times does not count nanoseconds: an int64 of them ends in 2262, and files do
// not.
func times(t time.Time) ([]unix.Timespec, error) {
	ts, err := unix.TimeToTimespec(t)
	return []unix.Timespec{ts, ts}, err
}
