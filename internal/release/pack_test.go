package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/testneed"
)

func pack(t testing.TB, r *Release, opt PackOptions) []byte {
	t.Helper()
	var b bytes.Buffer
	try(t, Pack(context.Background(), r, &b, opt))
	return b.Bytes()
}

// packFile packs a release into a file of its own.
func packFile(t testing.TB, r *Release) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "tool.moult")
	try(t, os.WriteFile(p, pack(t, r, PackOptions{}), 0o644))
	return p
}

// spooled is the options with a fresh place to unpack to.
func spooled(t testing.TB, opt Options) Options {
	t.Helper()
	opt.SpoolDir = t.TempDir()
	root, err := disk.Open(opt.SpoolDir)
	try(t, err)
	t.Cleanup(func() { root.Close() })
	opt.Spool = root
	return opt
}

// sameBytesOf reads every file of the release, and compares its digest.
func sameBytesOf(t *testing.T, r *Release) {
	t.Helper()
	for i := range r.Manifest.Entries {
		e := &r.Manifest.Entries[i]
		if e.Type != File {
			continue
		}
		f, err := r.OpenFile(e)
		try(t, err)
		h := sha256.New()
		n, err := io.Copy(h, f)
		if err != nil || n != e.Size || Digest(h.Sum(nil)) != e.Digest {
			t.Errorf("%q: read %d bytes of %d, %v", e.Path, n, e.Size, err)
		}
		try(t, f.Close())
	}
}

func TestPack(t *testing.T) {
	root := nastyTree(t)
	dir := open(t, root, Options{Times: true, Name: "tool", Version: "1", Owners: OwnersNumbers})
	p := packFile(t, dir)
	for what, r := range map[string]*Release{
		"file":   open(t, p, Options{}),
		"stream": open(t, "-", spooled(t, Options{Stdin: must(os.Open(p))(t)})),
		"again":  open(t, packFile(t, open(t, p, Options{})), Options{}),
	} {
		if r.Manifest.ID() != dir.Manifest.ID() || !reflect.DeepEqual(r.Manifest, dir.Manifest) {
			t.Errorf("%s: got %+v, want %+v", what, r.Manifest, dir.Manifest)
		}
		sameBytesOf(t, r)
		readsAt(t, r, "big")
	}
	again := pack(t, open(t, root, Options{Times: true, Name: "tool", Version: "1", Owners: OwnersNumbers}), PackOptions{})
	if b := must(os.ReadFile(p))(t); !bytes.Equal(again, b) {
		t.Errorf("packed twice, it is %d and %d other bytes", len(b), len(again))
	}
	if small := pack(t, dir, PackOptions{Level: 19}); len(small) > len(again) {
		t.Errorf("level 19 is %d bytes, the default %d", len(small), len(again))
	}
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		try(t, err)
		return v
	}
}

// TestPackForTar: the system's tar lists and unpacks a packed release.
func TestPackForTar(t *testing.T) {
	tar := testneed.Tool(t, "tar")
	testneed.Tool(t, "zstd")
	root := nastyTree(t)
	r := open(t, root, Options{})
	p := packFile(t, r)
	out, err := exec.Command(tar, "--zstd", "--quoting-style=literal", "-tf", p).Output()
	try(t, err)
	want := packedManifest + "\n"
	for _, e := range r.Manifest.Entries {
		if want += e.Path; e.Type == Dir {
			want += "/"
		}
		want += "\n"
	}
	if string(out) != want {
		t.Errorf("tar lists %q, want %q", out, want)
	}

	to := t.TempDir()
	if out, err := exec.Command(tar, "--zstd", "-xpf", p, "-C", to).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	text := must(os.ReadFile(filepath.Join(to, packedManifest)))(t)
	if !bytes.Equal(text, r.Manifest.Encode()) {
		t.Errorf("tar unpacks another manifest: %s", text)
	}
	try(t, os.RemoveAll(filepath.Join(to, Own)))
	got := open(t, to, Options{})
	for i := range got.Manifest.Entries {
		e, want := &got.Manifest.Entries[i], r.Manifest.Entries[i]
		want.Sparse, e.Sparse = false, false
		if want.Type == Dir {
			// tar sets the time of "bin" when it comes to "bin-extra", and then
			// makes "bin/tool" (see its --delay-directory-restore).
			want.MTime, e.MTime = 0, 0
		}
		if want.Owner == "" {
			want.Mode &^= 0o6000 // nobody said whose privilege that would be
		}
		if !reflect.DeepEqual(*e, want) {
			t.Errorf("tar unpacks %+v, want %+v", *e, want)
		}
	}
	if len(got.Manifest.Entries) != len(r.Manifest.Entries) {
		t.Errorf("tar unpacks %d entries, want %d", len(got.Manifest.Entries), len(r.Manifest.Entries))
	}
}

