package release

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/zstd"
)

// maxWindow is how far back a frame may refer, and so what a decoder may take:
// what "zstd --long" needs. Ours have at most packWindow.
const (
	maxWindow  = 128 << 20
	packWindow = 8 << 20
)

var zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}

// decompress returns the plain bytes of what is compressed, judged by how it
// begins.
func decompress(in *bufio.Reader) (io.Reader, error) {
	start, err := in.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(start, []byte{0x1f, 0x8b}):
		d, err := gzip.NewReader(in)
		if err != nil {
			return nil, damage(err)
		}
		return damageReader{d}, nil
	case bytes.HasPrefix(start, []byte("BZh")):
		return damageReader{bzip2.NewReader(in)}, nil
	case bytes.HasPrefix(start, zstdMagic) || len(start) >= 4 && start[0]>>4 == 5 && bytes.Equal(start[1:4], []byte{0x2a, 0x4d, 0x18}):
		d, err := newDecoder(in, maxWindow)
		if err != nil {
			return nil, damage(err)
		}
		return damageReader{d}, nil
	case bytes.HasPrefix(start, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return nil, errors.New("it is compressed with xz, which moult does not read: decompress it first")
	}
	return in, nil
}

// A damageReader says what an error of a decoder means: that is in the words of a
// format which nobody has heard of.
type damageReader struct{ io.Reader }

func (d damageReader) Read(b []byte) (int, error) {
	n, err := d.Reader.Read(b)
	return n, damage(err)
}

func damage(err error) error {
	var path *fs.PathError // what is compressed cannot be read
	if err == nil || err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled) || errors.As(err, &path) {
		return err
	}
	return fmt.Errorf("the archive is damaged: %w", err)
}

// newDecoder returns a decoder that works in the goroutine which reads, so that
// it needs no closing.
func newDecoder(in io.Reader, window uint64) (*zstd.Decoder, error) {
	return zstd.NewReader(in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(window), zstd.WithDecodeBuffersBelow(0))
}
