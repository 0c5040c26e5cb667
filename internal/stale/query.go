package stale

import (
	"bytes"
	"unsafe"

	"golang.org/x/sys/unix"
)

// area is a part of a process's memory that has a file.
type area struct {
	start, end uint64
	offset     uint64 // in the file
	dev        uint64 // as the kernel prints it; not what stat(2) says on btrfs and overlay
	ino        uint64
	text       string // the path as the kernel prints it; "" if it was not asked for
	writable   bool
	code       bool
}

func (a area) contains(addr uint64) bool { return a.start <= addr && addr < a.end }

// procmapQuery is struct procmap_query of linux/fs.h (Linux 6.11).
type procmapQuery struct {
	size        uint64
	flags       uint64
	addr        uint64
	start, end  uint64
	vmaFlags    uint64
	pageSize    uint64
	offset      uint64
	inode       uint64
	major       uint32
	minor       uint32
	nameSize    uint32
	buildIDSize uint32
	nameAddr    uint64
	buildIDAddr uint64
}

const (
	ioctlProcmapQuery = 0xc0686611 // _IOWR('f', 17, struct procmap_query)

	queryWritable       = 0x02
	queryExecutable     = 0x04
	queryCoveringOrNext = 0x10
	queryFileBacked     = 0x20
)

// ask puts one question to an open /proc/PID/maps.
func (q *procmapQuery) ask(maps int) error {
	q.size = uint64(unsafe.Sizeof(*q))
	return ioctl(maps, ioctlProcmapQuery, unsafe.Pointer(q))
}

// ioctl asks the kernel something that x/sys has no function for.
func ioctl(fd int, request uintptr, answer unsafe.Pointer) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(answer))
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
		default:
			return errno
		}
	}
}

func (q *procmapQuery) area() area {
	return area{
		start: q.start, end: q.end, offset: q.offset, dev: unix.Mkdev(q.major, q.minor), ino: q.inode,
		writable: q.vmaFlags&queryWritable != 0, code: q.vmaFlags&queryExecutable != 0,
	}
}

// asker puts questions. It must be on the heap: what the kernel fills must not
// move, as a stack does when it grows.
type asker struct {
	q    procmapQuery
	name [unix.PathMax]byte
	id   [20]byte
}

// nextCode returns the first area at or above the address that holds code of a
// file, without its name. It says ENOENT behind the last, ENOTTY if the kernel
// cannot be asked, and ESRCH if the program that had this memory has ended.
func (a *asker) nextCode(maps int, addr uint64) (area, error) {
	a.q = procmapQuery{flags: queryExecutable | queryFileBacked | queryCoveringOrNext, addr: addr}
	err := a.q.ask(maps)
	return a.q.area(), err
}

// at returns the area that holds the address, with the name of its file.
func (a *asker) at(maps int, addr uint64) (area, error) {
	a.q = procmapQuery{
		flags: queryFileBacked, addr: addr,
		nameSize: uint32(len(a.name)), nameAddr: uint64(uintptr(unsafe.Pointer(&a.name))),
	}
	if err := a.q.ask(maps); err != nil {
		return area{}, err
	}
	found := a.q.area()
	found.text = string(a.name[:max(bytes.IndexByte(a.name[:], 0), 0)])
	return found, nil
}

// buildID returns the build id of the file that is mapped at the address.
func (a *asker) buildID(maps int, addr uint64) []byte {
	a.q = procmapQuery{
		flags: queryFileBacked, addr: addr,
		buildIDSize: uint32(len(a.id)), buildIDAddr: uint64(uintptr(unsafe.Pointer(&a.id))),
	}
	if a.q.ask(maps) != nil {
		return nil
	}
	return bytes.Clone(a.id[:min(int(a.q.buildIDSize), len(a.id))])
}
