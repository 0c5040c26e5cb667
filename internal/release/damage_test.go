package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// TestDamageSaid: whatever a decoder finds wrong, the message says that it is the
// archive which is damaged.
func TestDamageSaid(t *testing.T) {
	var plain bytes.Buffer
	w := tar.NewWriter(&plain)
	content := make([]byte, 1<<20)
	rnd := rand.New(rand.NewPCG(7, 8))
	for i := range content {
		content[i] = byte(rnd.IntN(30)) // what can be compressed, but not to nothing
	}
	try(t, w.WriteHeader(&tar.Header{Name: "x", Mode: 0o644, Size: int64(len(content))}))
	_, err := w.Write(content)
	try(t, err)
	try(t, w.Close())
	var zipped, packed bytes.Buffer
	gz := gzip.NewWriter(&zipped)
	_, err = gz.Write(plain.Bytes())
	try(t, err)
	try(t, gz.Close())
	zst, err := zstd.NewWriter(&packed)
	try(t, err)
	_, err = zst.Write(plain.Bytes())
	try(t, err)
	try(t, zst.Close())
	for name, b := range map[string][]byte{"gzip": zipped.Bytes(), "zstd": packed.Bytes()} {
		for i := range 16 {
			b[len(b)/2+i] ^= 0xa5
		}
		_, err := Open(context.Background(), "-", Options{Stdin: bytes.NewReader(b)})
		if err == nil || !strings.Contains(err.Error(), "damaged") && !strings.Contains(err.Error(), "truncated") {
			t.Errorf("%s: got %v, want that the archive is damaged", name, err)
		}
	}

	own := smallPack(t)
	said := 0
	for i := range own {
		b := bytes.Clone(own)
		b[i] ^= 0x40
		p, err := openPacked(bytes.NewReader(b), int64(len(b)), nil)
		if err != nil {
			continue
		}
		for k := range p.Manifest.Entries {
			if e := &p.Manifest.Entries[k]; e.Type == File && e.HardLink == "" {
				f, err := p.OpenFile(e)
				if err == nil {
					_, err = io.Copy(io.Discard, f)
					f.Close()
				}
				if err != nil && strings.Contains(err.Error(), "damaged") {
					said++
				}
			}
		}
	}
	if said == 0 {
		t.Error("no change of a packed file is called a damage")
	}
}
