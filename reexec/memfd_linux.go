package reexec

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// readHandover reads the hand-over of that number; nil if it is for another
// process.
func readHandover(number string) (*handover, error) {
	fd, err := strconv.Atoi(number)
	if err != nil || fd < 3 {
		return nil, errors.New("not a descriptor")
	}
	have, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil {
		return nil, os.NewSyscallError("F_GET_SEALS", err)
	}
	if have&seals != seals {
		return nil, errors.New("it is not sealed")
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	if int(st.Uid) != os.Geteuid() || st.Size > maxHandover {
		return nil, fmt.Errorf("it is of user %d and has %d bytes", st.Uid, st.Size)
	}
	data := make([]byte, st.Size)
	for n := 0; n < len(data); {
		m, err := unix.Pread(fd, data[n:], int64(n))
		if err == unix.EINTR {
			continue
		}
		if err != nil || m == 0 {
			return nil, fmt.Errorf("read %d bytes of %d: %w", n, len(data), err)
		}
		n += m
	}
	h, err := decodeHandover(data)
	if err != nil {
		return nil, err
	}
	if h.pid != 0 && h.pid != os.Getpid() || h.parent != 0 && h.parent != os.Getppid() {
		return nil, nil // inherited by mistake; the descriptor may be anybody's
	}
	unix.Close(fd)
	return h, nil
}

// sealed makes a memfd with these bytes, which nobody can change.
func sealed(name string, data []byte) (int, error) {
	if len(data) > maxHandover {
		return -1, fmt.Errorf("%d bytes are too many for a hand-over", len(data))
	}
	flags := unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate(name, flags|unix.MFD_NOEXEC_SEAL) // required where vm.memfd_noexec=2
	if err == unix.EINVAL {                                       // before 6.3
		fd, err = unix.MemfdCreate(name, flags)
	}
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	for n := 0; n < len(data); {
		m, err := unix.Write(fd, data[n:min(len(data), n+1<<30)])
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, os.NewSyscallError("write", err)
		}
		n += max(m, 0)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("F_ADD_SEALS", err)
	}
	return fd, nil
}

// closeOnExec says whether the descriptor is open, and sets the flag.
func closeOnExec(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC)
	return err == nil
}

func dupFD(fd int) (int, error) {
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	return n, os.NewSyscallError("dup", err)
}

func closeFD(fd int) {
	if fd >= 0 {
		unix.Close(fd)
	}
}
