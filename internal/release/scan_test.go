package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/testneed"
)

func try(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write makes a file, and the directories on its way.
func write(t testing.TB, root, name, content string, mode fs.FileMode) string {
	t.Helper()
	p := filepath.Join(root, name)
	try(t, os.MkdirAll(filepath.Dir(p), 0o755))
	try(t, os.WriteFile(p, []byte(content), 0o600))
	try(t, os.Chmod(p, mode))
	return p
}

func open(t testing.TB, path string, opt Options) *Release {
	t.Helper()
	r, err := Open(context.Background(), path, opt)
	try(t, err)
	t.Cleanup(func() { r.Close() })
	try(t, r.Complete(context.Background()))
	try(t, r.Manifest.Check())
	return r
}

func entry(t testing.TB, r *Release, path string) *Entry {
	t.Helper()
	e := r.Manifest.Find(path)
	if e == nil {
		t.Fatalf("%q is not in the manifest", path)
	}
	return e
}

func paths(r *Release) string {
	var list []string
	for i := range r.Manifest.Entries {
		list = append(list, r.Manifest.Entries[i].Path)
	}
	return strings.Join(list, " ")
}

// nastyTree has names, types and contents of all kinds.
func nastyTree(t testing.TB) string {
	root := t.TempDir()
	write(t, root, "bin/tool", "tool", 0o755)
	write(t, root, "bin/setuid", "setuid", 0o755|fs.ModeSetuid|fs.ModeSetgid)
	write(t, root, "bin-extra/x", "between bin and bin/tool", 0o640)
	write(t, root, "empty", "", 0o644)
	write(t, root, "new\nline \xff\xfe\\ end ", "nasty", 0o600)
	write(t, root, "dir \xe4/"+strings.Repeat("n", 255), "long", 0o400)
	write(t, root, "big", strings.Repeat("big", 300<<10), 0o444)
	try(t, os.Mkdir(filepath.Join(root, "void"), 0o700))
	try(t, os.Chmod(filepath.Join(root, "void"), 0o755|fs.ModeSticky))
	try(t, os.Symlink("tool", filepath.Join(root, "bin/link")))
	try(t, os.Symlink("/no/such\nplace\xff", filepath.Join(root, "dangling")))
	try(t, os.Link(filepath.Join(root, "bin/tool"), filepath.Join(root, "also")))
	try(t, os.Link(filepath.Join(root, "bin/tool"), filepath.Join(root, "zlast")))
	holes, err := os.Create(filepath.Join(root, "holes"))
	try(t, err)
	_, err = holes.WriteAt([]byte("end"), 3<<20)
	try(t, err)
	try(t, holes.Close())
	return root
}

func TestScan(t *testing.T) {
	r := open(t, nastyTree(t), Options{})
	want := "also big bin bin-extra bin-extra/x bin/link bin/setuid bin/tool dangling dir \xe4 dir \xe4/" + strings.Repeat("n", 255) +
		" empty holes new\nline \xff\xfe\\ end  void zlast"
	if got := paths(r); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, c := range []struct {
		path string
		want Entry
	}{
		{"bin/setuid", Entry{Type: File, Mode: 0o6755, Size: 6}},
		{"also", Entry{Type: File, Mode: 0o755, Size: 4}},
		{"bin/tool", Entry{Type: File, Mode: 0o755, Size: 4, HardLink: "also"}},
		{"zlast", Entry{Type: File, Mode: 0o755, Size: 4, HardLink: "also"}},
		{"empty", Entry{Type: File, Mode: 0o644}},
		{"holes", Entry{Type: File, Mode: 0o644, Size: 3<<20 + 3, Sparse: true}},
		{"void", Entry{Type: Dir, Mode: 0o1755}},
		{"bin/link", Entry{Type: Symlink, Text: "tool"}},
		{"dangling", Entry{Type: Symlink, Text: "/no/such\nplace\xff"}},
	} {
		e := *entry(t, r, c.path)
		if e.MTime == 0 {
			t.Errorf("%s: no modification time", c.path)
		}
		if e.Type == File {
			f, err := r.OpenFile(&e)
			try(t, err)
			b, err := io.ReadAll(f)
			try(t, err)
			if _, ok := f.(*os.File); !ok {
				t.Errorf("%s: got a %T, want an *os.File", c.path, f)
			}
			try(t, r.Unchanged(&e, f))
			try(t, f.Close())
			if got := Digest(sha256.Sum256(b)); got != e.Digest {
				t.Errorf("%s: got digest %v, want %v", c.path, e.Digest, got)
			}
		}
		e.Path, e.MTime, e.Digest = "", 0, Digest{}
		if fmt.Sprint(e) != fmt.Sprint(c.want) {
			t.Errorf("%s: got %+v, want %+v", c.path, e, c.want)
		}
	}
	if got, err := Parse(r.Manifest.Encode()); err != nil || got.ID() != r.Manifest.ID() {
		t.Errorf("the manifest of the tree cannot be read back: %v", err)
	}
}

// TestScanRealTree compares the scan of the system's libraries with
// filepath.WalkDir, and some digests with sha256sum.
func TestScanRealTree(t *testing.T) {
	const root = "/usr/lib"
	r, err := Open(context.Background(), root, Options{})
	try(t, err)
	defer r.Close()
	n := 0
	try(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == root {
			return err
		}
		n++
		fi, err := d.Info()
		if err != nil {
			return err
		}
		e := r.Manifest.Find(p[len(root)+1:])
		if e == nil || (info{e, ""}).Mode() != fi.Mode() || e.Type == File && e.Size != fi.Size() || e.MTime != fi.ModTime().UnixNano() {
			t.Errorf("%s: got %+v, want %v", p, e, fi)
		}
		return nil
	}))
	if n != len(r.Manifest.Entries) {
		t.Errorf("got %d entries, want %d", len(r.Manifest.Entries), n)
	}
}

