package deploy

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

// errSourceChanged is why a copy is thrown away.
var errSourceChanged = errors.New("changed while it was read")

// openSource opens a file to be installed, which may be a FIFO or a device too.
// A FIFO without a writer waits for one, until the context ends.
func openSource(ctx context.Context, path string, regular bool) (*os.File, error) {
	if regular {
		// Without Go's poller, which has no use for a regular file.
		for {
			fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err == nil {
				return os.NewFile(uintptr(fd), path), nil
			}
			if err != unix.EINTR {
				return nil, &fs.PathError{Op: "open", Path: path, Err: err}
			}
		}
	}
	type opened struct {
		f   *os.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := os.Open(path)
		done <- opened{f, err}
	}()
	select {
	case o := <-done:
		return o.f, o.err
	case <-ctx.Done():
		return nil, ctx.Err() // the goroutine ends with the process
	}
}

// copySource fills a new file from a source. A regular file that changes in the
// meantime is an error: what was read is neither the old nor the new.
func copySource(ctx context.Context, f disk.File, src *os.File) error {
	before, err := statOpen(src)
	if err != nil {
		return err
	}
	if before.Mode&unix.S_IFMT != unix.S_IFREG {
		return copyStream(ctx, f, src)
	}
	err = f.CopyFrom(src, before.Size)
	short := errors.Is(err, io.ErrUnexpectedEOF)
	if err != nil && !short {
		return err
	}
	after, err := statOpen(src)
	switch {
	case err != nil:
		return err
	case isWritten(&before, &after):
		return &fs.PathError{Op: "read", Path: src.Name(), Err: errSourceChanged}
	case short, before.Size == 0:
		// procfs says 0 and sysfs 4096, whatever there is to read.
		if err := f.Truncate(0); err != nil {
			return err
		}
		return copyPseudo(f, src)
	}
	return nil
}

// statOpen is fstat(2) without Fd, which would make a FIFO blocking for good.
func statOpen(f *os.File) (st unix.Stat_t, err error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return st, err
	}
	if controlErr := conn.Control(func(fd uintptr) { err = unix.Fstat(int(fd), &st) }); controlErr != nil {
		return st, controlErr
	}
	if err != nil {
		err = &fs.PathError{Op: "stat", Path: f.Name(), Err: err}
	}
	return st, err
}

// isWritten says whether a file was written to between two looks at it. A new
// link or other permissions, which a build may give it at any time, change its
// ctime too, and do not count.
func isWritten(before, after *unix.Stat_t) bool {
	return before.Size != after.Size || before.Mtim != after.Mtim ||
		before.Ctim != after.Ctim && before.Nlink == after.Nlink && before.Mode == after.Mode &&
			before.Uid == after.Uid && before.Gid == after.Gid
}

func copyPseudo(f disk.File, src *os.File) error {
	if _, err := src.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyBuffer(writerOnly{f}, readerOnly{src}, make([]byte, 128<<10))
	return err
}

// copyStream copies what has no size. The end of the context ends a read that
// waits.
func copyStream(ctx context.Context, f disk.File, src *os.File) error {
	stop := context.AfterFunc(ctx, func() {
		src.SetReadDeadline(time.Unix(1, 0)) // a device that cannot wait refuses it, and needs it not
	})
	defer stop()
	_, err := io.CopyBuffer(writerOnly{f}, readerOnly{src}, make([]byte, 128<<10))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// writerOnly and readerOnly hide the shortcuts of io.Copy, which are splice(2)
// and the like on whatever hides in them.
type (
	writerOnly struct{ io.Writer }
	readerOnly struct{ io.Reader }
)
