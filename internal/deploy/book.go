package deploy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// largestBook is more than any book of ours has: 100,000 files make a manifest of
// some 15 MB.
const largestBook = 1 << 30

// openBook opens a book of ours to be read. Whatever else somebody has put under
// its name is no book, a link to one neither: a FIFO would make us wait for a
// writer, with the lock held.
func openBook(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		if st, err2 := os.Lstat(path); err2 == nil && !st.Mode().IsRegular() {
			return nil, noBook(path) // a link, or a socket
		}
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = noBook(path)
	}
	if err == nil && st.Size() > largestBook {
		err = &fs.PathError{Op: "read", Path: path, Err: unix.EFBIG}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

var errNoBook = errors.New("is not a regular file")

func noBook(path string) error {
	return fmt.Errorf("%s: %w", Path(path).Quoted(), errNoBook)
}

// openTree opens a directory of ours to be read, and nothing else.
func openTree(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// readBook reads all of a book of ours.
func readBook(path string) ([]byte, error) {
	f, err := openBook(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data := make([]byte, st.Size(), st.Size()+1)
	n, err := io.ReadFull(f, data)
	if err == io.ErrUnexpectedEOF || err == io.EOF {
		err = nil // shorter by now: who reads it finds out
	}
	return data[:n], err
}
