package disk

import (
	"cmp"

	"golang.org/x/sys/unix"
)

// at runs a call on the directory and the last component of name.
func (r *Root) at(op, name string, call func(dir int, base string) error) error {
	dir, base, release, err := r.parent(name)
	if err == nil {
		err = retry(func() error { return call(dir, base) })
		release()
	}
	if err != nil {
		return r.pathError(op, name, err)
	}
	return nil
}

// at2 runs a call on two names.
func (r *Root) at2(op, a, b string, call func(dirA int, baseA string, dirB int, baseB string) error) error {
	dirA, baseA, releaseA, err := r.parent(a)
	if err != nil {
		return r.linkError(op, a, b, err)
	}
	defer releaseA()
	dirB, baseB, releaseB, err := r.parent(b)
	if err != nil {
		return r.linkError(op, a, b, err)
	}
	defer releaseB()
	if err := retry(func() error { return call(dirA, baseA, dirB, baseB) }); err != nil {
		return r.linkError(op, a, b, err)
	}
	return nil
}

// Create implements [FS].
func (r *Root) Create(name string) (File, error) {
	fd := -1
	err := r.at("create", name, func(dir int, base string) (err error) {
		fd, err = open(dir, base, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return nil, err
	}
	return newFile(fd, r.full(name)), nil
}

// Append implements [FS].
func (r *Root) Append(name string, data []byte) error {
	return r.at("append", name, func(dir int, base string) error {
		fd, err := open(dir, base, unix.O_WRONLY|unix.O_CREAT|unix.O_APPEND|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG {
			return unix.EINVAL // a FIFO would make us wait for a reader
		}
		if st.Size == 0 && st.Mode&0o7777 != 0o644 {
			if err := unix.Fchmod(fd, 0o644); err != nil { // whatever the umask says
				return err
			}
		}
		for len(data) > 0 {
			n, err := unix.Write(fd, data)
			if err != nil && err != unix.EINTR {
				return err
			}
			data = data[max(n, 0):]
		}
		return retry(func() error { return unix.Fsync(fd) })
	})
}

// Mkdir implements [FS].
func (r *Root) Mkdir(name string) error {
	return r.at("mkdir", name, func(dir int, base string) error {
		return unix.Mkdirat(dir, base, 0o700)
	})
}

// Symlink implements [FS].
func (r *Root) Symlink(text, name string) error {
	return r.at("symlink", name, func(dir int, base string) error {
		return unix.Symlinkat(text, dir, base)
	})
}

// Link implements [FS].
func (r *Root) Link(oldname, newname string) error {
	return r.at2("link", oldname, newname, func(dirA int, a string, dirB int, b string) error {
		return unix.Linkat(dirA, a, dirB, b, 0)
	})
}

// Rename implements [FS].
func (r *Root) Rename(oldname, newname string) error {
	err := r.at2("rename", oldname, newname, func(dirA int, a string, dirB int, b string) error {
		// Same inode, two names: rename(2) would do nothing and say 0.
		var sa, sb unix.Stat_t
		if unix.Fstatat(dirA, a, &sa, unix.AT_SYMLINK_NOFOLLOW) == nil && sa.Nlink > 1 &&
			unix.Fstatat(dirB, b, &sb, unix.AT_SYMLINK_NOFOLLOW) == nil &&
			sa.Dev == sb.Dev && sa.Ino == sb.Ino && sa.Mode&unix.S_IFMT != unix.S_IFDIR &&
			oldname != newname {
			return unix.Unlinkat(dirA, a, 0)
		}
		return unix.Renameat(dirA, a, dirB, b)
	})
	r.forgetBoth(oldname, newname)
	return err
}

// Place implements [FS].
func (r *Root) Place(oldname, newname string) error {
	err := r.at2("rename", oldname, newname, func(dirA int, a string, dirB int, b string) error {
		err := unix.Renameat2(dirA, a, dirB, b, unix.RENAME_NOREPLACE)
		if err != unix.EINVAL && err != unix.ENOSYS {
			return err
		}
		// No RENAME_NOREPLACE here (NFS, some FUSE): for a file link(2) refuses
		// an existing name just as well.
		switch err := unix.Linkat(dirA, a, dirB, b, 0); err {
		case nil:
			return unix.Unlinkat(dirA, a, 0)
		case unix.EPERM: // a directory
		default:
			return err
		}
		var st unix.Stat_t
		if err := unix.Fstatat(dirB, b, &st, unix.AT_SYMLINK_NOFOLLOW); err != unix.ENOENT {
			return cmp.Or(err, error(unix.EEXIST))
		}
		return unix.Renameat(dirA, a, dirB, b)
	})
	r.forgetBoth(oldname, newname)
	return err
}

// Exchange implements [FS].
func (r *Root) Exchange(a, b string) error {
	err := r.at2("exchange", a, b, func(dirA int, baseA string, dirB int, baseB string) error {
		err := unix.Renameat2(dirA, baseA, dirB, baseB, unix.RENAME_EXCHANGE)
		if err == unix.ENOSYS {
			return unix.EINVAL
		}
		return err
	})
	r.forgetBoth(a, b)
	return err
}

// forgetBoth drops what is held at or below two names.
func (r *Root) forgetBoth(a, b string) {
	r.forget(a)
	r.forget(b)
}

// Remove implements [FS].
func (r *Root) Remove(name string) error {
	err := r.at("remove", name, func(dir int, base string) error {
		err := unix.Unlinkat(dir, base, 0)
		if err == unix.EISDIR || err == unix.EPERM {
			// EISDIR says Linux, EPERM says POSIX; a file that may not be
			// removed (immutable) answers ENOTDIR to rmdir.
			if err2 := unix.Unlinkat(dir, base, unix.AT_REMOVEDIR); err2 != unix.ENOTDIR {
				return err2
			}
		}
		return err
	})
	r.forget(name)
	return err
}

// SetMeta implements [FS].
func (r *Root) SetMeta(name string, m Meta) error {
	if name == "." {
		if err := setMetaFd(r.fd, m); err != nil {
			return r.pathError("setmeta", name, err)
		}
		return nil
	}
	return r.at("setmeta", name, func(dir int, base string) error {
		var st unix.Stat_t
		if err := unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT == unix.S_IFLNK {
			return setMetaLink(dir, base, m)
		}
		fd, err := open(dir, base, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == unix.EACCES && st.Mode&unix.S_IFMT == unix.S_IFDIR && m.onlyMode() {
			return chmodClosed(dir, base, m.Mode)
		}
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return setMetaFd(fd, m)
	})
}

// SyncDir implements [FS].
func (r *Root) SyncDir(name string) error {
	if name == "." {
		if err := retry(func() error { return unix.Fsync(r.fd) }); err != nil {
			return r.pathError("fsync", name, err)
		}
		return nil
	}
	if err := checkName(name); err != nil {
		return r.pathError("fsync", name, err)
	}
	h, err := r.dir(name)
	if err == nil {
		err = retry(func() error { return unix.Fsync(h.fd) })
		r.release(h)
	}
	if err != nil {
		return r.pathError("fsync", name, err)
	}
	return nil
}

// SyncFS implements [FS].
func (r *Root) SyncFS() error {
	if err := retry(func() error { return unix.Syncfs(r.fd) }); err != nil {
		return r.pathError("syncfs", ".", err)
	}
	return nil
}
