package destroytest

import (
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk/disktest"
)

// The zoo is a release with one of everything that a file system can hold and a
// release may: in two versions, of which the second changes each property by
// itself. Where it arrives it has to be what it was at home.

// nastyNames are file names that programs get wrong.
var nastyNames = []string{
	"new\nline", "tab\there", "back\\slash", "non-utf8-\xff\xfe", "quote'\"", " spaces ", "-dash", "\\x41", "café", "\x01\x7f",
	strings.Repeat("n", 255), "...", ".hidden", "star*?[a]", "sparse.new", "%s%n",
}

// zooConfig sets what a directory cannot say: owners, and what comes with them.
const zooConfig = `
[[file]]
match = "suid/owned"
owner = "daemon"
group = "daemon"
mode = "4755"
[[file]]
match = "suid/group"
owner = "0"
group = "daemon"
mode = "2755"
[[file]]
match = "suid/both"
owner = "daemon"
group = "daemon"
mode = "6711"
caps = "cap_net_raw=ep"
[[file]]
match = "caps/set"
caps = "cap_net_bind_service,cap_net_raw=ep"
[[file]]
match = "caps/taken"
caps = ""
[[file]]
match = "owner/**"
owner = "daemon"
`

// special is one thing in the zoo: version 1 or 2 of it, below dir.
type special struct {
	name string
	make func(t testing.TB, dir string, version int)
}

// each picks one of two values by version.
func each[T any](version int, one, two T) T {
	if version == 1 {
		return one
	}
	return two
}

