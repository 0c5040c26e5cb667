package reexec

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// fileStat is what tells one state of a path from another. The zero value is
// that of a path that leads nowhere.
type fileStat struct {
	dev, ino    uint64
	size        int64
	sec, nsec   int64 // of the last change of the bytes
	csec, cnsec int64 // of the inode: chmod, rename, link
	mode        uint32
}

func newFileStat(st *unix.Stat_t) fileStat {
	return fileStat{
		uint64(st.Dev), st.Ino, st.Size, int64(st.Mtim.Sec), int64(st.Mtim.Nsec),
		int64(st.Ctim.Sec), int64(st.Ctim.Nsec), st.Mode,
	}
}

func fileStatOf(fd int) (fileStat, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fileStat{}, os.NewSyscallError("fstat", err)
	}
	return newFileStat(&st), nil
}

func fileStatAt(path string) (fileStat, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fileStat{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return newFileStat(&st), nil
}

// sameFile says that the two are of one inode. While a process executes or maps
// it, its number is not given to another.
func (s fileStat) sameFile(o fileStat) bool { return s.ino != 0 && s.dev == o.dev && s.ino == o.ino }

// sameBytes says that the inode was not written to in between, as far as its
// time and size tell. chmod and the like do not count.
func (s fileStat) sameBytes(o fileStat) bool {
	return s.size == o.size && s.sec == o.sec && s.nsec == o.nsec
}

func (s fileStat) identity() identity {
	return identity(fmt.Sprintf("stat:%d:%d:%d:%d.%09d", s.dev, s.ino, s.size, s.sec, s.nsec))
}

// digest is the identity of the bytes behind a descriptor that can be read.
func digest(f io.ReaderAt, size int64) (identity, error) {
	hash := sha256.New()
	n, err := io.Copy(hash, io.NewSectionReader(f, 0, size))
	if err == nil && n != size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return "", err
	}
	return identity("sha256:" + hex.EncodeToString(hash.Sum(nil))), nil
}

// ownDigest is that of the running executable; "" if it cannot be read.
func (p *Process) ownDigest() identity {
	p.digestOnce.Do(func() {
		f, err := p.openSelf()
		if err != nil {
			return
		}
		defer f.Close()
		if id, err := digest(f, p.selfStat.size); err == nil {
			p.digest = string(id)
		}
	})
	return identity(p.digest)
}

// withDigest adds our digest to what our file says of us. The predecessor has
// computed it, before it paused anything: connections wait until we are ready.
func (p *Process) withDigest(id identity) identity {
	switch {
	case strings.Contains(string(id), "sha256:"):
		return id
	case p.exeID.same(p.selfStat.identity()) && strings.Contains(string(p.exeID), "sha256:"):
		return p.exeID
	}
	return id + identity(" "+string(p.ownDigest()))
}

// openSelf opens the running executable for reading.
func (p *Process) openSelf() (*os.File, error) {
	for _, path := range []string{"/proc/self/exe", p.selfPath} {
		f, err := os.Open(path)
		if err != nil {
			continue
		}
		if st, err := fileStatOf(int(f.Fd())); err == nil && st.sameFile(p.selfStat) {
			return f, nil
		}
		f.Close()
	}
	return nil, &os.PathError{Op: "open", Path: p.selfPath, Err: os.ErrNotExist}
}
