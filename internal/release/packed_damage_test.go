package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func smallPack(t testing.TB) []byte {
	root := t.TempDir()
	write(t, root, "a/tool", "tool", 0o755)
	write(t, root, "b\xff", strings.Repeat("zeros and more", 100), 0o644)
	try(t, os.Symlink("tool", filepath.Join(root, "a/link")))
	try(t, os.Link(filepath.Join(root, "a/tool"), filepath.Join(root, "c")))
	r := open(t, root, Options{})
	for i := range r.Manifest.Entries {
		r.Manifest.Entries[i].MTime = 0
	}
	return pack(t, r, PackOptions{})
}

// readPacked opens packed bytes as a file, reads what is in it, and returns the
// manifest.
func readPacked(b []byte) (string, error) {
	r, err := openPacked(bytes.NewReader(b), int64(len(b)), nil)
	if err != nil {
		return "", err
	}
	for i := range r.Manifest.Entries {
		e := &r.Manifest.Entries[i]
		if e.Type != File || e.Size > 1<<20 {
			continue
		}
		f, err := r.OpenFile(e)
		if err != nil {
			return "", err
		}
		h := sha256.New()
		_, err = io.Copy(h, f)
		f.Close()
		if err != nil {
			return "", err
		}
		if Digest(h.Sum(nil)) != e.Digest {
			return "", errDigest
		}
	}
	return string(r.Manifest.Encode()), nil
}

// TestPackedDamaged cuts and changes a packed file everywhere: that is seen, at
// the latest by the digest of a file, or it changes nothing (there are bits in a
// frame's header that say nothing, and headers of members are for tar).
func TestPackedDamaged(t *testing.T) {
	b := smallPack(t)
	text, err := readPacked(b)
	try(t, err)
	dir := t.TempDir()
	for i := range b {
		damaged := slices.Clone(b)
		damaged[i] ^= 1
		if got, err := readPacked(damaged); err == nil && got != text {
			t.Errorf("byte %d of %d changed: got the manifest\n%s", i, len(b), got)
		}
		if r, err := Open(context.Background(), "-", Options{Stdin: bytes.NewReader(damaged)}); err == nil && string(r.Manifest.Encode()) != text {
			t.Errorf("byte %d of %d changed: got from a stream\n%s", i, len(b), r.Manifest.Encode())
		}
		if _, err := readPacked(b[:i]); err == nil {
			t.Errorf("cut after %d of %d bytes: nothing is seen", i, len(b))
		}
		if i%9 != 0 {
			continue
		}
		p := filepath.Join(dir, "p")
		try(t, os.WriteFile(p, b[:i], 0o600))
		if r, err := Open(context.Background(), p, Options{}); err == nil {
			t.Errorf("cut after %d of %d bytes: opened %v", i, len(b), r)
		}
		r, err := Open(context.Background(), "-", Options{Stdin: bytes.NewReader(b[:i])})
		if end := indexStart(b); err == nil && i != end {
			t.Errorf("cut after %d of %d bytes, read from a stream: opened %v", i, len(b), r)
		}
	}
}

// TestPackedManifestDamaged does the same to a manifest of many blocks.
func TestPackedManifestDamaged(t *testing.T) {
	m := &Manifest{}
	for i := range 5000 {
		m.Entries = append(m.Entries, Entry{Path: fmt.Sprintf("%06d", i), Type: Dir, Mode: uint32(i*i) & 0o777})
	}
	m.Entries = append(m.Entries, Entry{Path: "x", Type: Symlink, Text: "y"})
	r, err := FromFS(fstest.MapFS{}, m)
	try(t, err)
	b := pack(t, r, PackOptions{})
	p := &packedSource{in: bytes.NewReader(b)}
	try(t, p.readIndex(int64(len(b))))
	end := int(p.offsets[1])
	for i := 1; i < end; i += end / 30 {
		at := end - i
		b[at] ^= 4
		if got, err := openPacked(bytes.NewReader(b), int64(len(b)), nil); err == nil && !reflect.DeepEqual(got.Manifest, m) {
			t.Errorf("byte %d of %d changed: the manifest is another", at, end)
		}
		b[at] ^= 4
	}
}

func indexStart(b []byte) int {
	return len(b) - frameHeader - int(binary.LittleEndian.Uint32(b[len(b)-12:]))
}

// TestPackedRefused joins the frames of a packed file in other ways.
func TestPackedRefused(t *testing.T) {
	b := smallPack(t)
	p := &packedSource{in: bytes.NewReader(b)}
	try(t, p.readIndex(int64(len(b))))
	var frames [][]byte
	for i := range len(p.offsets) - 1 {
		frames = append(frames, b[p.offsets[i]:p.offsets[i+1]])
	}
	join := func(frames ...[]byte) []byte {
		pk := &packer{}
		var out []byte
		for _, f := range frames {
			out = append(out, f...)
			pk.frames = append(pk.frames, int64(len(f)))
		}
		return append(out, pk.index()...)
	}
	if !bytes.Equal(join(frames...), b) {
		t.Fatal("the frames, joined again, are not the packed file")
	}
	for _, c := range []struct {
		what string
		b    []byte
		want string
	}{
		{"nothing", nil, errNoIndex.Error()},
		{"no frames", join(), errIndex.Error()},
		{"a frame less", join(frames[:len(frames)-1]...), errIndex.Error()},
		{"a frame more", join(append(slices.Clone(frames), frames[0])...), errIndex.Error()},
		{"two frames exchanged", join(frames[0], frames[1], frames[3], frames[2], frames[4], frames[5], frames[6]), "another member"},
		{"no manifest", join(frames[1], frames[1], frames[2], frames[3], frames[4], frames[5], frames[6]), "not the manifest"},
		{"bytes before", append([]byte("x"), b...), errIndex.Error()},
		{"a newer index", bytes.Replace(b, []byte("moult-index 1"), []byte("moult-index 2"), 1), ErrNewer.Error()},
		{"a long index", append(slices.Clone(b[:len(b)-12]), "\xff\xff\xff\xffmoultidx"...), errIndex.Error()},
	} {
		if _, err := readPacked(c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.what, err, c.want)
		}
	}
}

func TestPackedEmpty(t *testing.T) {
	r, err := FromFS(fstest.MapFS{}, &Manifest{Entries: []Entry{{Path: "a", Type: Dir, Mode: 0o755}}})
	try(t, err)
	if _, err := readPacked(pack(t, r, PackOptions{})); err != errEmpty {
		t.Errorf("got %v, want %v", err, errEmpty)
	}
}

func FuzzPacked(f *testing.F) {
	b := smallPack(f)
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add(b[:indexStart(b)])
	f.Fuzz(func(t *testing.T, b []byte) {
		readPacked(b)
		r, err := Open(context.Background(), "-", Options{Stdin: bytes.NewReader(b)})
		if err == nil {
			if err := r.Manifest.Check(); err != nil {
				t.Fatalf("opened, but: %v", err)
			}
			r.Close()
		}
	})
}
