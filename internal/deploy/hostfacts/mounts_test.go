package hostfacts

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"moult.example/internal/testneed"
)

// Lines as kernels have printed them, with and without optional fields.
const recordedMountinfo = `27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
36 27 0:41 / /run/with\040blank\011and\134 rw,nosuid shared:2 master:7 propagate_from:3 - tmpfs tmp\040fs rw,size=1k
37 27 254:0 /etc/re\012solv /opt/app/etc/resolv.conf ro,relatime - ext4 /dev/vda rw
38 27 0:44 / /home rw - fuse.sshfs me@host:/home ro,user_id=0
39 27 0:45 / /strange\9 rw - tmpfs none rw
`

func TestParseMounts(t *testing.T) {
	got, err := parseMounts(strings.NewReader(recordedMountinfo))
	want := []Mount{
		{27, 1, "/", "/", "ext4", "/dev/vda", false, "254:0"},
		{36, 27, "/run/with blank\tand\\", "/", "tmpfs", "tmp fs", false, "0:41"},
		{37, 27, "/opt/app/etc/resolv.conf", "/etc/re\nsolv", "ext4", "/dev/vda", true, "254:0"},
		{38, 27, "/home", "/", "fuse.sshfs", "me@host:/home", true, "0:44"},
		{39, 27, `/strange\9`, "/", "tmpfs", "none", false, "0:45"},
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, line := range []string{"", "1 2 3", "1 x 254:0 / / rw - ext4 x rw", "x 1 254:0 / / rw - ext4 x rw", "1 1 254:0 / rw - ext4 x rw", "1 1 254:0 / / rw ext4 x rw", "1 1 254:0 / / rw - ext4"} {
		if got, err := parseMounts(strings.NewReader(line + "\n")); err == nil {
			t.Errorf("%q: got %+v, want an error", line, got)
		}
	}
}

func TestInside(t *testing.T) {
	mounts := []Mount{
		{Point: "/", Root: "/@root", Dev: "0:30"}, {Point: "/srv", Root: "/", Dev: "8:1"},
		{Point: "/srv/app", Root: "/apps/a", Dev: "8:2"}, {Point: "/srv/app", Root: "/apps/b", Dev: "8:2"},
	}
	for path, want := range map[string]string{
		"/": "/@root 0:30", "/opt/x": "/@root/opt/x 0:30", "/srvx": "/@root/srvx 0:30", "/srv": "/ 8:1", "/srv/b/c": "/b/c 8:1",
		"/srv/app": "/apps/b 8:2", "/srv/app/x": "/apps/b/x 8:2", "/srv/apple": "/apple 8:1",
	} {
		if inside, at, ok := Inside(path, mounts); !ok || inside+" "+at.Dev != want {
			t.Errorf("%s: got %s %s, %v; want %s", path, inside, at.Dev, ok, want)
		}
	}
	if _, _, ok := Inside("/x", nil); ok {
		t.Error("without mounts got one")
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add(recordedMountinfo)
	f.Fuzz(func(t *testing.T, text string) { parseMounts(strings.NewReader(text)) })
}

// The root of this host, and a place in it that is no mount.
func TestThisHost(t *testing.T) {
	mounts, err := MountsBelow("/")
	if err != nil || len(mounts) == 0 {
		t.Fatalf("got %v, %v, want mounts", mounts, err)
	}
	if all, err := Mounts(); err != nil || len(all) != len(mounts) {
		t.Errorf("below /: got %d of %d mounts, %v", len(mounts), len(all), err)
	}
	dir := t.TempDir()
	for path, want := range map[string]bool{"/": true, "/proc": true, "/proc/.": true, "/proc/self": false, dir: false} {
		if got, err := IsMountPoint(path); err != nil || got != want {
			t.Errorf("IsMountPoint(%s) = %v, %v, want %v", path, got, err, want)
		}
	}
	if below, err := MountsBelow(dir); err != nil || len(below) > 0 {
		t.Errorf("MountsBelow(%s) = %v, %v, want none", dir, below, err)
	}
	if got, err := FSType("/proc"); err != nil || got != "proc" {
		t.Errorf("FSType(/proc) = %s, %v, want proc", got, err)
	}
	if ro, err := ReadOnly(dir); err != nil || ro {
		t.Errorf("ReadOnly(%s) = %v, %v, want false", dir, ro, err)
	}
	for name, ask := range map[string]func(string) error{
		"MountID":      func(p string) error { _, err := MountID(p); return err },
		"IsMountPoint": func(p string) error { _, err := IsMountPoint(p); return err },
		"ReadOnly":     func(p string) error { _, err := ReadOnly(p); return err },
		"FSType":       func(p string) error { _, err := FSType(p); return err },
		"FreeSpace":    func(p string) error { _, err := FreeSpace(p); return err },
		"FileFlags":    func(p string) error { _, err := FileFlags(p); return err },
	} {
		err := ask(dir + "/none")
		if pe := new(fs.PathError); !errors.As(err, &pe) || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s of nothing: got %v, want a PathError with ENOENT", name, err)
		}
	}
}

func mount(t *testing.T, from, to, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(from, to, kind, flags, data); err != nil {
		t.Fatalf("mount %s at %s: %v", from, to, err)
	}
	t.Cleanup(func() { unix.Unmount(to, unix.MNT_DETACH) })
}

// makes directories, and files where the name does not end in a slash.
func makeAll(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path+"/x"), 0o755); strings.HasSuffix(name, "/") && err != nil {
			t.Fatal(err)
		} else if !strings.HasSuffix(name, "/") {
			os.Remove(path)
			if err := os.WriteFile(path, nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Real mounts: a file system, a directory and a file of the same file system,
// a read-only one, one in a directory with an odd name.
func TestRealMounts(t *testing.T) {
	testneed.Root(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	app := filepath.Join(dir, "app")
	makeAll(t, dir, "app/tmp/", "app/bind/", "app/odd \\ name\n/", "app/plain/", "application/", "app/ro/", "app/file", "app/other")
	mount(t, "none", app+"/tmp", "tmpfs", 0, "size=1m,nr_inodes=100")
	mount(t, app+"/plain", app+"/bind", "", unix.MS_BIND, "")
	mount(t, app+"/other", app+"/file", "", unix.MS_BIND, "")
	mount(t, "none", app+"/odd \\ name\n", "tmpfs", 0, "")
	mount(t, "none", dir+"/application", "tmpfs", 0, "")
	mount(t, app+"/plain", app+"/ro", "", unix.MS_BIND, "")
	if err := unix.Mount("", app+"/ro", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("app", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("tmp", app+"/tolink"); err != nil {
		t.Fatal(err)
	}

	makeAll(t, app, "tmp/inner")

	below, err := MountsBelow(app)
	if err != nil {
		t.Fatal(err)
	}
	var points []string
	for _, m := range below {
		points = append(points, strings.TrimPrefix(m.Point, app+"/"))
		id, err := MountID(m.Point)
		if err != nil || id != m.ID {
			t.Errorf("MountID(%q) = %d, %v, want %d", m.Point, id, err, m.ID)
		}
		if id, err := mountIDByDescriptor(m.Point); err != nil || id != m.ID {
			t.Errorf("mountIDByDescriptor(%q) = %d, %v, want %d", m.Point, id, err, m.ID)
		}
		if ro, err := ReadOnly(m.Point); err != nil || ro != m.ReadOnly || ro != (m.Point == app+"/ro") {
			t.Errorf("ReadOnly(%q) = %v, %v, mountinfo says %v", m.Point, ro, err, m.ReadOnly)
		}
	}
	if want := []string{"tmp", "bind", "file", "odd \\ name\n", "ro"}; !slices.Equal(points, want) {
		t.Errorf("below: got %q, want %q", points, want)
	}
	if at, err := MountsBelow(app + "/tmp/"); err != nil || len(at) != 1 {
		t.Errorf("at a mount: got %v, %v, want that one", at, err)
	}
	t.Chdir(app)
	for path, want := range map[string]bool{
		"tmp": true, "bind": true, "file": true, "ro": true, app + "/odd \\ name\n": true,
		"plain": false, "other": false, ".": false, dir + "/link/tmp": true, dir + "/link": false, "tolink": false,
		"tolink/inner": false,
	} {
		if got, err := IsMountPoint(path); err != nil || got != want {
			t.Errorf("IsMountPoint(%q) = %v, %v, want %v", path, got, err, want)
		}
	}
	if got, err := FSType("tmp"); err != nil || got != "tmpfs" {
		t.Errorf("FSType(tmp) = %s, %v, want tmpfs", got, err)
	}
	if same, err := MountID("bind"); err != nil || same == must(t, "plain") {
		t.Errorf("MountID(bind) = %d, %v, want another than that of plain", same, err)
	}
}

func must(t *testing.T, path string) uint64 {
	t.Helper()
	id, err := MountID(path)
	if err != nil {
		t.Fatal(err)
	}
	return id
}
