package reexec

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// candidate is a file that may replace the program.
type candidate struct {
	file *os.File // its bytes
	path string   // of the file itself, links resolved: a link may turn under us
	stat fileStat
	id   identity
}

// openCandidate opens what the watched path leads to now.
func (p *Process) openCandidate() (*candidate, error) {
	f, err := os.OpenFile(p.exe, os.O_RDONLY|unix.O_NONBLOCK, 0) // a FIFO must not hold us up
	if err != nil {
		return nil, err
	}
	c := &candidate{file: f, path: p.exe}
	if c.stat, err = fileStatOf(int(f.Fd())); err != nil {
		f.Close()
		return nil, err
	}
	resolved, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(int(f.Fd())))
	if err != nil { // without /proc
		resolved, err = filepath.EvalSymlinks(p.exe)
	}
	if err == nil {
		if st, err := fileStatAt(resolved); err == nil && st.sameFile(c.stat) {
			c.path = resolved
		}
	}
	c.id = c.stat.identity()
	return c, nil
}

// identify adds the digest of the bytes to the identity.
func (c *candidate) identify() error {
	sum, err := digest(c.file, c.stat.size)
	if err != nil {
		return &os.PathError{Op: "read", Path: c.path, Err: err}
	}
	c.id = c.stat.identity() + " " + sum
	return nil
}

// inspect looks for all that would keep the file from running as this process
// does, without running it.
func (c *candidate) inspect(self io.ReaderAt) error {
	switch {
	case c.stat.mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("not a regular file")
	case c.stat.size == 0:
		return errors.New("the file is empty")
	case c.stat.mode&(unix.S_ISUID|unix.S_ISGID) != 0:
		return errors.New("the file is set-user-id or set-group-id: it would refuse the hand-over")
	}
	if err := unix.Faccessat(unix.AT_FDCWD, c.path, unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("not executable: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(c.file.Fd()), &fs); err == nil && fs.Flags&unix.ST_NOEXEC != 0 {
		return errors.New("its file system is mounted noexec")
	}
	if n, err := unix.Fgetxattr(int(c.file.Fd()), "security.capability", nil); err == nil && n > 0 {
		return errors.New("the file has capabilities: it would refuse the hand-over")
	}
	return inspectELF(c.file, c.stat.size, self)
}

// inspectELF looks at the headers, which are whoever's who wrote the file.
func inspectELF(f io.ReaderAt, size int64, self io.ReaderAt) error {
	var head, ours [20]byte
	if _, err := f.ReadAt(head[:], 0); err != nil || !bytes.HasPrefix(head[:], []byte(elf.ELFMAG)) {
		return errors.New("not an ELF file")
	}
	if self != nil {
		if _, err := self.ReadAt(ours[:], 0); err == nil {
			order := binary.ByteOrder(binary.LittleEndian)
			if ours[elf.EI_DATA] == byte(elf.ELFDATA2MSB) {
				order = binary.BigEndian
			}
			if head[elf.EI_CLASS] != ours[elf.EI_CLASS] || head[elf.EI_DATA] != ours[elf.EI_DATA] || order.Uint16(head[18:]) != order.Uint16(ours[18:]) {
				return fmt.Errorf("for another machine: %v %v, want %v %v",
					elf.Class(head[elf.EI_CLASS]), elf.Machine(order.Uint16(head[18:])),
					elf.Class(ours[elf.EI_CLASS]), elf.Machine(order.Uint16(ours[18:])))
			}
		}
	}
	e, err := elf.NewFile(f)
	if err != nil {
		return fmt.Errorf("damaged: %w", err)
	}
	if e.Type != elf.ET_EXEC && e.Type != elf.ET_DYN {
		return fmt.Errorf("not a program: %v", e.Type)
	}
	found := false
	for _, prog := range e.Progs {
		if prog.Type != elf.PT_LOAD && prog.Type != elf.PT_INTERP {
			continue
		}
		if prog.Off > uint64(size) || prog.Filesz > uint64(size)-prog.Off {
			return errors.New("truncated")
		}
		if prog.Type == elf.PT_INTERP {
			if err := checkInterpreter(prog); err != nil {
				return err
			}
		} else if prog.Flags&elf.PF_W == 0 && !found {
			found = contains(prog, []byte(marker))
		}
	}
	if !found {
		return errors.New("it does not contain the reexec library: it would start anew instead of taking over")
	}
	return nil
}

func checkInterpreter(prog *elf.Prog) error {
	if prog.Filesz == 0 || prog.Filesz > 4096 {
		return errors.New("damaged: the name of its loader")
	}
	name := make([]byte, prog.Filesz)
	if _, err := prog.ReadAt(name, 0); err != nil {
		return fmt.Errorf("damaged: %w", err)
	}
	path := string(bytes.TrimRight(name, "\x00"))
	if err := unix.Access(path, unix.X_OK); err != nil {
		return fmt.Errorf("its loader %q: %w", path, err)
	}
	return nil
}

// contains searches a segment, in pieces that overlap.
func contains(prog *elf.Prog, what []byte) bool {
	buf := make([]byte, 1<<20)
	for off := int64(0); off < int64(prog.Filesz); off += int64(len(buf) - len(what)) {
		n, err := prog.ReadAt(buf, off)
		if bytes.Contains(buf[:n], what) {
			return true
		}
		if err != nil {
			return false
		}
	}
	return false
}

// checkUnchanged says whether the path still leads to the file that was tried.
func (c *candidate) checkUnchanged(exe string) error {
	now, err := fileStatAt(exe)
	if err == nil && (!now.sameFile(c.stat) || !now.sameBytes(c.stat)) {
		err = errReplacedAgain
	}
	return err
}

// errReplacedAgain says that the file was replaced during the upgrade.
var errReplacedAgain = errors.New("the file was replaced again meanwhile")
