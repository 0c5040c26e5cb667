package reexec

import (
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Keys of the auxiliary vector, from linux/auxvec.h.
const (
	unixATSecure = 23
	unixATExecFn = 31
)

func auxiliary(key uintptr) uintptr {
	vec, err := unix.Auxv()
	if err != nil {
		return 0
	}
	for _, kv := range vec {
		if kv[0] == key {
			return kv[1]
		}
	}
	return 0
}

// executedPath is the path that execve was called with (AT_EXECFN).
func executedPath() string {
	at := auxiliary(unixATExecFn)
	if at == 0 {
		return ""
	}
	return unix.BytePtrToString(*(**byte)(unsafe.Pointer(&at)))
}

// findSelf finds out which file runs, and by which path to watch for another.
// It runs before the program can change its directory, root or user.
func (p *Process) findSelf() {
	execfn := executedPath()
	for _, path := range []string{"/proc/self/exe", execfn, os.Args[0]} { // the latter two without /proc
		if fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
			p.self = fd
			p.selfStat, _ = fileStatOf(fd)
			break
		}
	}
	p.selfPath, _ = os.Readlink("/proc/self/exe")
	if p.selfPath == "" || !p.isSelf(p.selfPath) {
		if resolved, err := filepath.EvalSymlinks(execfn); err == nil {
			p.selfPath, _ = filepath.Abs(resolved)
		}
	}
	switch {
	case p.opts.Exe != "":
		p.exe = p.absolute(p.opts.Exe)
		return
	case p.exe != "":
		return // the predecessor has found it
	}
	for _, path := range []string{p.lookPath(os.Args[0]), execfn, p.selfPath} {
		if path != "" && p.isSelf(p.absolute(path)) {
			p.exe = p.absolute(path)
			return
		}
	}
	p.exe = p.absolute(p.selfPath)
}

func (p *Process) absolute(path string) string {
	if path == "" || filepath.IsAbs(path) || p.cwdPath == "" {
		return path
	}
	return filepath.Join(p.cwdPath, path)
}

// lookPath is how a shell finds argv[0]. A login shell's begins with a dash.
func (p *Process) lookPath(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if path := filepath.Join(dir, name); p.isSelf(p.absolute(path)) {
			return path
		}
	}
	return ""
}

// isSelf says that a path leads to the file that runs.
func (p *Process) isSelf(path string) bool {
	st, err := fileStatAt(path)
	return err == nil && st.sameFile(p.selfStat)
}
