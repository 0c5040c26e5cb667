package release

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/klauspost/compress/zstd"
)

// PackOptions say how to pack a release. The zero value is right for use.
type PackOptions struct {
	Level int // of zstd, 1 to 22; 0 is 3

	// OnProgress is told how many files and bytes have been packed so far. nil
	// tells nobody.
	OnProgress func(files int, bytes int64)
}

// Pack writes the release as one packed file, after completing its digests. The
// same release is always the same bytes, if packed by the same moult. Every file
// is compared with its digest on the way. It does not close w.
func Pack(ctx context.Context, r *Release, w io.Writer, opt PackOptions) error {
	if err := r.Complete(ctx); err != nil {
		return err
	}
	if err := r.Manifest.Check(); err != nil {
		return err
	}
	if opt.Level == 0 {
		opt.Level = 3
	}
	p := &packer{r: r, progress: progress{report: opt.OnProgress}, buf: make([]byte, 256<<10)}
	p.out.w = w
	var err error
	p.enc, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(packWindow),
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(opt.Level)), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return err
	}
	defer p.enc.Close()
	return p.pack(ctx)
}

type packer struct {
	r        *Release
	out      countWriter
	enc      *zstd.Encoder
	tar      *tar.Writer
	frames   []int64 // their lengths
	progress progress
	buf      []byte
}

type countWriter struct {
	w io.Writer
	n int64
}

func (c *countWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

func (p *packer) pack(ctx context.Context) error {
	p.tar = tar.NewWriter(p.enc)
	text := p.r.Manifest.Encode()
	if len(text) > maxManifest {
		return fmt.Errorf("a manifest of %d bytes is too large", len(text))
	}
	err := p.frame(func() error {
		hdr := &tar.Header{Typeflag: tar.TypeReg, Name: packedManifest, Mode: 0o644, Size: int64(len(text)), ModTime: time.Unix(0, 0)}
		return p.write(ctx, hdr, bytes.NewReader(text), nil)
	})
	if err != nil {
		return err
	}
	for i := range p.r.Manifest.Entries {
		e := &p.r.Manifest.Entries[i]
		if err := p.frame(func() error { return p.entry(ctx, e, i) }); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	if err := p.frame(p.tar.Close); err != nil {
		return err
	}
	_, err = p.out.Write(p.index())
	return err
}

// frame runs write, whose output becomes one frame.
func (p *packer) frame(write func() error) error {
	start := p.out.n
	p.enc.Reset(&p.out)
	if err := write(); err != nil {
		return err
	}
	if err := p.enc.Close(); err != nil {
		return err
	}
	p.frames = append(p.frames, p.out.n-start)
	return nil
}

// entry writes the member of an entry.
func (p *packer) entry(ctx context.Context, e *Entry, i int) error {
	hdr := header(e)
	if e.Type != File || e.HardLink != "" {
		return p.write(ctx, hdr, nil, nil)
	}
	f, err := p.r.source.open(e, i)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := p.write(ctx, hdr, f, &e.Digest); err != nil {
		return err
	}
	return p.r.Unchanged(e, f)
}

// write writes one member, whose bytes must have that digest.
func (p *packer) write(ctx context.Context, hdr *tar.Header, in io.Reader, want *Digest) error {
	if err := p.tar.WriteHeader(hdr); err != nil {
		return err
	}
	h := sha256.New()
	for off := int64(0); off < hdr.Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(in, p.buf[:min(int64(len(p.buf)), hdr.Size-off)])
		if err != nil {
			return err
		}
		if _, err := p.tar.Write(p.buf[:n]); err != nil {
			return err
		}
		h.Write(p.buf[:n])
		p.progress.add(0, int64(n))
		off += int64(n)
	}
	if want != nil {
		if Digest(h.Sum(nil)) != *want {
			return errDigest
		}
		p.progress.add(1, 0)
	}
	return p.tar.Flush()
}

var errDigest = fmt.Errorf("its bytes are not those of its digest")

// header makes the header of an entry, for those who unpack with tar(1): the
// manifest knows better.
func header(e *Entry) *tar.Header {
	hdr := &tar.Header{Format: tar.FormatPAX, Name: e.Path, Mode: int64(e.Mode), ModTime: time.Unix(0, e.MTime)}
	hdr.Uid, hdr.Uname = headerOwner(e.Owner)
	hdr.Gid, hdr.Gname = headerOwner(e.Group)
	if e.Owner == "" {
		// tar(1) run by root would make it root's: never a privilege that
		// nobody has asked for.
		hdr.Mode &^= 0o6000
	}
	switch {
	case e.Type == Dir:
		hdr.Typeflag, hdr.Name = tar.TypeDir, e.Path+"/"
	case e.Type == Symlink:
		hdr.Typeflag, hdr.Linkname, hdr.Mode = tar.TypeSymlink, e.Text, 0o777
	case e.HardLink != "":
		hdr.Typeflag, hdr.Linkname = tar.TypeLink, e.HardLink
	default:
		hdr.Typeflag, hdr.Size = tar.TypeReg, e.Size
	}
	for name, value := range e.Xattrs {
		if e.HardLink != "" || name == xattrCaps && e.Owner == "" {
			continue
		}
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords[paxXattr+paxEscape.Replace(name)] = value
	}
	return hdr
}

func headerOwner(name string) (int, string) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), ""
	}
	return 0, name
}

// index is the last frame.
func (p *packer) index() []byte {
	b := fmt.Appendf(nil, "%s%d\n", indexMagic, formatNumber)
	b = binary.AppendUvarint(b, uint64(len(p.frames)))
	for _, n := range p.frames {
		b = binary.AppendUvarint(b, uint64(n))
	}
	sum := sha256.Sum256(b)
	b = append(b, sum[:]...)
	n := uint32(len(b) + 4 + len(indexEnd))
	b = append(binary.LittleEndian.AppendUint32(b, n), indexEnd...)
	head := binary.LittleEndian.AppendUint32(nil, indexFrame)
	return append(binary.LittleEndian.AppendUint32(head, n), b...)
}
