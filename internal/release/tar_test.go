package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/testneed"
)

// tarOf makes an archive of members; a Size of -1 is that of the content.
func tarOf(t testing.TB, members ...*tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, hdr := range members {
		content := ""
		if hdr.Typeflag == tar.TypeReg {
			content = hdr.Linkname
			hdr.Linkname, hdr.Size = "", int64(len(content))
		}
		try(t, w.WriteHeader(hdr))
		_, err := io.WriteString(w, content)
		try(t, err)
	}
	try(t, w.Close())
	return b.Bytes()
}

// reg is a file: its content travels in Linkname.
func reg(name, content string) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Linkname: content}
}

func other(kind byte, name, link string) *tar.Header {
	return &tar.Header{Typeflag: kind, Name: name, Mode: 0o755, Linkname: link}
}

// TestTarOfTar opens what the system's tar makes of a nasty tree, in each of its
// formats and compressions.
func TestTarOfTar(t *testing.T) {
	tarTool := testneed.Tool(t, "tar")
	root := nastyTree(t)
	dir := open(t, root, Options{})
	for _, c := range []struct {
		name string
		args []string
	}{
		{"gnu.tar", []string{"--format=gnu"}},
		{"gnu-sparse.tar", []string{"--format=gnu", "--sparse"}},
		{"pax.tar", []string{"--format=pax"}},
		{"pax-sparse.tar", []string{"--format=pax", "--sparse"}},
		{"pax.tar.gz", []string{"--format=pax", "--gzip"}},
		{"pax.tar.zst", []string{"--format=pax", "--zstd"}},
		{"pax.tar.bz2", []string{"--format=pax", "--bzip2"}},
	} {
		for _, flag := range []string{"--gzip", "--zstd", "--bzip2"} {
			if slices.Contains(c.args, flag) {
				testneed.Tool(t, flag[2:])
			}
		}
		p := filepath.Join(t.TempDir(), c.name)
		args := append(c.args, "-C", root, "-cf", p, ".")
		if out, err := exec.Command(tarTool, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v %s", args, err, out)
		}
		for what, path := range map[string]string{"file": p, "stdin": "-"} {
			opt := spooled(t, Options{Stdin: must(os.Open(p))(t)})
			r := open(t, path, opt)
			sameBytesOf(t, r)
			readsAt(t, r, "big")
			sparse := strings.Contains(c.name, "sparse")
			want := slices.Clone(dir.Manifest.Entries)
			for i := range want {
				e := r.Manifest.Find(want[i].Path)
				if e == nil {
					t.Fatalf("%s from %s: %q is missing", c.name, what, want[i].Path)
				}
				got := *e
				if want[i].Sparse = want[i].Sparse && sparse; strings.HasPrefix(c.name, "gnu") {
					got.MTime, want[i].MTime = 0, 0 // has whole seconds
				}
				if !reflect.DeepEqual(got, want[i]) {
					t.Errorf("%s from %s: got %+v, want %+v", c.name, what, got, want[i])
				}
			}
			if len(want) != len(r.Manifest.Entries) {
				t.Errorf("%s from %s: got %d entries, want %d", c.name, what, len(r.Manifest.Entries), len(want))
			}
			if sparse {
				var st unix.Stat_t
				f := must(r.OpenFile(entry(t, r, "holes")))(t)
				try(t, unix.Fstat(int(f.(*os.File).Fd()), &st))
				f.Close()
				if st.Blocks*512 > 1<<20 {
					t.Errorf("%s: the sparse file takes %d bytes", c.name, st.Blocks*512)
				}
			}
			try(t, r.Close())
			if left := must(os.ReadDir(opt.SpoolDir))(t); len(left) > 0 {
				t.Errorf("%s: Close has left %v", c.name, left)
			}
		}
	}
}

func TestTarUstar(t *testing.T) {
	tarTool := testneed.Tool(t, "tar")
	root := t.TempDir()
	write(t, root, "bin/tool", "tool", 0o755)
	try(t, os.Symlink("tool", filepath.Join(root, "bin/link")))
	for _, format := range []string{"ustar", "v7", "oldgnu"} {
		out, err := exec.Command(tarTool, "--format="+format, "-C", root, "-cf", "-", "bin").Output()
		try(t, err)
		r := open(t, "-", spooled(t, Options{Stdin: bytes.NewReader(out), Owners: OwnersNumbers}))
		if got := paths(r); got != "bin bin/link bin/tool" {
			t.Errorf("%s: got %s", format, got)
		}
		if e := entry(t, r, "bin/tool"); e.Owner != fmt.Sprint(os.Getuid()) || e.Mode != 0o755 {
			t.Errorf("%s: got %+v", format, e)
		}
		sameBytesOf(t, r)
	}
}

