package reexechttp

import "golang.org/x/sys/unix"

// queues is how many bytes of a socket wait in the kernel.
func queues(fd uintptr) (in, out int, known bool) {
	in, errIn := unix.IoctlGetInt(int(fd), unix.TIOCINQ)
	out, errOut := unix.IoctlGetInt(int(fd), unix.TIOCOUTQ)
	return in, out, errIn == nil && errOut == nil
}
