package reexec

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
	"moult.example/internal/testneed"
)

// programs lays out a program, and a file to replace it: this test's own, whole
// and executable, with a few bytes more.
func programs(t *testing.T) (path, src string) {
	t.Helper()
	dir := t.TempDir()
	path, src = filepath.Join(dir, "app"), filepath.Join(dir, "download")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.WriteFile(path, append(self, "old"...), 0o750),
		os.WriteFile(src, append(self, "new"...), 0o644),
		os.Chmod(path, 0o750),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return path, src
}

// ending is what tells the two programs apart.
func ending(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text[len(text)-3:])
}

// alone fails if there is anything but the program and the download.
func alone(t *testing.T, path string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Dir(path) + "/.*")
	if err != nil || len(names) > 0 {
		t.Errorf("leftovers %v, want none (%v)", names, err)
	}
}

func TestReplaceKeepsMetadata(t *testing.T) {
	path, src := programs(t)
	if err := os.Chmod(path, 0o751); err != nil {
		t.Fatal(err)
	}
	// A user of the group may read: u::rwx u:1234:r-- g::r-x m::r-x o::--x
	acl := "\x02\x00\x00\x00\x01\x00\x07\x00\xff\xff\xff\xff\x02\x00\x04\x00\xd2\x04\x00\x00\x04\x00\x05\x00\xff\xff\xff\xff" +
		"\x10\x00\x05\x00\xff\xff\xff\xff\x20\x00\x01\x00\xff\xff\xff\xff"
	hasACL := unix.Setxattr(path, aclAttr, []byte(acl), 0) == nil
	unix.Setxattr(path, "user.sum", []byte("of the old bytes"), 0)
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 12, 34); err != nil {
			t.Fatal(err)
		}
	}
	var before, after syscall.Stat_t
	if err := syscall.Stat(path, &before); err != nil {
		t.Fatal(err)
	}
	inUse, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer inUse.Close()
	if err := ReplaceWith(src, ReplaceOptions{Path: path}); err != nil {
		t.Fatal(err)
	}
	if got := ending(t, path); got != "new" {
		t.Errorf("the program is %q, want the new one", got)
	}
	if err := syscall.Stat(path, &after); err != nil {
		t.Fatal(err)
	}
	if after.Mode != before.Mode || after.Uid != before.Uid || after.Gid != before.Gid || after.Ino == before.Ino {
		t.Errorf("mode %o, owner %d:%d, inode %d; want %o, %d:%d and another inode than %d",
			after.Mode, after.Uid, after.Gid, after.Ino, before.Mode, before.Uid, before.Gid, before.Ino)
	}
	if got, err := attrOf(path, aclAttr); hasACL && (got != acl || err != nil) {
		t.Errorf("ACL %q, want %q (%v)", got, acl, err)
	}
	if got, _ := attrOf(path, "user.sum"); got != "" {
		t.Errorf("user.sum is %q, want none: it speaks of other bytes", got)
	}
	buf := make([]byte, 3)
	fi, _ := inUse.Stat()
	if _, err := inUse.ReadAt(buf, fi.Size()-3); err != nil || string(buf) != "old" {
		t.Errorf("the file in use ends in %q, want old (%v)", buf, err)
	}
	alone(t, path)
}

func TestReplaceLeavesLinks(t *testing.T) {
	path, src := programs(t)
	link := path + ".link"
	if err := os.Symlink("app", link); err != nil {
		t.Fatal(err)
	}
	if err := ReplaceWith(src, ReplaceOptions{Path: link}); err != nil {
		t.Fatal(err)
	}
	if text, err := os.Readlink(link); err != nil || text != "app" {
		t.Errorf("link %q, want app (%v)", text, err)
	}
	if got := ending(t, path); got != "new" {
		t.Errorf("what the link leads to is %q, want new", got)
	}
}

func TestReplaceRefuses(t *testing.T) {
	path, src := programs(t)
	whole, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, text []byte) string {
		name = filepath.Join(filepath.Dir(path), name)
		if err := os.WriteFile(name, text, 0o755); err != nil {
			t.Fatal(err)
		}
		return name
	}
	other := bytes.Clone(whole)
	other[18] ^= 0xff // e_machine
	fifo := filepath.Join(filepath.Dir(path), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	moults := filepath.Join(filepath.Dir(path), ".moult/generations/1/app")
	if err := os.MkdirAll(filepath.Dir(moults), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(moults, whole, 0o755); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("not signed")
	for _, test := range []struct {
		name, src string
		o         ReplaceOptions
		want      error
		text      string
	}{
		{"missing", path + ".none", ReplaceOptions{}, os.ErrNotExist, ""},
		{"directory", filepath.Dir(path), ReplaceOptions{}, nil, "regular"},
		{"FIFO", fifo, ReplaceOptions{}, nil, "regular"},
		{"itself", path, ReplaceOptions{}, nil, "itself"},
		{"empty", write("empty", nil), ReplaceOptions{}, ErrWrongImage, ""},
		{"a text", write("text", []byte("#!/bin/sh\n")), ReplaceOptions{}, ErrWrongImage, ""},
		{"cut short", write("short", whole[:len(whole)-4096]), ReplaceOptions{}, ErrWrongImage, ""},
		{"cut shorter", write("shorter", whole[:4096]), ReplaceOptions{}, ErrWrongImage, ""},
		{"another machine's", write("other", other), ReplaceOptions{}, ErrWrongImage, ""},
		{"not verified", src, ReplaceOptions{Verify: func(string) error { return refused }}, refused, "verify"},
		{"moult's", src, ReplaceOptions{Path: moults}, ErrPackageOwned, "target " + filepath.Dir(path)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.o.Path == "" {
				test.o.Path = path
			}
			err := ReplaceWith(test.src, test.o)
			if err == nil || test.want != nil && !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
				t.Errorf("error %v, want %v with %q", err, test.want, test.text)
			}
			if got := ending(t, path); got != "old" {
				t.Errorf("the program is %q, want old", got)
			}
		})
	}
	if names, _ := filepath.Glob(filepath.Dir(path) + "/" + stagePrefix + "*"); len(names) > 0 {
		t.Errorf("leftovers %v, want none", names)
	}
}

