package release

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"moult.example/internal/disk"
)

// spool keeps the bytes of a tar's members, as files with the names 1, 2, 3…
// They are not synced: they are read once more and then gone.
type spool struct {
	fs  disk.FS // nil keeps nothing
	dir string
	n   int // members so far
}

// keep reads the bytes of one file, and returns their number and digest.
func (s *spool) keep(ctx context.Context, in io.Reader, e *Entry, buf []byte, p *progress) (int, Digest, error) {
	s.n++
	var out disk.File
	if s.fs != nil {
		var err error
		if out, err = s.fs.Create(strconv.Itoa(s.n)); err != nil {
			return 0, Digest{}, err
		}
	}
	d, err := s.copy(ctx, out, in, e, buf, p)
	if out != nil {
		err = errors.Join(err, out.Close())
	}
	p.add(1, 0)
	return s.n, d, err
}

// copy writes the bytes, but for the blocks of zeros of a sparse file, and
// returns their digest.
func (s *spool) copy(ctx context.Context, out disk.File, in io.Reader, e *Entry, buf []byte, p *progress) (d Digest, err error) {
	h := sha256.New()
	var off int64
	for {
		if err := ctx.Err(); err != nil {
			return d, err
		}
		n, err := io.ReadFull(in, buf)
		h.Write(buf[:n])
		p.add(0, int64(n))
		if out != nil && !(e.Sparse && isZero(buf[:n])) {
			if _, err := out.WriteAt(buf[:n], off); err != nil {
				return d, err
			}
		}
		off += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF && off == e.Size {
			break
		}
		if err != nil {
			return d, err
		}
	}
	if off != e.Size {
		return d, io.ErrUnexpectedEOF
	}
	if out != nil && e.Sparse {
		err = out.Truncate(e.Size)
	}
	return Digest(h.Sum(nil)), err
}

var zeros [4096]byte

func isZero(b []byte) bool {
	for len(b) > len(zeros) {
		if !bytes.Equal(b[:len(zeros)], zeros[:]) {
			return false
		}
		b = b[len(zeros):]
	}
	return bytes.Equal(b, zeros[:len(b)])
}

// close removes what was kept.
func (s *spool) close() error {
	if s.fs == nil {
		return nil
	}
	var errs []error
	for ; s.n > 0; s.n-- {
		if err := s.fs.Remove(strconv.Itoa(s.n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// spoolSource reads what a spool has kept.
type spoolSource struct {
	spool *spool
	files []int // of the entries
}

func (s *spoolSource) open(e *Entry, i int) (io.ReadCloser, error) {
	if s.spool.fs == nil {
		return nil, fmt.Errorf("%s: %w", e.Path, ErrNoBytes)
	}
	return os.Open(filepath.Join(s.spool.dir, strconv.Itoa(s.files[i])))
}

func (s *spoolSource) close() error { return s.spool.close() }
