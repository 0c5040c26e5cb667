package disk_test

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk/disktest"
	"moult.example/internal/testneed"
)

// onOldKernel says that the process is to behave as on a kernel, or in a
// container, without openat2, copy_file_range and the flags of renameat2, and
// what the last answers.
const onOldKernel = "DISK_ON_OLD_KERNEL"

// The ways round what a kernel lacks must do the same as what it has.
func TestOnAnOldKernel(t *testing.T) {
	if how := os.Getenv(onOldKernel); how != "" {
		refuse(t, map[string]syscall.Errno{"EINVAL": unix.EINVAL, "ENOSYS": unix.ENOSYS}[how])
		disktest.Conformance(t, t.TempDir(), open)
		t.Run("descriptors", TestNoDescriptorIsLeft)
		return
	}
	for _, how := range []string{"EINVAL", "ENOSYS"} {
		cmd := exec.Command(os.Args[0], "-test.run=^TestOnAnOldKernel$")
		cmd.Env = append(os.Environ(), onOldKernel+"="+how)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", how, err, out)
		}
	}
}

// refuse lets a seccomp filter answer in the kernel's stead, in all threads from
// now on.
func refuse(t *testing.T, renameAnswer syscall.Errno) {
	arch := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	const (
		load  = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		ret   = unix.BPF_RET | unix.BPF_K
		errno = unix.SECCOMP_RET_ERRNO
	)
	program := []unix.SockFilter{
		{Code: load, K: 4}, // arch
		{Code: equal, K: arch, Jf: 6},
		{Code: load, K: 0}, // number
		{Code: equal, K: unix.SYS_OPENAT2, Jt: 5},
		{Code: equal, K: unix.SYS_COPY_FILE_RANGE, Jt: 4},
		{Code: equal, K: unix.SYS_RENAMEAT2, Jf: 2},
		{Code: load, K: 16 + 4*8}, // the flags, its fifth argument
		{Code: equal, K: 0, Jf: 2},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: errno | uint32(unix.ENOSYS)},
		{Code: ret, K: errno | uint32(renameAnswer)},
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	prog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if e != 0 {
		testneed.Skip(t, "no seccomp filters here: "+e.Error())
	}
	if _, err := unix.Openat2(unix.AT_FDCWD, ".", &unix.OpenHow{Flags: unix.O_RDONLY}); err != unix.ENOSYS {
		t.Fatalf("openat2 answers %v, want %v", err, unix.ENOSYS)
	}
	none := t.TempDir() + "/none"
	if err := unix.Renameat2(unix.AT_FDCWD, none, unix.AT_FDCWD, none+"2", unix.RENAME_EXCHANGE); err != renameAnswer {
		t.Fatalf("renameat2 answers %v, want %v", err, renameAnswer)
	}
	if err := unix.Renameat(unix.AT_FDCWD, none, unix.AT_FDCWD, none+"2"); err != unix.ENOENT {
		t.Fatalf("rename answers %v, want %v", err, unix.ENOENT)
	}
}
