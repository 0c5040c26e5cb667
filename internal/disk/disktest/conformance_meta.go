package disktest

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

// keep is a Meta that changes nothing.
var keep = disk.Meta{UID: -1, GID: -1, KeepMode: true}

// both runs a test of metadata twice: by descriptor on a new file, and by name
// on a file that is there.
func (b *bench) both(name string, m disk.Meta) error {
	b.Helper()
	f, err := b.Create(name)
	b.ok(err)
	_, err = f.Write([]byte("text"))
	b.ok(err)
	err1 := f.SetMeta(m)
	b.ok(f.Close())
	b.make(name+".by-name", "text")
	err2 := b.SetMeta(name+".by-name", m)
	if (err1 == nil) != (err2 == nil) {
		b.Errorf("by descriptor: %v, by name: %v", err1, err2)
	}
	return errors.Join(err1, err2)
}

func testModes(b *bench) {
	when := time.Date(2031, 2, 3, 4, 5, 6, 789_012_345, time.UTC)
	m := disk.Meta{UID: -1, GID: -1, Mode: 0o751, MTime: when}
	b.ok(b.both("f", m))
	b.ok(b.Mkdir("d"))
	b.ok(b.SetMeta("d", m))
	b.ok(b.Symlink("f", "l"))
	b.ok(b.SetMeta("l", m))
	b.ok(b.SetMeta(".", m))
	for _, name := range []string{"f", "f.by-name", "d", "."} {
		b.mode(name, 0o751)
	}
	for _, name := range []string{"f", "f.by-name", "d", "l", "."} {
		if st := b.stat(name); !time.Unix(st.Mtim.Sec, st.Mtim.Nsec).Equal(when) {
			b.Errorf("time of %s is %v, want %v", name, time.Unix(st.Mtim.Sec, st.Mtim.Nsec).UTC(), when)
		}
	}
	for _, name := range []string{"f", "d", "."} {
		b.ok(b.SetMeta(name, keep))
		b.mode(name, 0o751)
	}
	b.ok(b.SetMeta("d", disk.Meta{UID: -1, GID: -1, Mode: 0o1777}))
	b.mode("d", 0o1777)
	old := syscall.Umask(0o077)
	err := b.both("masked", disk.Meta{UID: -1, GID: -1, Mode: 0o666})
	syscall.Umask(old)
	b.ok(err)
	b.mode("masked", 0o666)
	b.mode("masked.by-name", 0o666)
}

func testOwners(b *bench) {
	b.needsRoot()
	m := disk.Meta{UID: 12345, GID: 54321, Mode: 0o644}
	b.ok(b.both("f", m))
	b.ok(b.Mkdir("d"))
	b.ok(b.SetMeta("d", m))
	b.ok(b.Symlink("f", "l"))
	b.ok(b.SetMeta("l", m))
	for _, name := range []string{"f", "f.by-name", "d", "l"} {
		if st := b.stat(name); st.Uid != 12345 || st.Gid != 54321 {
			b.Errorf("owner of %s is %d:%d, want 12345:54321", name, st.Uid, st.Gid)
		}
	}
	b.ok(b.SetMeta("f", disk.Meta{UID: -1, GID: 7, KeepMode: true}))
	if st := b.stat("f"); st.Uid != 12345 || st.Gid != 7 {
		b.Errorf("owner is %d:%d, want 12345:7", st.Uid, st.Gid)
	}
}

func (b *bench) needsRoot() {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("needs root")
	}
}

// needsXattr skips where the file system has no such attribute.
func (b *bench) needsXattr(name, value string) {
	b.Helper()
	b.put("probe", "")
	err := unix.Setxattr(b.path("probe"), name, []byte(value), 0)
	if err == unix.EOPNOTSUPP || err == unix.EPERM {
		b.Skipf("no attribute %s here: %v", name, err)
	}
	b.ok(err)
}

func (b *bench) xattr(name, attr string) (string, bool) {
	b.Helper()
	buf := make([]byte, 1024)
	n, err := unix.Lgetxattr(b.path(name), attr, buf)
	if err == unix.ENODATA || err == unix.EOPNOTSUPP {
		return "", false
	}
	b.ok(err)
	return string(buf[:n]), true
}

func (b *bench) hasXattr(name, attr, want string) {
	b.Helper()
	if got, ok := b.xattr(name, attr); !ok || got != want {
		b.Errorf("%s of %s is %q (%v), want %q", attr, name, got, ok, want)
	}
}

