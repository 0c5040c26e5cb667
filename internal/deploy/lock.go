package deploy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

// lock takes the target's lock, making the target if need be, and returns what
// gives it back. It waits as long as Options.Wait says, then it is ErrBusy.
//
// The lock is an flock(2) on .moult/lock, mode 0600: one on the directory
// itself could be held for ever by anybody who may read it.
func (t *Target) lock(ctx context.Context) (unlock func(), err error) {
	for {
		if err := t.create(); err != nil {
			return nil, err
		}
		if err := t.checkTrust(); err != nil {
			return nil, err
		}
		if !exists(t.abs(lockFile)) {
			f, err := t.fs.Create(lockFile)
			if err == nil {
				err = errors.Join(f.SetMeta(disk.Meta{UID: -1, GID: -1, Mode: 0o600}), f.Close())
			}
			if err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
		}
		unlock, err = t.relock(ctx)
		if !errors.Is(err, fs.ErrNotExist) || ctx.Err() != nil {
			return unlock, err
		}
		// A forget took the lock with it: there is a new target to be made.
	}
}

// checkTrust refuses to act on what another user may have written: whoever can
// write in .moult can have us run hooks and rename files. Only the directory
// itself is looked at, because nobody else can have made anything in it then.
func (t *Target) checkTrust() error {
	path := t.abs(dotMoult)
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &fs.PathError{Op: "lstat", Path: path, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return refuse(dotMoult, "is not a directory", "")
	case !trusts(st.Uid):
		return refuse(dotMoult, fmt.Sprintf("belongs to another user (%s), whose hooks and journal would be run as this one", userText(st.Uid)), "run moult as that user")
	case st.Mode&0o022 != 0:
		return refuse(dotMoult, fmt.Sprintf("may be written to by others (mode %04o)", st.Mode&0o7777), "chmod go-w "+path)
	}
	return nil
}

// trusts says that a user may have us run commands.
func trusts(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }

// userText is the name of a user of this host with the number, or the number.
func userText(uid uint32) string {
	number := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(number); err == nil {
		return Path(u.Username).Quoted() + ", uid " + number
	}
	return "uid " + number
}

// relock is lock for a target that is there already.
func (t *Target) relock(ctx context.Context) (unlock func(), err error) {
	path := t.abs(lockFile)
	deadline := time.Now().Add(t.opts.Wait)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		f, err := openBook(path)
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && sameFile(f, path) {
			return func() { f.Close() }, nil
		}
		f.Close()
		if err != nil && err != unix.EWOULDBLOCK && err != unix.EINTR {
			return nil, &fs.PathError{Op: "lock", Path: path, Err: err}
		}
		if t.opts.Wait >= 0 && !time.Now().Before(deadline) {
			return nil, fmt.Errorf("%s: %w%s", t.path, ErrBusy, holder(t.opts.Proc, path))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// sameFile says whether path still names the open file: forget may have removed
// the lock while we waited for it.
func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}

// holder names who holds the lock, from /proc/locks (proc_locks(5)), as " (pid
// 123, moult)"; "" if it cannot be told.
func holder(proc, path string) string {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return ""
	}
	f, err := os.Open(proc + "/locks")
	if err != nil {
		return ""
	}
	defer f.Close()
	inode := fmt.Sprintf(":%d", st.Ino)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 1: FLOCK  ADVISORY  WRITE 708 00:13:2353 0 EOF
		fields := strings.Fields(lines.Text())
		if len(fields) < 6 || fields[1] != "FLOCK" || !strings.HasSuffix(fields[5], inode) {
			continue
		}
		comm, _ := os.ReadFile(proc + "/" + fields[4] + "/comm")
		if len(comm) == 0 {
			return " (pid " + fields[4] + ")"
		}
		return " (pid " + fields[4] + ", " + strings.TrimSpace(string(comm)) + ")"
	}
	return ""
}
