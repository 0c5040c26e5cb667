package stale

import (
	"bytes"
	"io"
	"strconv"

	"golang.org/x/sys/unix"
)

// areas finds parts of one process's memory: by asking the kernel where it can
// be asked, else from the text of maps.
type areas struct {
	maps int // open /proc/PID/maps; it stays with the program that had the memory then
	ask  *asker
	text bool // the kernel cannot be asked
	buf  []byte
}

const mostAreas = 1 << 18 // far above the kernel's default limit for a process (vm.max_map_count)

// code yields all areas with code of files. Names are there only if they come
// for nothing.
func (x *areas) code(into []area) ([]area, error) {
	if !x.text {
		for at := uint64(0); len(into) < mostAreas; {
			a, err := x.ask.nextCode(x.maps, at)
			switch {
			case err == unix.ENOENT:
				return into, nil
			case err == unix.ENOTTY || err == unix.EINVAL:
				x.text = true
			case err != nil:
				return into, err
			case a.end <= at:
				return into, unix.EIO
			}
			if x.text {
				break
			}
			if a.ino != 0 {
				into = append(into, a)
			}
			at = a.end
		}
	}
	err := x.lines(func(line []byte) bool {
		if !hasCode(line) {
			return true
		}
		m, ok := parseMapping(line)
		if ok && m.ino != 0 {
			into = append(into, m.area())
		}
		return len(into) < mostAreas
	})
	return into, err
}

// hasCode looks at the permissions of a line of maps, before it is taken apart.
func hasCode(line []byte) bool {
	blank := bytes.IndexByte(line, ' ')
	return blank >= 0 && len(line) > blank+3 && line[blank+3] == 'x'
}

// at is the area that holds the address, with its name.
func (x *areas) at(addr uint64) (area, bool) {
	if !x.text {
		a, err := x.ask.at(x.maps, addr)
		if err != unix.ENOTTY && err != unix.EINVAL {
			return a, err == nil && a.ino != 0
		}
		x.text = true
	}
	var found area
	_ = x.lines(func(line []byte) bool {
		m, ok := parseMapping(line)
		if ok && m.start <= addr && addr < m.end {
			found = m.area()
			return false
		}
		return !ok || m.start <= addr
	})
	return found, found.ino != 0
}

// of yields all areas of one file, with or without code, from the text.
func (x *areas) of(a area) []area {
	var all []area
	_ = x.lines(func(line []byte) bool {
		m, ok := parseMapping(line)
		if ok && m.ino == a.ino {
			if b := m.area(); b.dev == a.dev {
				all = append(all, b)
			}
		}
		return len(all) < mostAreas
	})
	return all
}

// alive says that the memory that maps was opened for is still some process's.
func (x *areas) alive() bool {
	_, err := x.ask.nextCode(x.maps, 0)
	return err == nil || err == unix.ENOENT
}

// lines calls for each line of maps, from the first.
func (x *areas) lines(each func(line []byte) bool) error {
	if x.buf == nil {
		x.buf = make([]byte, 64<<10)
	}
	have, offset := 0, int64(0)
	for {
		n, err := unix.Pread(x.maps, x.buf[have:], offset)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			if have > 0 {
				return io.ErrUnexpectedEOF
			}
			return nil
		}
		offset += int64(n)
		have += n
		rest := x.buf[:have]
		for {
			end := bytes.IndexByte(rest, '\n')
			if end < 0 {
				break
			}
			if !each(rest[:end]) {
				return nil
			}
			rest = rest[end+1:]
		}
		if len(rest) == len(x.buf) {
			return unix.EIO // no line is that long
		}
		have = copy(x.buf, rest)
	}
}

// area is the same without references to the line.
func (m mapping) area() area {
	return area{
		start: m.start, end: m.end, offset: m.offset, dev: parseDev(m.dev, 16), ino: m.ino, text: string(m.path),
		writable: m.perms[1] == 'w', code: m.perms[2] == 'x',
	}
}

// parseDev reads a device as it is printed: by maps with base 16, "fe:01", by
// mountinfo with base 10, "254:1". What is none is 0.
func parseDev(b []byte, base uint64) uint64 {
	major, minor, _ := bytes.Cut(b, []byte{':'})
	a, _, ok1 := number(major, base)
	i, _, ok2 := number(minor, base)
	if !ok1 || !ok2 || a > 1<<32-1 || i > 1<<32-1 {
		return 0
	}
	return unix.Mkdev(uint32(a), uint32(i))
}

// mapFile names the link in /proc/PID that leads to the area's inode.
func (a area) mapFile() string {
	b := append(make([]byte, 0, 48), "map_files/"...)
	b = strconv.AppendUint(b, a.start, 16)
	b = append(b, '-')
	return string(strconv.AppendUint(b, a.end, 16))
}
