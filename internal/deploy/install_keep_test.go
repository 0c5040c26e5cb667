package deploy_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
	"moult.example/internal/testneed"
)

// An ACL and capabilities in the kernel's form: u::rwx u:5:r-x g::r-x m::r-x
// o::r-x, and cap_net_bind_service=ep.
const (
	someACL = "\x02\x00\x00\x00" +
		"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x05\x00\x05\x00\x00\x00" + "\x04\x00\x05\x00\xff\xff\xff\xff" +
		"\x10\x00\x05\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"
	someCaps = "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

// carried is what a file carries beside its bytes.
type carried struct {
	mode                   uint32
	uid, gid               uint32
	acl, caps, user, label bool
}

func carries(t testing.TB, path string) (c carried) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	has := func(name, value string) bool {
		buf := make([]byte, 256)
		n, err := unix.Lgetxattr(path, name, buf)
		return err == nil && string(buf[:n]) == value
	}
	return carried{
		st.Mode & 0o7777, st.Uid, st.Gid, has("system.posix_acl_access", someACL), has("security.capability", someCaps),
		has("user.sum", "of the old bytes"), has("security.selinux", someLabel),
	}
}

const someLabel = "system_u:object_r:bin_t:s0\x00"

// TestInstallKeep: what of a file that is replaced comes to the new one. A
// privilege, that is a set-id bit or a capability, never comes unasked to code
// of another owner, nor a capability to any.
func TestInstallKeep(t *testing.T) {
	testneed.Root(t)
	src, dir := t.TempDir(), t.TempDir()
	put(t, src+"/a", "new", 0o600)
	old := func(mode uint32) {
		os.Remove(dir + "/x")
		put(t, dir+"/x", "old", 0o600)
		if err := os.Chown(dir+"/x", 1, 2); err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{
			"system.posix_acl_access": someACL, "user.sum": "of the old bytes", "security.selinux": someLabel,
		} {
			if err := unix.Setxattr(dir+"/x", name, []byte(value), 0); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if err := unix.Chmod(dir+"/x", mode); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(dir+"/x", "security.capability", []byte(someCaps), 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		why  string
		o    deploy.InstallOptions
		want carried
	}{
		{"plain, as install(1)", deploy.InstallOptions{}, carried{mode: 0o755}},
		{"keep", deploy.InstallOptions{Keep: true}, carried{mode: 0o6755, uid: 1, gid: 2, acl: true, label: true}},
		{"keep-caps", deploy.InstallOptions{KeepCaps: true}, carried{mode: 0o6755, uid: 1, gid: 2, acl: true, caps: true, label: true}},
		{"keep, another owner", deploy.InstallOptions{Keep: true, Owner: "3"}, carried{mode: 0o2755, uid: 3, gid: 2, acl: true, label: true}},
		{"keep, another group", deploy.InstallOptions{Keep: true, Group: "3"}, carried{mode: 0o4755, uid: 1, gid: 3, acl: true, label: true}},
		{
			"keep-caps, another owner", deploy.InstallOptions{KeepCaps: true, Owner: "3"},
			carried{mode: 0o6755, uid: 3, gid: 2, acl: true, caps: true, label: true},
		},
		{"keep, another mode", deploy.InstallOptions{Keep: true, Mode: "0755"}, carried{mode: 0o755, uid: 1, gid: 2, acl: true, label: true}},
	} {
		old(0o6755)
		test.o.Sources, test.o.Dest = []string{src + "/a"}, dir+"/x"
		install(t, test.o)
		if got := carries(t, dir+"/x"); got != test.want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", test.why, got, test.want)
		}
	}

	os.Remove(dir + "/x")
	install(t, deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: dir + "/x", Keep: true})
	if got, want := carries(t, dir+"/x"), (carried{mode: 0o755}); got != want {
		t.Errorf("with nothing to keep: got %+v, want %+v", got, want)
	}
	os.Remove(dir + "/x")
	if err := os.Symlink("/bin/sh", dir+"/x"); err != nil {
		t.Fatal(err)
	}
	install(t, deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: dir + "/x", Keep: true})
	if got, want := carries(t, dir+"/x"), (carried{mode: 0o755}); got != want {
		t.Errorf("in place of a link: got %+v, want %+v", got, want)
	}
}

// TestInstallNoPrivilegeBefore: while the file is being made it has no rights
// for others, also where the directory's default ACL would give some, and no
// set-id bit before it has its owner.
func TestInstallNoPrivilegeBefore(t *testing.T) {
	testneed.Root(t)
	src, dir := t.TempDir(), t.TempDir()
	put(t, src+"/a", "new", 0o600)
	if err := unix.Setxattr(dir, "system.posix_acl_default", []byte(someACL), 0); err != nil {
		t.Fatal(err)
	}
	var seen []uint32
	o := deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: dir + "/x", Mode: "4755", Owner: "1"}
	o.Disk = atEach(func(string) {
		names, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			var st unix.Stat_t
			if err := unix.Lstat(dir+"/"+name.Name(), &st); err != nil {
				t.Fatal(err)
			}
			if st.Mode&0o7000 != 0 && st.Uid != 1 {
				t.Errorf("%s has mode %04o while it belongs to %d", name.Name(), st.Mode&0o7777, st.Uid)
			}
			seen = append(seen, st.Mode&0o7777)
		}
	})
	install(t, o)
	if got := carries(t, dir+"/x"); got != (carried{mode: 0o4755, uid: 1}) {
		t.Errorf("got %+v", got)
	}
	for _, mode := range seen {
		if mode != 0o600 && mode != 0o4755 {
			t.Errorf("it had mode %04o on the way, want 0600 and then 4755", mode)
		}
	}
	if len(seen) < 4 {
		t.Errorf("looked %d times, want before and after each step", len(seen))
	}
}

// TestInstallLabel: the label is that of the path in public, and is there before
// the file has its name. Without SELinux the attribute is one like another.
func TestInstallLabel(t *testing.T) {
	testneed.Root(t)
	src, dir := t.TempDir(), t.TempDir()
	put(t, src+"/a", "new", 0o600)
	o := deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: dir + "/n/x", MakeLeading: true}
	o.LabelFor = func(path string) string {
		if path != dir+"/n/x" && path != dir+"/n" {
			t.Errorf("asked for the label of %s", path)
		}
		return someLabel
	}
	install(t, o)
	if carries(t, dir+"/n/x").label {
		t.Error("labelled on a file system whose directories have no labels")
	}
	if err := os.RemoveAll(dir + "/n"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(dir, "security.selinux", []byte("another"), 0); err != nil {
		t.Fatal(err)
	}
	install(t, o)
	if !carries(t, dir+"/n").label || !carries(t, dir+"/n/x").label {
		t.Errorf("labels of directory and file: %v and %v, want both", carries(t, dir+"/n").label, carries(t, dir+"/n/x").label)
	}
}
