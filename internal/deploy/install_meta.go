package deploy

import (
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

const (
	aclAttr        = "system.posix_acl_access"
	aclDefaultAttr = "system.posix_acl_default"
	capsAttr       = "security.capability"
	labelAttr      = "security.selinux"
)

// wantedMeta is what the new file is to carry.
//
// With Keep, what the file that is replaced has counts, unless the command line
// says otherwise. Its set-id bits stay only if their owner stays, since they
// would be someone else's, and its capabilities only if they were asked for. Its
// user.* attributes do not: they speak of bytes that are gone.
func (in *installer) wantedMeta(it *installItem) disk.Meta {
	m := disk.Meta{UID: in.uid, GID: in.gid}
	m.Mode, _ = in.mode.adjust(0, false)
	if in.o.Times {
		m.MTime = time.Unix(it.st.Mtim.Unix())
	}
	set := func(name, value string) {
		if m.Xattrs == nil {
			m.Xattrs = map[string]string{}
		}
		m.Xattrs[name] = value
	}
	label := in.label(it)
	if in.o.Keep && it.isOld(unix.S_IFREG) {
		in.keepOwnerAndMode(it, &m)
		if acl, ok := in.oldAttr(it, aclAttr); ok {
			set(aclAttr, acl)
		}
		if caps, ok := in.oldAttr(it, capsAttr); ok && in.o.KeepCaps {
			set(capsAttr, caps)
		}
		if old, ok := in.oldAttr(it, labelAttr); ok && in.o.Label == (InstallLabel{}) {
			label = old
		}
	}
	if label != "" {
		set(labelAttr, label)
	}
	return m
}

func (in *installer) keepOwnerAndMode(it *installItem, m *disk.Meta) {
	uid, gid := int(it.old.Uid), int(it.old.Gid)
	if m.UID < 0 {
		m.UID = uid
	}
	if m.GID < 0 {
		m.GID = gid
	}
	if in.o.Mode != "" {
		return
	}
	m.Mode = uint32(it.old.Mode) & modeAll
	if in.o.KeepCaps {
		return
	}
	if m.UID != uid {
		m.Mode &^= unix.S_ISUID
	}
	if m.GID != gid {
		m.Mode &^= unix.S_ISGID
	}
}

// oldAttr reads an extended attribute of the file that is replaced.
func (in *installer) oldAttr(it *installItem, name string) (string, bool) {
	value, err := attrOf(in.look(it.base), name)
	return value, err == nil
}

// look is a path to a name in the destination directory, wherever that is now.
func (in *installer) look(name string) string { return fdPath(in.dir) + "/" + name }

func fdPath(dir *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(dir.Fd())) }

// attrOf reads an extended attribute, of a symbolic link its own.
func attrOf(path, name string) (string, error) {
	buf := make([]byte, 256)
	for {
		n, err := unix.Lgetxattr(path, name, buf)
		switch {
		case err == unix.ERANGE && len(buf) < 64<<10: // XATTR_SIZE_MAX
			buf = make([]byte, 64<<10)
		case err != nil:
			return "", &fs.PathError{Op: "getxattr " + name, Path: path, Err: err}
		default:
			return string(buf[:n]), nil
		}
	}
}