// TestTarMembers: what archives say in several ways.
func TestTarMembers(t *testing.T) {
	big := strings.Repeat("b", 600<<10)
	b := tarOf(t,
		&tar.Header{Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": "a commit"}},
		other(tar.TypeDir, "./", ""),
		reg("./z/tool", "tool"),
		reg("deep//er/./x", big),
		other(tar.TypeLink, "a-link", "./z/tool"),
		other(tar.TypeLink, "b-link", "a-link"),
		other(tar.TypeSymlink, "link", "../../anywhere"),
		&tar.Header{Typeflag: tar.TypeReg, Name: "owned", Mode: 0o4755, Uid: 7, Gid: 8, Uname: "svc", Gname: "", Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.user.a%3Db%25": "\x00v", "SCHILY.xattr.security.selinux": "label", "SCHILY.xattr.trusted.x": "1", "SCHILY.acl.access": "user::rwx,group::r-x,other::r-x"}},
		other(tar.TypeDir, "z/", ""),
	)
	r := open(t, "-", spooled(t, Options{Stdin: bytes.NewReader(b), Owners: OwnersNames}))
	if got, want := paths(r), "a-link b-link deep deep/er deep/er/x link owned z z/tool"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	sameBytesOf(t, r)
	for path, want := range map[string]string{"a-link": "", "b-link": "a-link", "z/tool": "a-link", "deep/er/x": ""} {
		if got := entry(t, r, path).HardLink; got != want {
			t.Errorf("%s: got the hard link %q, want %q", path, got, want)
		}
	}
	if e := entry(t, r, "deep"); e.Mode != 0o755 || e.Type != Dir || e.Owner != "" {
		t.Errorf("got %+v for a directory that the archive does not name", e)
	}
	if e := entry(t, r, "owned"); e.Owner != "svc" || e.Group != "8" || e.Mode != 0o4755 || !reflect.DeepEqual(e.Xattrs, map[string]string{"user.a=b%": "\x00v"}) {
		t.Errorf("got %+v", e)
	}

	dry := open(t, "-", Options{Stdin: bytes.NewReader(b), Owners: OwnersNames})
	if dry.Manifest.ID() != r.Manifest.ID() {
		t.Error("without a spool, the tar is another release")
	}
	if f, err := dry.OpenFile(entry(t, dry, "z/tool")); !errors.Is(err, ErrNoBytes) {
		t.Errorf("got %v %v, want %v", f, err, ErrNoBytes)
	}
}

func TestTarConfig(t *testing.T) {
	toml := "name = 'inside'\nexclude = ['dev', '**/*.debug']\n[[file]]\nmatch = 'tool'\nowner = 'svc'\n"
	b := tarOf(t, reg("./tool", "x"), other(tar.TypeFifo, "./dev/pipe", ""), reg("./dev/x", ""), reg("./a.debug", ""), reg("./moult.toml", toml))
	r := open(t, "-", spooled(t, Options{Stdin: bytes.NewReader(b)}))
	if got := paths(r); got != "tool" || r.Manifest.Name != "inside" || entry(t, r, "tool").Owner != "svc" {
		t.Errorf("got %s of %s, owner %q", got, r.Manifest.Name, entry(t, r, "tool").Owner)
	}

	p := write(t, t.TempDir(), "tool.tar", string(tarOf(t, reg("tool", "x"))), 0o644)
	try(t, os.Chmod(filepath.Dir(p), 0o755))
	beside := write(t, filepath.Dir(p), "moult.toml", "name = 'beside'", 0o644)
	if r := open(t, p, spooled(t, Options{})); r.Manifest.Name != "beside" || len(r.Notes) != 0 {
		t.Errorf("got %s %q, want beside", r.Manifest.Name, r.Notes)
	}
	try(t, os.Chmod(beside, 0o666))
	if r := open(t, p, spooled(t, Options{})); r.Manifest.Name != "" || len(r.Notes) != 1 {
		t.Errorf("got %s %q, want no name and a note", r.Manifest.Name, r.Notes)
	}
	inside := tarOf(t, reg("x", ""), reg("moult.toml", toml))
	if r := open(t, "-", spooled(t, Options{Stdin: bytes.NewReader(inside), Config: beside})); r.Manifest.Name != "beside" {
		t.Errorf("got %s, want what the given moult.toml says", r.Manifest.Name)
	}
}

func TestTarRefused(t *testing.T) {
	acl := reg("x", "")
	acl.Format, acl.PAXRecords = tar.FormatPAX, map[string]string{"SCHILY.acl.access": "user::rw-,user:joe:rwx,group::r--,mask::rwx,other::r--"}
	badCaps := reg("x", "")
	badCaps.Format, badCaps.PAXRecords = tar.FormatPAX, map[string]string{"SCHILY.xattr.security.capability": "junk"}
	noFiles := "a release without files"
	for _, c := range []struct {
		what    string
		members []*tar.Header
		want    string
	}{
		{"nothing", nil, noFiles},
		{"only a directory", []*tar.Header{other(tar.TypeDir, "a/", "")}, noFiles},
		{"dot dot", []*tar.Header{reg("a/../../x", "")}, `"a/../../x": a path may not have . or ..`},
		{"absolute", []*tar.Header{reg("/etc/passwd", "")}, `"/etc/passwd": the path is absolute`},
		{"through a link", []*tar.Header{other(tar.TypeSymlink, "a", "/etc"), reg("a/passwd", "")}, `"a/passwd": "a" is not a directory`},
		{"through a later link", []*tar.Header{reg("a/passwd", ""), other(tar.TypeSymlink, "a", "/etc")}, `"a/passwd": "a" is not a directory`},
		{"below a file", []*tar.Header{reg("a", ""), reg("a/b", "")}, `"a/b": "a" is not a directory`},
		{"no name", []*tar.Header{reg("x", ""), reg("", "lost")}, `"": the top of a release is a directory`},
		{"the top as a link", []*tar.Header{reg("x", ""), other(tar.TypeSymlink, "./", "/etc")}, `"./": the top of a release is a directory`},
		{"twice", []*tar.Header{reg("a", "1"), reg("./a", "2")}, `"a" is there twice`},
		{"a directory twice", []*tar.Header{reg("x", ""), other(tar.TypeDir, "a/", ""), other(tar.TypeDir, "a", "")}, `"a" is there twice`},
		{"a FIFO", []*tar.Header{reg("x", ""), other(tar.TypeFifo, "p", "")}, `"p": a FIFO does not belong`},
		{"a device", []*tar.Header{reg("x", ""), other(tar.TypeChar, "null", "")}, `"null": a device does not belong`},
		{"a link to nothing", []*tar.Header{other(tar.TypeLink, "a", "b")}, `"a": its hard link "b" is not a file before it`},
		{"a link to a later file", []*tar.Header{other(tar.TypeLink, "a", "b"), reg("b", "")}, `"a": its hard link "b"`},
		{"a link to a link", []*tar.Header{other(tar.TypeSymlink, "b", "x"), other(tar.TypeLink, "a", "b")}, `"a": its hard link "b"`},
		{"a link out", []*tar.Header{other(tar.TypeLink, "a", "../b")}, `"a": its hard link "../b"`},
		{"a target", []*tar.Header{reg("./.moult/journal", "")}, "belongs to moult"},
		{"a NUL", []*tar.Header{{Typeflag: tar.TypeReg, Name: "x", PAXRecords: map[string]string{"SCHILY.xattr.user.\xff": ""}, Format: tar.FormatPAX}, reg(strings.Repeat("n", 256), "")}, "more than 255 bytes"},
		{"an ACL as text", []*tar.Header{acl}, `"x": its ACL is given as text`},
		{"no capabilities", []*tar.Header{badCaps}, "not one of file capabilities"},
		{"a manifest later", []*tar.Header{reg("x", ""), reg(packedManifest, "")}, "belongs to moult"},
		{"a broken manifest", []*tar.Header{reg(packedManifest, "moult-manifest 1\n")}, "manifest: line 2"},
		{"a newer manifest", []*tar.Header{reg(packedManifest, "moult-manifest 9\nx\n")}, ErrNewer.Error()},
		{"moult.toml as a link", []*tar.Header{reg("x", ""), other(tar.TypeSymlink, "moult.toml", "/etc/shadow")}, `"moult.toml": not a file`},
		{"a broken moult.toml", []*tar.Header{reg("x", ""), reg("moult.toml", "\nx = 1")}, `moult.toml:2: "x" is not known`},
	} {
		opt := spooled(t, Options{Stdin: bytes.NewReader(tarOf(t, c.members...))})
		r, err := Open(context.Background(), "-", opt)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.HasPrefix(err.Error(), "release standard input: ") {
			t.Errorf("%s: got %v %v, want an error with %q", c.what, r, err, c.want)
		}
		if left := must(os.ReadDir(opt.SpoolDir))(t); len(left) > 0 {
			t.Errorf("%s: the refusal has left %v", c.what, left)
		}
	}
}

// TestTarPackedLies: a manifest that does not fit the bytes behind it.
func TestTarPackedLies(t *testing.T) {
	digest := func(s string) Digest { // of a file of the release
		r := open(t, "-", Options{Stdin: bytes.NewReader(tarOf(t, reg("x", s)))})
		return entry(t, r, "x").Digest
	}
	m := &Manifest{Entries: []Entry{{Path: "b", Type: File, Size: 3, Digest: digest("one")}}}
	with := func(members ...*tar.Header) error {
		members = append([]*tar.Header{reg(packedManifest, string(m.Encode()))}, members...)
		_, err := Open(context.Background(), "-", Options{Stdin: bytes.NewReader(tarOf(t, members...))})
		return err
	}
	try(t, with(reg("b", "one")))
	for _, c := range []struct {
		err  error
		want string
	}{
		{with(reg("b", "two")), `"b": its bytes are not those that the manifest names`},
		{with(reg("b", "one!")), `"b": its bytes are not those`},
		{with(other(tar.TypeSymlink, "b", "one")), `"b": its bytes are not those`},
		{with(reg("b", "one"), reg("c", "one")), `"c" is not in its manifest`},
		{with(reg("b", "one"), reg("a", "one")), `"a" is not in its manifest`},
		{with(reg("c", "one")), `"b" is in the manifest, but not in the archive`},
		{with(reg("b", "one"), reg("moult.toml", "")), `"moult.toml" is not in its manifest`},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("got %v, want %q", c.err, c.want)
		}
	}
}

// TestTarTruncated cuts an archive everywhere.
func TestTarTruncated(t *testing.T) {
	plain := tarOf(t, reg("a", "content"), reg("zeros", strings.Repeat("\x00", 2048)), other(tar.TypeSymlink, "b", "c"))
	var zipped bytes.Buffer
	gz := gzip.NewWriter(&zipped)
	gz.Write(plain)
	try(t, gz.Close())
	for i := range plain {
		if n := i % 512; n > 1 && n < 511 && n != 200 {
			continue
		}
		_, err := Open(context.Background(), "-", Options{Stdin: bytes.NewReader(plain[:i])})
		if whole := i == len(plain)-512; whole != (err == nil) {
			t.Errorf("plain, cut after %d of %d bytes: got %v", i, len(plain), err)
		}
	}
	for i := range zipped.Len() {
		if _, err := Open(context.Background(), "-", Options{Stdin: bytes.NewReader(zipped.Bytes()[:i])}); err == nil {
			t.Errorf("gzip, cut after %d of %d bytes: nothing is seen", i, zipped.Len())
		}
	}
	for _, b := range [][]byte{nil, []byte("#!/bin/sh\n"), bytes.Repeat([]byte("x"), 4096), []byte("\xfd7zXZ\x00..")} {
		if r, err := Open(context.Background(), "-", Options{Stdin: bytes.NewReader(b)}); err == nil {
			t.Errorf("%.20q: opened %v", b, r)
		}
	}
	if _, err := Open(context.Background(), "-", Options{}); err == nil {
		t.Error("no standard input: no error")
	}
}

// TestTarCancelled: a tar that never ends can be interrupted.
func TestTarCancelled(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	try(t, w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "x", Size: 1 << 40, Format: tar.FormatGNU}))
	ctx, cancel := context.WithCancel(context.Background())
	opt := spooled(t, Options{Stdin: io.MultiReader(&b, endless{}), OnProgress: func(_ int, n int64) {
		if n > 1<<20 {
			cancel()
		}
	}})
	if _, err := Open(ctx, "-", opt); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	if left := must(os.ReadDir(opt.SpoolDir))(t); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestTarFromFIFO: the shell's <(tar c …) is a path that cannot be sought in.
func TestTarFromFIFO(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	try(t, unix.Mkfifo(fifo, 0o600))
	b := tarOf(t, reg("tool", "x"))
	done := make(chan error)
	go func() { done <- os.WriteFile(fifo, b, 0) }()
	r := open(t, fifo, spooled(t, Options{}))
	try(t, <-done)
	sameBytesOf(t, r)
}

// TestSilentFIFO: nobody writes, and the reader is called off.
func TestSilentFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	try(t, unix.Mkfifo(path, 0o600))
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := Open(ctx, path, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was called off", err)
	}
}
