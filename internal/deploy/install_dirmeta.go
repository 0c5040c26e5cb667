package deploy

import (
	"encoding/binary"
	"io/fs"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

// dirMeta works out what a directory is to carry, given what it has: its ACLs
// stay, and the bits that the spec does not decide. A new one has ACLs from its
// parent, whose default ACL limits a mode that nobody asked for.
func dirMeta(dir string, spec dirSpec, isNew bool) (disk.Meta, error) {
	var st unix.Stat_t
	if err := unix.Lstat(dir, &st); err != nil {
		return disk.Meta{}, &fs.PathError{Op: "lstat", Path: dir, Err: err}
	}
	had := st.Mode & modeAll
	if isNew {
		had &= modeSpecial
	}
	m := disk.Meta{
		UID:    spec.uid,
		GID:    spec.gid,
		Mode:   spec.mode | had&^spec.decided,
		Xattrs: map[string]string{},
	}
	for _, name := range []string{aclAttr, aclDefaultAttr} {
		if acl, err := attrOf(dir, name); err == nil {
			m.Xattrs[name] = acl
		}
	}
	if isNew && spec == onTheWay {
		m.Mode &= modeSpecial | aclLimit(m.Xattrs[aclDefaultAttr])
	}
	return m, nil
}

// aclLimit is the most that a default ACL gives to owner, group and others, as
// the bits of a mode. Its form is that of the kernel: a version in four bytes,
// then entries of tag and permissions in two bytes each and an id in four.
func aclLimit(acl string) uint32 {
	const userObj, groupObj, mask, other = 0x01, 0x04, 0x10, 0x20
	if len(acl) < 4 {
		return 0o777
	}
	perms := map[uint16]uint32{}
	for b := []byte(acl[4:]); len(b) >= 8; b = b[8:] {
		perms[binary.LittleEndian.Uint16(b)] = uint32(binary.LittleEndian.Uint16(b[2:])) & 7
	}
	group, hasMask := perms[mask]
	if !hasMask {
		group = perms[groupObj]
	}
	return perms[userObj]<<6 | group<<3 | perms[other]
}

// setDirectory gives a directory that was there what it is to be, and returns
// how to take that back, or nil if there was nothing to do.
func (in *installer) setDirectory(dir string, spec dirSpec) (restore func(), err error) {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return nil, about("stat", dir, err)
	}
	newOwner := spec.uid >= 0 && spec.uid != int(st.Uid) || spec.gid >= 0 && spec.gid != int(st.Gid)
	if !newOwner && (st.Mode^spec.mode)&spec.decided == 0 {
		return nil, nil
	}
	d, look, err := in.openDisk(dir)
	if err != nil {
		return nil, about("open", dir, err)
	}
	defer look.Close()
	old, err := dirMeta(dir+"/.", dirSpec{mode: st.Mode & modeAll, decided: modeAll, uid: int(st.Uid), gid: int(st.Gid)}, false)
	if err != nil {
		return nil, err
	}
	meta := old
	meta.UID, meta.GID = spec.uid, spec.gid
	meta.Mode = spec.mode | st.Mode&modeAll&^spec.decided
	if err := d.SetMeta(".", meta); err != nil {
		d.SetMeta(".", old)
		closeDisk(d)
		return nil, about("set owner and mode of", dir, whyNot(look, err))
	}
	in.set = append(in.set, d)
	return func() {
		if d.SetMeta(".", old) != nil {
			in.partly = true
		}
	}, nil
}