func TestDigestsAgree(t *testing.T) {
	root := nastyTree(t)
	r := open(t, root, Options{})
	out, err := exec.Command(testneed.Tool(t, "sha256sum"), filepath.Join(root, "big"), filepath.Join(root, "holes")).Output()
	try(t, err)
	for i, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		name := []string{"big", "holes"}[i]
		if got := entry(t, r, name).Digest.String(); !strings.HasPrefix(line, got) {
			t.Errorf("%s: got %s, want %s", name, got, line)
		}
	}
}

func TestScanRefused(t *testing.T) {
	for _, c := range []struct {
		what string
		make func(root string) error
		want string
	}{
		{"nothing", func(string) error { return nil }, "a release without files"},
		{"only directories", func(root string) error { return os.MkdirAll(root+"/a/b", 0o755) }, "a release without files"},
		{"only moult.toml", func(root string) error { return os.WriteFile(root+"/moult.toml", nil, 0o644) }, "a release without files"},
		{"a FIFO", func(root string) error { return unix.Mkfifo(root+"/pipe", 0o644) }, "/pipe: a FIFO does not belong in a release"},
		{"two FIFOs", func(root string) error {
			return errors.Join(os.Mkdir(root+"/a", 0o755), unix.Mkfifo(root+"/a/pipe", 0o644), unix.Mkfifo(root+"/z", 0o644))
		}, "/a/pipe: a FIFO"},
		{"a socket", func(root string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: root + "/sock", Net: "unix"})
			if err == nil {
				l.SetUnlinkOnClose(false)
				l.Close()
			}
			return err
		}, "/sock: a socket does not belong"},
		{"a target inside", func(root string) error { return os.MkdirAll(root+"/out/app/.moult", 0o755) }, "/out/app/.moult: the state of a target does not belong"},
		{"a target", func(root string) error { return os.Mkdir(root+"/.moult", 0o755) }, "/.moult: the name .moult at the top belongs to moult"},
	} {
		root := t.TempDir()
		try(t, c.make(root))
		r, err := Open(context.Background(), root, Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "release ") {
			t.Errorf("%s: got %v %v, want an error with %q", c.what, r, err, c.want)
		}
	}
	if _, err := Open(context.Background(), "/no/such", Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Open(ctx, nastyTree(t), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

func TestXattrs(t *testing.T) {
	testneed.Root(t)
	root := t.TempDir()
	file := write(t, root, "bin/tool", "x", 0o755)
	dir := filepath.Join(root, "bin")
	for _, args := range [][]string{
		{"setfattr", "-n", "user.note", "-v", "0x00ff0a", file},
		{"setfattr", "-n", "user.long", "-v", strings.Repeat("v", 1000), file},
		{"setfattr", "-n", "user.dir", "-v", "d", dir},
		{"setfattr", "-n", "trusted.overlay", "-v", "no", file},
		{"setcap", "cap_net_raw,cap_bpf=ep", file},
		{"setfacl", "-m", "u:1234:r-x", file},
		{"setfacl", "-d", "-m", "g:1234:rwx", dir},
	} {
		out, err := exec.Command(testneed.Tool(t, args[0]), args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	check := func() {
		t.Helper()
		r := open(t, root, Options{})
		f, d := entry(t, r, "bin/tool").Xattrs, entry(t, r, "bin").Xattrs
		if len(f) != 4 || f["user.note"] != "\x00\xff\n" || len(f["user.long"]) != 1000 ||
			f[xattrCaps] != mustCaps("cap_net_raw,cap_bpf=ep") || !strings.Contains(f[xattrAccess], "\xd2\x04") {
			t.Errorf("got %q", f)
		}
		if len(d) != 2 || d["user.dir"] != "d" || !strings.Contains(d[xattrDefault], "\xd2\x04") {
			t.Errorf("got %q", d)
		}
		if got, err := Parse(r.Manifest.Encode()); err != nil || !bytes.Equal(got.Encode(), r.Manifest.Encode()) {
			t.Errorf("got %v %v", got, err)
		}
	}
	check()
	noListxattrat.Store(true) // as before Linux 6.13
	defer noListxattrat.Store(false)
	check()
}

func TestOwners(t *testing.T) {
	testneed.Root(t)
	root := t.TempDir()
	try(t, os.Chown(write(t, root, "a", "", 0o644), 0, 0))
	try(t, os.Chown(write(t, root, "b", "", 0o644), 4000000, 4000001))
	for owners, want := range map[Owners]string{
		OwnersNone:    "a= b=",
		OwnersNames:   "a=root:root b=4000000:4000001",
		OwnersNumbers: "a=0:0 b=4000000:4000001",
	} {
		r := open(t, root, Options{Owners: owners})
		var got []string
		for _, e := range r.Manifest.Entries {
			got = append(got, strings.TrimSuffix(e.Path+"="+e.Owner+":"+e.Group, ":"))
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("owners %v: got %s, want %s", owners, s, want)
		}
	}
}

func TestProgress(t *testing.T) {
	root := nastyTree(t)
	cache := NewCache()
	for range 2 {
		files, bytes := 0, int64(0)
		r := open(t, root, Options{Cache: cache, OnProgress: func(f int, b int64) {
			if f < files || b < bytes {
				t.Errorf("progress goes back from %d %d to %d %d", files, bytes, f, b)
			}
			files, bytes = f, b
		}})
		var want int64
		n := 0
		for _, e := range r.Manifest.Entries {
			if e.Type == File && e.HardLink == "" {
				n++
				want += e.Size
			}
		}
		if files != n || bytes != want {
			t.Errorf("got %d files and %d bytes, want %d and %d", files, bytes, n, want)
		}
	}
}
