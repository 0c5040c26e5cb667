package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// file is the real [File].
type file struct {
	cloned bool
	f      *os.File // blocking, so that no runtime poller gets in the way
}

func newFile(fd int, path string) *file {
	return &file{f: os.NewFile(uintptr(fd), path)}
}

func (f *file) fd() int { return int(f.f.Fd()) }

func (f *file) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: f.f.Name(), Err: err}
}

// Write implements [File].
func (f *file) Write(p []byte) (int, error) { return f.f.Write(p) }

// WriteAt implements [File].
func (f *file) WriteAt(p []byte, off int64) (int, error) { return f.f.WriteAt(p, off) }

// Truncate implements [File].
func (f *file) Truncate(size int64) error { return f.f.Truncate(size) }

// Lock implements [File].
func (f *file) Lock() error {
	return f.wrap("lock", unix.Flock(f.fd(), unix.LOCK_EX|unix.LOCK_NB))
}

// StartSync implements [File].
func (f *file) StartSync() {
	if f.cloned {
		return
	}
	unix.SyncFileRange(f.fd(), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}

// SetMeta implements [File].
func (f *file) SetMeta(m Meta) error { return f.wrap("setmeta", setMetaFd(f.fd(), m)) }

// Sync implements [File].
func (f *file) Sync() error { return f.f.Sync() }

// Close implements [File].
func (f *file) Close() error { return f.f.Close() }

// CopyFrom implements [File].
func (f *file) CopyFrom(src *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	if done, err := f.clone(src, size); done {
		return err
	}
	// A file without holes answers size to SEEK_HOLE: one call, and it is known.
	for off := int64(0); off < size; {
		data, err := unix.Seek(int(src.Fd()), off, unix.SEEK_DATA)
		if err == unix.ENXIO {
			break // a hole up to the end
		}
		if err != nil || data < off {
			data, err = off, unix.EINVAL // cannot tell (procfs, /dev/zero, some FUSE): all data
		}
		hole := size
		if err == nil {
			if hole, err = unix.Seek(int(src.Fd()), data, unix.SEEK_HOLE); err != nil {
				hole = size
			}
		}
		if data >= size {
			break
		}
		if err := f.copyRange(src, data, min(hole, size)); err != nil {
			return err
		}
		off = hole
	}
	return f.finishCopy(src, size)
}

// clone shares all blocks of src. It says done if nothing is left to do, in
// success or failure.
func (f *file) clone(src *os.File, size int64) (done bool, err error) {
	if err := unix.IoctlFileClone(f.fd(), int(src.Fd())); err != nil {
		return false, nil
	}
	f.cloned = true
	return true, f.finishCopy(src, size)
}

// finishCopy makes the file size bytes long, unless src was shorter.
func (f *file) finishCopy(src *os.File, size int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(src.Fd()), &st); err != nil {
		return f.wrap("stat", err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size < size {
		return f.wrap("copy", io.ErrUnexpectedEOF)
	}
	var mine unix.Stat_t
	if err := unix.Fstat(f.fd(), &mine); err == nil && mine.Size == size {
		// XFS would zero the end of the last block, which is shared no longer then.
		return nil
	}
	return f.Truncate(size)
}

// copyRange copies one stretch of data to the same offsets.
func (f *file) copyRange(src *os.File, from, to int64) error {
	for from < to {
		in, out := from, from
		n, err := unix.CopyFileRange(int(src.Fd()), &in, f.fd(), &out, int(min(to-from, 1<<30)), 0)
		switch {
		case err == unix.EINTR:
			continue
		case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || errors.Is(err, unix.EIO) || errors.Is(err, unix.EFBIG):
			return f.wrap("copy", err)
		case err != nil || n == 0:
			// Across file systems before 5.19, procfs (which answers 0), or a
			// source that has shrunk: reading tells which.
			return f.readRange(src, from, to)
		}
		from += int64(n)
	}
	return nil
}

func (f *file) readRange(src *os.File, from, to int64) error {
	n, err := io.Copy(&offsetWriter{f.f, from}, io.NewSectionReader(src, from, to-from))
	if err == nil && n < to-from {
		err = f.wrap("copy", io.ErrUnexpectedEOF)
	}
	return err
}

// offsetWriter writes one piece after the other from an offset on, without a
// ReadFrom that io.Copy would prefer.
type offsetWriter struct {
	f   *os.File
	off int64
}

func (w *offsetWriter) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.off)
	w.off += int64(n)
	return n, err
}