func zoo() []special {
	write := func(t testing.TB, path, content string, mode uint32) {
		t.Helper()
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o600))
		must(t, unix.Chmod(path, mode))
	}
	v := func(version int) string { return fmt.Sprintf("version %d", version) }
	return []special{
		{"plain", func(t testing.TB, dir string, n int) {
			write(t, dir+"/same", "same in both", 0o644)
			write(t, dir+"/changed", v(n), 0o644)
			write(t, dir+"/grows", strings.Repeat("x", n*100_000), 0o755)
			write(t, dir+each(n, "/goes", "/comes"), "only in one", 0o644)
		}},
		{"empty", func(t testing.TB, dir string, n int) {
			write(t, dir+"/file", "", 0o644)
			write(t, dir+"/becomes", each(n, "", "full"), 0o644)
			must(t, os.Mkdir(dir+"/dir", 0o755))
		}},
		{"modes", func(t testing.TB, dir string, n int) {
			for _, mode := range []uint32{0o000, 0o400, 0o111, 0o666, 0o777, 0o755, 0o1644} {
				write(t, fmt.Sprintf("%s/m%04o", dir, mode), v(n), mode)
				write(t, fmt.Sprintf("%s/same-m%04o", dir, mode), "same", mode)
			}
			write(t, dir+"/only-mode", "the bytes stay", each[uint32](n, 0o644, 0o755))
			for _, mode := range []uint32{0o700, 0o777, 0o1777, 0o2755, 0o755} {
				write(t, fmt.Sprintf("%s/d%04o/f", dir, mode), v(n), 0o644)
				must(t, unix.Chmod(fmt.Sprintf("%s/d%04o", dir, mode), mode))
			}
			write(t, dir+"/dir-mode/f", "same", 0o644)
			must(t, unix.Chmod(dir+"/dir-mode", each[uint32](n, 0o755, 0o711)))
		}},
		{"suid", func(t testing.TB, dir string, n int) {
			for _, name := range []string{"owned", "group", "both"} {
				write(t, dir+"/"+name, v(n), 0o755) // zooConfig says the rest
			}
		}},
		{"owner", func(t testing.TB, dir string, n int) {
			write(t, dir+"/same", "same", 0o644)
			write(t, dir+"/changed", v(n), 0o644)
			must(t, os.Symlink(v(n), dir+"/link"))
		}},
		{"links", func(t testing.TB, dir string, n int) {
			write(t, dir+"/file", v(n), 0o644)
			for name, text := range map[string]string{
				"changed": each(n, "file", "./file"), "dangling": "not/there", "absolute": "/etc/hostname", "loop": "loop",
				"up": "../plain/same", "nasty": "a\nb\xff", "long": strings.Repeat("l", 1000), "file-then-link": "file",
			} {
				must(t, os.Symlink(text, dir+"/"+name))
			}
			must(t, os.Remove(dir+"/file-then-link"))
			if n == 1 {
				write(t, dir+"/file-then-link", "a file", 0o644)
				must(t, os.Symlink("file", dir+"/link-then-file"))
			} else {
				must(t, os.Symlink("file", dir+"/file-then-link"))
				write(t, dir+"/link-then-file", "a file", 0o644)
			}
		}},
		{"hard", func(t testing.TB, dir string, n int) {
			write(t, dir+"/same1", "same", 0o644)
			must(t, os.Link(dir+"/same1", dir+"/same2"))
			write(t, dir+"/changed1", v(n), 0o755)
			must(t, os.Link(dir+"/changed1", dir+"/changed2"))
			must(t, os.MkdirAll(dir+"/sub", 0o755))
			must(t, os.Link(dir+"/changed1", dir+"/sub/changed3"))
			// One leaves its group, with the same bytes; one joins; a group
			// gets another first name; a group of equal bytes falls apart.
			write(t, dir+"/leave1", "leave", 0o644)
			write(t, dir+"/join1", "join", 0o644)
			if n == 1 {
				must(t, os.Link(dir+"/leave1", dir+"/leave2"))
				write(t, dir+"/join2", "join", 0o644)
				write(t, dir+"/b-first", "first", 0o644)
				must(t, os.Link(dir+"/b-first", dir+"/c-first"))
			} else {
				write(t, dir+"/leave2", "leave", 0o644)
				must(t, os.Link(dir+"/join1", dir+"/join2"))
				write(t, dir+"/a-first", "first", 0o644)
				must(t, os.Link(dir+"/a-first", dir+"/b-first"))
			}
			write(t, dir+"/empty1", "", 0o644)
			must(t, os.Link(dir+"/empty1", dir+"/empty2"))
		}},
		{"sparse", func(t testing.TB, dir string, n int) {
			for name, at := range map[string]int64{"middle": 4 << 20, "same": 3 << 20, "start": 0} {
				data := v(n)
				if name == "same" {
					data = "same"
				}
				f, err := os.Create(dir + "/" + name)
				must(t, err)
				_, err = f.WriteAt([]byte(data), at)
				must(t, err)
				must(t, f.Truncate(8<<20))
				must(t, f.Close())
			}
			must(t, os.WriteFile(dir+"/hole", nil, 0o644))
			must(t, os.Truncate(dir+"/hole", 1<<20+7))
		}},
		{"names", func(t testing.TB, dir string, n int) {
			for _, name := range nastyNames {
				write(t, dir+"/"+name, v(n), 0o644)
				write(t, dir+"/d/same-"+name[:min(len(name), 200)], "same", 0o644)
				must(t, os.MkdirAll(dir+"/in/"+name, 0o755))
				write(t, dir+"/in/"+name+"/f", v(n), 0o644)
			}
		}},
		{"deep", func(t testing.TB, dir string, n int) {
			deep := dir + strings.Repeat("/"+strings.Repeat("d", 60), 40)
			must(t, os.MkdirAll(deep, 0o755))
			write(t, deep+"/f", v(n), 0o644)
		}},
		{"times", func(t testing.TB, dir string, n int) {
			write(t, dir+"/old", v(n), 0o644)
			must(t, os.Chtimes(dir+"/old", time.Unix(0, 0), time.Unix(1, 123456789)))
			write(t, dir+"/future", v(n), 0o644)
			must(t, os.Chtimes(dir+"/future", time.Unix(0, 0), time.Unix(3_000_000_000, 5)))
		}},
		{"xattr", func(t testing.TB, dir string, n int) {
			write(t, dir+"/file", "the bytes stay", 0o644)
			setxattr(t, dir+"/file", "user.version", v(n))
			setxattr(t, dir+"/file", "user.binary", "\x00\xff\n")
			setxattr(t, dir+"/file", each(n, "user.goes", "user.comes"), "")
			write(t, dir+"/unreadable", v(n), 0)
			setxattr(t, dir+"/unreadable", "user.x", "x")
			must(t, os.Mkdir(dir+"/dir", 0o755))
			setxattr(t, dir+"/dir", "user.dir", "same")
		}},
		{"acl", func(t testing.TB, dir string, n int) {
			write(t, dir+"/file", "the bytes stay", 0o640)
			setxattr(t, dir+"/file", "system.posix_acl_access", acl(6, each[uint16](n, 4, 6), 7))
			write(t, dir+"/loses", "loses it", 0o644)
			if n == 1 {
				setxattr(t, dir+"/loses", "system.posix_acl_access", acl(6, 7, 7))
			}
			must(t, os.Mkdir(dir+"/dir", 0o750))
			setxattr(t, dir+"/dir", "system.posix_acl_default", acl(7, 5, 7))
			write(t, dir+"/dir/plain", v(n), 0o600)
			removeACL(t, dir+"/dir/plain")
		}},
		{"caps", func(t testing.TB, dir string, n int) {
			write(t, dir+"/set", v(n), 0o755)   // by zooConfig
			write(t, dir+"/taken", v(n), 0o755) // there, but zooConfig takes it
			setxattr(t, dir+"/taken", "security.capability", capNetRaw)
			write(t, dir+"/source", v(n), 0o755)
			setxattr(t, dir+"/source", "security.capability", capNetRaw)
			write(t, dir+"/same", "same", 0o755)
			if n == 2 {
				setxattr(t, dir+"/same", "security.capability", capNetRaw)
			}
		}},
	}
}

