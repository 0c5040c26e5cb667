package stale

import (
	"bytes"
	"encoding/binary"
	"io"
	"io/fs"
	"iter"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// The system calls that reading takes. They are called directly, not through
// os.File: that would make three calls of one, thousands of times.

// stat is what we want to know of a file.
type stat struct {
	id    Inode
	dir   bool
	nlink uint32
}

// statAt looks at a name below a directory, or at the descriptor itself if the
// name is "". It does not follow a symbolic link.
func statAt(dir int, name string) (stat, error) {
	return statx(dir, name, unix.AT_SYMLINK_NOFOLLOW)
}

// statLink is statAt, but follows a link: one of /proc/PID leads to the very
// inode that the process has, whatever its path is by now.
func statLink(dir int, name string) (stat, error) {
	return statx(dir, name, 0)
}

func statx(dir int, name string, flags int) (stat, error) {
	if name == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	// A file of a network mount whose server is gone must not be asked for.
	flags |= unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT
	var st unix.Statx_t
	err := retry(func() error {
		return unix.Statx(dir, name, flags, unix.STATX_INO|unix.STATX_TYPE|unix.STATX_NLINK, &st)
	})
	if err != nil {
		return stat{}, err
	}
	return stat{
		id:    Inode{unix.Mkdev(st.Dev_major, st.Dev_minor), st.Ino},
		dir:   st.Mode&unix.S_IFMT == unix.S_IFDIR,
		nlink: st.Nlink,
	}, nil
}

// openDir opens a directory to list it; path is what errors call it.
func openDir(at int, name, path string, flags int) (int, error) {
	fd, err := openAt(at, name, unix.O_RDONLY|unix.O_DIRECTORY|flags)
	if err != nil {
		return -1, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return fd, nil
}

func openAt(at int, name string, flags int) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(at, name, flags|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
		return err
	})
	return fd, err
}

// pathOf is the path of an open directory as the kernel prints it, in which
// nothing is a symbolic link.
func pathOf(fd int) (string, error) {
	name := "/proc/self/fd/" + strconv.Itoa(fd)
	text, err := readLink(unix.AT_FDCWD, name)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: name, Err: err}
	}
	return text, nil
}

// readLink reads the text of a link. Longer than PATH_MAX it cannot be: the
// kernel says ENAMETOOLONG of a path that would.
func readLink(dir int, name string) (string, error) {
	var buf [unix.PathMax]byte
	var n int
	err := retry(func() (err error) {
		n, err = unix.Readlinkat(dir, name, buf[:])
		return err
	})
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// dirent is one entry of a directory; its name is valid until the next.
type dirent struct{ name []byte }

var listings = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// entries lists an open directory, without "." and "..".
func entries(fd int) iter.Seq2[dirent, error] {
	return func(yield func(dirent, error) bool) {
		buffer := listings.Get().(*[16 << 10]byte)
		defer listings.Put(buffer)
		buf := buffer[:]
		for {
			var n int
			err := retry(func() (err error) {
				n, err = unix.Getdents(fd, buf)
				return err
			})
			if err != nil {
				yield(dirent{}, err)
				return
			}
			if n <= 0 {
				return
			}
			if !parseDirents(buf[:n], yield) {
				return
			}
		}
	}
}

// parseDirents takes linux_dirent64 records apart: inode and offset of 8 bytes
// each, length of the record in 2, type in 1, then the name, ended by NUL.
func parseDirents(b []byte, yield func(dirent, error) bool) bool {
	const head = 19
	for len(b) > head {
		size := int(binary.NativeEndian.Uint16(b[16:]))
		if size <= head || size > len(b) {
			return yield(dirent{}, unix.EIO) && false
		}
		name, _, _ := bytes.Cut(b[head:size], []byte{0})
		b = b[size:]
		if string(name) == "." || string(name) == ".." {
			continue
		}
		if !yield(dirent{name}, nil) {
			return false
		}
	}
	return true
}

// descriptor is an open file as an io.Reader.
type descriptor int

func (fd descriptor) Read(b []byte) (n int, err error) {
	err = retry(func() error {
		n, err = unix.Read(int(fd), b)
		return err
	})
	if err != nil {
		return 0, err
	}
	if n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