func testXattrs(b *bench) {
	b.needsXattr("user.probe", "")
	m := disk.Meta{UID: -1, GID: -1, Mode: 0o444, Xattrs: map[string]string{"user.a": "1", "user.b": "\x00\xff", "user.empty": ""}}
	b.ok(b.both("f", m))
	b.ok(b.Mkdir("d"))
	b.ok(b.SetMeta("d", disk.Meta{UID: -1, GID: -1, Mode: 0o755, Xattrs: m.Xattrs}))
	for _, name := range []string{"f", "f.by-name", "d"} {
		for attr, want := range m.Xattrs {
			b.hasXattr(name, attr, want)
		}
	}
	b.ok(b.SetMeta("d", disk.Meta{UID: -1, GID: -1, Mode: 0o755, Xattrs: map[string]string{"user.a": "2"}}))
	b.hasXattr("d", "user.a", "2")
	b.hasXattr("d", "user.b", "\x00\xff") // what is not named is left
	if err := b.both("g", disk.Meta{UID: -1, GID: -1, Mode: 0o644, Xattrs: map[string]string{"nonsense.a": "1"}}); err == nil {
		b.Error("an attribute that no file system has was set")
	}
}

// acl builds a POSIX ACL as the kernel keeps it: owner, one named user, group,
// mask, others.
func acl(owner, user, group, mask, other uint16) string {
	out := binary.LittleEndian.AppendUint32(nil, 2)
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{
		{0x01, owner, 0xffffffff}, {0x02, user, 12345}, {0x04, group, 0xffffffff}, {0x10, mask, 0xffffffff}, {0x20, other, 0xffffffff},
	} {
		out = binary.LittleEndian.AppendUint16(out, e.tag)
		out = binary.LittleEndian.AppendUint16(out, e.perm)
		out = binary.LittleEndian.AppendUint32(out, e.id)
	}
	return string(out)
}

// testInheritedACL: a default ACL of the directory gives nobody more than the
// mode says.
func testInheritedACL(b *bench) {
	const access, inherit = "system.posix_acl_access", "system.posix_acl_default"
	b.needsXattr(access, acl(7, 7, 5, 7, 5))
	b.ok(unix.Setxattr(b.dir, inherit, []byte(acl(7, 7, 7, 7, 7)), 0))
	f, err := b.Create("new")
	b.ok(err)
	b.ok(f.Close())
	b.mode("new", 0o600) // the group bits are the mask: the named user has nothing
	b.ok(b.Mkdir("d"))
	b.mode("d", 0o700)
	b.ok(b.both("f", disk.Meta{UID: -1, GID: -1, Mode: 0o755}))
	b.ok(b.SetMeta("d", disk.Meta{UID: -1, GID: -1, Mode: 0o750}))
	b.mode("f", 0o755)
	b.mode("f.by-name", 0o755)
	b.mode("d", 0o750)
	for _, name := range []string{"f", "f.by-name", "d"} {
		for _, attr := range []string{access, inherit} {
			if got, ok := b.xattr(name, attr); ok {
				b.Errorf("%s of %s is inherited: %x", attr, name, got)
			}
		}
	}
	given := acl(7, 5, 5, 5, 0)
	b.ok(b.both("g", disk.Meta{UID: -1, GID: -1, Mode: 0o750, Xattrs: map[string]string{access: given}}))
	for _, name := range []string{"g", "g.by-name"} {
		b.hasXattr(name, access, given)
		b.mode(name, 0o750)
	}
	b.ok(b.SetMeta("d", disk.Meta{UID: -1, GID: -1, Mode: 0o750, Xattrs: map[string]string{inherit: given}}))
	b.hasXattr("d", inherit, given)
	b.ok(b.SetMeta("g", disk.Meta{UID: -1, GID: -1, Mode: 0o755}))
	b.mode("g", 0o755)
	if got, ok := b.xattr("g", access); ok {
		b.Errorf("%s of g is left: %x", access, got)
	}
}

// testPrivileges: chown(2) takes both away, so they come after it.
func testPrivileges(b *bench) {
	b.needsRoot()
	// cap_net_bind_service+ep, version 2
	capability := string([]byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	b.needsXattr("security.capability", capability)
	m := disk.Meta{UID: 12345, GID: 54321, Mode: 0o6755, Xattrs: map[string]string{"security.capability": capability}}
	b.ok(b.both("f", m))
	for _, name := range []string{"f", "f.by-name"} {
		b.mode(name, 0o6755)
		b.hasXattr(name, "security.capability", capability)
		b.ok(b.Rename(name, name+".moved"))
		b.mode(name+".moved", 0o6755)
		b.hasXattr(name+".moved", "security.capability", capability)
	}
	m.UID, m.Mode = 0, 0o755
	m.Xattrs = nil
	b.ok(b.SetMeta("f.moved", m))
	b.mode("f.moved", 0o755)
	if got, ok := b.xattr("f.moved", "security.capability"); ok {
		b.Errorf("capabilities are left after a new owner: %x", got)
	}
	// No privilege that nobody asked for, not even in an error.
	bad := disk.Meta{UID: 12345, GID: 54321, Mode: 0o4755, Xattrs: map[string]string{"security.capability": strings.Repeat("x", 20)}}
	if err := b.both("g", bad); err == nil {
		b.Error("nonsense was taken for capabilities")
	}
}