func TestReplacePackageOwned(t *testing.T) {
	testneed.Tool(t, "dpkg")
	if err := ReplaceWith("/proc/self/exe", ReplaceOptions{Path: "/bin/true"}); !errors.Is(err, ErrPackageOwned) || !strings.Contains(err.Error(), "coreutils") {
		t.Errorf("error %v, want %v and coreutils", err, ErrPackageOwned)
	}
}

func TestReplacePrivileges(t *testing.T) {
	for _, test := range []struct {
		p    Privileges
		want error
		mode uint32
		caps bool
	}{
		{RefusePrivileges, ErrPrivileged, 0o6755, true},
		{DropPrivileges, nil, 0o755, false},
		{KeepPrivileges, nil, 0o6755, true},
	} {
		path, src := programs(t)
		if err := unix.Chmod(path, 0o6755); err != nil {
			t.Fatal(err)
		}
		caps := "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" // cap_net_bind_service+ep
		hasCaps := os.Geteuid() == 0 && unix.Setxattr(path, capabilityAttr, []byte(caps), 0) == nil
		if err := ReplaceWith(src, ReplaceOptions{Path: path, Privileges: test.p}); !errors.Is(err, test.want) {
			t.Errorf("privileges %d: error %v, want %v", test.p, err, test.want)
		}
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil || st.Mode&0o7777 != test.mode {
			t.Errorf("privileges %d: mode %o, want %o (%v)", test.p, st.Mode&0o7777, test.mode, err)
		}
		if got, err := attrOf(path, capabilityAttr); hasCaps && (got != "") != test.caps {
			t.Errorf("privileges %d: capabilities %q, want any: %v (%v)", test.p, got, test.caps, err)
		}
	}
}

// TestReplaceErrors fails each operation in turn: the old program is there and
// nothing else, or the error says that the new one is.
func TestReplaceErrors(t *testing.T) {
	defer func(was func(string) (disk.FS, error)) { openDisk = was }(openDisk)
	for at := 1; ; at++ {
		path, src := programs(t)
		var in *disktest.Injector
		openDisk = func(dir string) (disk.FS, error) {
			d, err := disk.Open(dir)
			in = disktest.Inject(d, disktest.Fault{At: at, Errno: unix.EIO})
			return in, err
		}
		err := ReplaceWith(src, ReplaceOptions{Path: path})
		op, hit := in.Hit()
		if !hit {
			if err != nil || at < 7 {
				t.Errorf("without a fault at operation %d: error %v, want none and more operations", at, err)
			}
			return
		}
		want := "old"
		if op.Kind == disktest.OpSyncDir {
			want = "new"
		}
		if got := ending(t, path); got != want || !errors.Is(err, unix.EIO) || (want == "new") != strings.Contains(err.Error(), "in place") {
			t.Errorf("%v failed: the program is %q, want %q; error %v", op, got, want, err)
		}
		alone(t, path)
	}
}

// TestReplaceSweeps: what a killed run has left goes, what a living one needs
// does not.
func TestReplaceSweeps(t *testing.T) {
	path, src := programs(t)
	dead, alive := filepath.Join(filepath.Dir(path), stagePrefix+"DEAD"), filepath.Join(filepath.Dir(path), stagePrefix+"ALIVE")
	for _, name := range []string{dead, alive} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lock, err := lockOf(alive)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := ReplaceWith(src, ReplaceOptions{Path: path}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dead); !os.IsNotExist(err) {
		t.Errorf("the dead run's file: %v, want none", err)
	}
	if _, err := os.Lstat(alive); err != nil {
		t.Errorf("the living run's file: %v, want it untouched", err)
	}
}

// TestReplaceAtOnce: whoever wins, the program is whole at every moment.
func TestReplaceAtOnce(t *testing.T) {
	path, src := programs(t)
	want, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := ReplaceWith(src, ReplaceOptions{Path: path}); err != nil {
				t.Error(err)
			}
			// ETXTBSY: a child of another goroutine had its copy's descriptor.
			if err := exec.Command(path, "-test.run=^$").Run(); err != nil && !errors.Is(err, unix.ETXTBSY) {
				t.Errorf("the program does not run: %v", err)
			}
		})
	}
	all.Wait()
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want the %d of the new program (%v)", len(got), len(want), err)
	}
	alone(t, path)
}