func TestPackXattrs(t *testing.T) {
	testneed.Root(t)
	root := t.TempDir()
	file := write(t, root, "bin/tool", "x", 0o755)
	try(t, unix.Setxattr(file, "user.a=b%c", []byte("1\x00\n="), 0))
	try(t, unix.Setxattr(file, xattrCaps, []byte(mustCaps("cap_kill=ep")), 0))
	r := open(t, root, Options{Owners: OwnersNumbers})
	p := packFile(t, r)
	got := open(t, p, Options{})
	if !reflect.DeepEqual(got.Manifest, r.Manifest) {
		t.Errorf("got %+v, want %+v", got.Manifest, r.Manifest)
	}
	to := t.TempDir()
	testneed.Tool(t, "zstd")
	out, err := exec.Command(testneed.Tool(t, "tar"), "--zstd", "--xattrs", "--xattrs-include=*", "-xpf", p, "-C", to, "bin").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got := open(t, to, Options{Owners: OwnersNumbers}); !reflect.DeepEqual(got.Manifest, r.Manifest) {
		t.Errorf("tar unpacks %+v, want %+v", got.Manifest, r.Manifest)
	}
}

// TestPackRealTree packs some hundred files of this system.
func TestPackRealTree(t *testing.T) {
	var root string
	for _, pattern := range []string{"/usr/lib/*/perl-base", "/usr/lib64/perl5", "/usr/lib/git-core", "/usr/share/zoneinfo"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 {
			root = found[0]
			break
		}
	}
	if root == "" {
		testneed.Skip(t, "there is no tree to pack")
	}
	r := open(t, root, Options{})
	got := open(t, packFile(t, r), Options{})
	if !reflect.DeepEqual(got.Manifest, r.Manifest) {
		t.Error("the packed release has another manifest")
	}
	sameBytesOf(t, got)
	t.Logf("%s: %d entries", root, len(r.Manifest.Entries))
}

// TestPackedCannotBeChanged: options that would make it another release.
func TestPackedCannotBeChanged(t *testing.T) {
	p := packFile(t, open(t, nastyTree(t), Options{Name: "tool"}))
	for _, opt := range []Options{
		{Name: "other"}, {Version: "1"}, {Times: true}, {Owners: OwnersNames}, {Config: write(t, t.TempDir(), "c", "", 0o600)},
	} {
		if _, err := Open(context.Background(), p, opt); err == nil || !strings.Contains(err.Error(), "a packed release is what its manifest says") {
			t.Errorf("%+v: got %v, want a refusal", opt, err)
		}
		opt.Stdin = must(os.Open(p))(t)
		if _, err := Open(context.Background(), "-", opt); err == nil || !strings.Contains(err.Error(), "a packed release is what its manifest says") {
			t.Errorf("%+v from a stream: got %v, want a refusal", opt, err)
		}
	}
	// The one beside it is not for it.
	write(t, filepath.Dir(p), "moult.toml", "name = 'beside'", 0o600)
	if r := open(t, p, Options{Name: "tool"}); r.Manifest.Name != "tool" {
		t.Errorf("got the name %s, want tool", r.Manifest.Name)
	}
}

// TestPackSourceChanges: a file that is not what the manifest says is named.
func TestPackSourceChanges(t *testing.T) {
	root := nastyTree(t)
	r := open(t, root, Options{})
	r.Manifest.Find("bin/setuid").Digest[0] ^= 1
	if err := Pack(context.Background(), r, io.Discard, PackOptions{}); err == nil || err.Error() != "bin/setuid: "+errDigest.Error() {
		t.Errorf("got %v, want %v", err, errDigest)
	}
	r = open(t, root, Options{})
	write(t, root, "bin/setuid", "other!", 0o755)
	if err := Pack(context.Background(), r, io.Discard, PackOptions{}); !errors.Is(err, errChanged) {
		t.Errorf("got %v, want %v", err, errChanged)
	}
	full := errors.New("no space")
	r = open(t, root, Options{})
	if err := Pack(context.Background(), r, limitWriter{full}, PackOptions{}); !errors.Is(err, full) {
		t.Errorf("got %v, want %v", err, full)
	}
}

type limitWriter struct{ err error }

func (l limitWriter) Write([]byte) (int, error) { return 0, l.err }

func BenchmarkPack5000(b *testing.B) {
	r, err := Open(context.Background(), makeTree(b, 5000), Options{})
	try(b, err)
	defer r.Close()
	for b.Loop() {
		try(b, Pack(context.Background(), r, io.Discard, PackOptions{}))
	}
}

func BenchmarkPackBig(b *testing.B) {
	root := b.TempDir()
	for i := range 4 {
		write(b, root, fmt.Sprint(i), strings.Repeat(fmt.Sprintf("%d some text, and more %d", i, i*i), 1<<20), 0o644)
	}
	r, err := Open(context.Background(), root, Options{})
	try(b, err)
	defer r.Close()
	b.SetBytes(4 * 26 << 20)
	for b.Loop() {
		try(b, Pack(context.Background(), r, io.Discard, PackOptions{}))
	}
}