// writeZoo makes a version of the zoo, without some of its animals.
func writeZoo(t testing.TB, dir string, version int, without ...string) string {
	t.Helper()
	for _, s := range zoo() {
		if !contains(without, s.name) {
			must(t, os.MkdirAll(filepath.Join(dir, s.name), 0o755))
			s.make(t, filepath.Join(dir, s.name), version)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "moult.toml"), []byte(zooConfig), 0o644))
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && filepath.Base(filepath.Dir(path)) != "times" {
			// As reproducible builds do, so that the time gives no change away.
			return os.Chtimes(path, time.Unix(1e9, 0), time.Unix(1e9, 42))
		}
		return err
	}))
	return dir
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// capNetRaw is cap_net_raw=ep as the kernel keeps it (vfs_cap_data, version 2).
const capNetRaw = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// capBindRaw is cap_net_bind_service,cap_net_raw=ep.
const capBindRaw = "\x01\x00\x00\x02\x00\x24\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

func setxattr(t testing.TB, path, name, value string) {
	t.Helper()
	if err := unix.Lsetxattr(path, name, []byte(value), 0); err != nil {
		t.Fatalf("setxattr %s %s: %v", path, name, err)
	}
}

func removeACL(t testing.TB, path string) {
	t.Helper()
	for _, name := range []string{"system.posix_acl_access", "system.posix_acl_default"} {
		if err := unix.Lremovexattr(path, name); err != nil && err != unix.ENODATA && err != unix.EOPNOTSUPP {
			t.Fatal(err)
		}
	}
}

// acl is an ACL in the form of its attribute (posix_acl_xattr.h): the owner's
// rights, those of the user 1 (daemon), and the mask; none for all others.
func acl(owner, named, mask uint16) string {
	b := []byte{2, 0, 0, 0}
	for _, e := range []struct {
		tag, perm uint16
		id        uint32
	}{{0x01, owner, ^uint32(0)}, {0x02, named, 1}, {0x04, 4, ^uint32(0)}, {0x10, mask, ^uint32(0)}, {0x20, 0, ^uint32(0)}} {
		b = append(b, byte(e.tag), byte(e.tag>>8), byte(e.perm), byte(e.perm>>8),
			byte(e.id), byte(e.id>>8), byte(e.id>>16), byte(e.id>>24))
	}
	return string(b)
}

// daemonIDs are the numbers of the user and the group that every system has.
func daemonIDs(t testing.TB) (uid, gid int) {
	t.Helper()
	u, err := user.Lookup("daemon")
	must(t, err)
	g, err := user.LookupGroup("daemon")
	must(t, err)
	uid, err = strconv.Atoi(u.Uid)
	must(t, err)
	gid, err = strconv.Atoi(g.Gid)
	must(t, err)
	return uid, gid
}

// atHome is what people are to see of a release that lies in dir: what is
// there, as belonging to whoever applies it, with what zooConfig says.
func atHome(t testing.TB, dir string) *disktest.Tree {
	t.Helper()
	daemon, group := daemonIDs(t)
	tree := capture(t, dir)
	delete(tree.Entries, ".")
	delete(tree.Entries, "moult.toml")
	for name, e := range tree.Entries {
		e.UID, e.GID = os.Geteuid(), os.Getegid()
		switch {
		case name == "suid/owned":
			e.UID, e.GID, e.Mode = daemon, group, e.Mode&unix.S_IFMT|0o4755
		case name == "suid/group":
			e.GID, e.Mode = group, e.Mode&unix.S_IFMT|0o2755
		case name == "suid/both":
			e.UID, e.GID, e.Mode = daemon, group, e.Mode&unix.S_IFMT|0o6711
			e.Xattrs = map[string]string{"security.capability": capNetRaw}
		case name == "caps/set":
			e.Xattrs = map[string]string{"security.capability": capBindRaw}
		case name == "caps/taken":
			e.Xattrs = nil
		case strings.HasPrefix(name, "owner/"):
			e.UID = daemon
		}
	}
	return tree
}
