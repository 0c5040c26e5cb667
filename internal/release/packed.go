package release

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// A packed release is a tar, compressed with zstd, that "tar --zstd" lists and
// unpacks like any other. Each member is a frame of its own, so that one can be
// read without the others: first .moult/manifest, then the entries in the order
// of the manifest, then the end of the tar. Last comes a skippable frame, which
// decoders pass over, with the index:
//
//	"moult-index 1\n"
//	number of frames, length of each in bytes (as uvarints)
//	SHA-256 of the index up to here
//	length of all this in bytes, 4 bytes little-endian
//	"moultidx"
const (
	indexMagic  = "moult-index "
	indexEnd    = "moultidx"
	indexFrame  = 0x184D2A5D // one of the 16 numbers of skippable frames
	indexTail   = sha256.Size + 4 + len(indexEnd)
	frameHeader = 8 // of a skippable frame: its number, and the length of what it holds
)

var (
	errIndex   = errors.New("its index is damaged")
	errNoIndex = errors.New("it is truncated: the index at its end is missing")
)

// openWhole is os.Open that can be called off: open(2) of a FIFO waits until
// somebody writes to it. Who is called off leaves a goroutine that waits on.
func openWhole(ctx context.Context, path string) (*os.File, error) {
	type result struct {
		f   *os.File
		err error
	}
	done := make(chan result, 1)
	go func() {
		f, err := os.Open(path)
		done <- result{f, err}
	}()
	select {
	case r := <-done:
		return r.f, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// openFile opens a packed file or a tar.
func openFile(ctx context.Context, path string, opt Options) (*Release, error) {
	f, err := openWhole(ctx, path)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() {
		// A FIFO, such as the shell's <(…), is read as it comes.
		defer f.Close()
		if err != nil {
			return nil, err
		}
		return openStream(ctx, f, path, opt)
	}
	r, err := openPacked(f, fi.Size(), f)
	if errors.Is(err, errNoIndex) {
		defer f.Close()
		r, err := openStream(ctx, f, path, opt)
		if err == nil && r.packed {
			return nil, errors.Join(errNoIndex, r.Close())
		}
		return r, err
	}
	if err == nil {
		err = packedOptions(r.Manifest, opt)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return r, nil
}

// openPacked opens a packed file; errNoIndex if it is something else.
func openPacked(in io.ReaderAt, size int64, closer io.Closer) (*Release, error) {
	p := &packedSource{in: in, closer: closer}
	if err := p.readIndex(size); err != nil {
		return nil, err
	}
	m, err := p.manifest()
	if err != nil {
		return nil, err
	}
	if want := len(m.Entries) + 2; len(p.offsets) != want+1 {
		return nil, fmt.Errorf("%w: %d frames for %d entries", errIndex, len(p.offsets)-1, len(m.Entries))
	}
	if !slices.ContainsFunc(m.Entries, func(e Entry) bool { return e.Type != Dir }) {
		return nil, errEmpty
	}
	p.m = m
	return &Release{Manifest: m, source: p, packed: true}, nil
}

// packedSource reads the members of a packed file.
type packedSource struct {
	in       io.ReaderAt
	closer   io.Closer
	m        *Manifest
	offsets  []int64 // where each frame begins, and where the last ends
	decoders sync.Pool
}

// readIndex reads the lengths of the frames from the end of the file.
func (p *packedSource) readIndex(size int64) error {
	var end [4 + len(indexEnd)]byte
	if size < int64(frameHeader+len(indexMagic)+indexTail) {
		return errNoIndex
	}
	if _, err := p.in.ReadAt(end[:], size-int64(len(end))); err != nil {
		return err
	}
	if string(end[4:]) != indexEnd {
		return errNoIndex
	}
	n := int64(binary.LittleEndian.Uint32(end[:]))
	if n < int64(len(indexMagic)+indexTail) || n > size-frameHeader || n > 10*maxEntries {
		return errIndex
	}
	b := make([]byte, frameHeader+n)
	at := size - int64(len(b))
	if _, err := p.in.ReadAt(b, at); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(b) != indexFrame || int64(binary.LittleEndian.Uint32(b[4:])) != n {
		return errIndex
	}
	return p.parseIndex(b[frameHeader:], at)
}

// parseIndex reads the index; end is where the last frame must end.
func (p *packedSource) parseIndex(b []byte, end int64) error {
	body := b[:len(b)-indexTail]
	line := 0
	for line < len(body) && body[line] != '\n' {
		line++
	}
	if err := checkFormat(string(body[:min(line, 40)]), indexMagic); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	if sum := sha256.Sum256(body); string(sum[:]) != string(b[len(body):][:sha256.Size]) || line == len(body) {
		return errIndex
	}
	r := indexReader{b: body[line+1:]}
	n := r.uvarint()
	if n < 2 || n > uint64(len(r.b)) || n > maxEntries+2 {
		return errIndex
	}
	p.offsets = make([]int64, n+1)
	for i := range n {
		length := r.uvarint()
		if r.bad || length == 0 || length > uint64(end-p.offsets[i]) {
			return errIndex
		}
		p.offsets[i+1] = p.offsets[i] + int64(length)
	}
	if p.offsets[n] != end || len(r.b) != 0 {
		return errIndex
	}
	return nil
}

// indexReader takes numbers from the front of b; once one is missing, bad.
type indexReader struct {
	b   []byte
	bad bool
}

func (r *indexReader) uvarint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (p *packedSource) manifest() (*Manifest, error) {
	f, hdr, err := p.member(0)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	defer f.Close()
	if hdr.Name != packedManifest {
		return nil, fmt.Errorf("%w: the first member is not the manifest", errIndex)
	}
	m, err := readManifest(f, hdr.Size)
	if err != nil {
		return nil, err
	}
	// Nothing else tells that the manifest is undamaged: the checksum at the
	// end of its frame, after what pads the member.
	if n, err := io.CopyN(io.Discard, f.decoder, 513); err != io.EOF {
		return nil, fmt.Errorf("manifest: %w: %d bytes follow it, %v", errIndex, n, err)
	}
	return m, nil
}

// open implements [source].
func (p *packedSource) open(e *Entry, i int) (io.ReadCloser, error) {
	if e.HardLink != "" {
		i = search(p.m.Entries, e.HardLink)
	}
	f, hdr, err := p.member(i + 1)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.Path, err)
	}
	if hdr.Name != p.m.Entries[i].Path || hdr.Typeflag != tar.TypeReg || hdr.Size != e.Size {
		f.Close()
		return nil, fmt.Errorf("%s: %w: another member is in its place", e.Path, errIndex)
	}
	return f, nil
}

// member opens a frame and reads the header of the member in it.
func (p *packedSource) member(frame int) (*packedFile, *tar.Header, error) {
	from, to := p.offsets[frame], p.offsets[frame+1]
	in := io.NewSectionReader(p.in, from, to-from)
	d, _ := p.decoders.Get().(*zstd.Decoder)
	var err error
	if d == nil {
		d, err = newDecoder(in, packWindow)
	} else {
		err = d.Reset(in)
	}
	if err != nil {
		return nil, nil, err
	}
	f := &packedFile{source: p, decoder: d, Reader: tar.NewReader(d)}
	hdr, err := f.Reader.Next()
	if err != nil {
		f.Close()
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, nil, damage(err)
	}
	return f, hdr, nil
}

// close implements [source].
func (p *packedSource) close() error {
	if p.closer == nil {
		return nil
	}
	return p.closer.Close()
}

// packedFile is the bytes of one member. A frame that is cut short is an
// io.ErrUnexpectedEOF.
type packedFile struct {
	*tar.Reader
	source  *packedSource
	decoder *zstd.Decoder
}

// Read says what is wrong with the frame, if it is.
func (f *packedFile) Read(b []byte) (int, error) {
	n, err := f.Reader.Read(b)
	return n, damage(err)
}

// Close gives the decoder back.
func (f *packedFile) Close() error {
	if f.decoder == nil {
		return nil
	}
	err := f.decoder.Reset(nil)
	if err == nil {
		f.source.decoders.Put(f.decoder)
	}
	f.decoder = nil
	return nil
}
