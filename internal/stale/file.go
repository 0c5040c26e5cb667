package stale

import (
	"context"
	"errors"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"
)

// Way is how a process uses a file.
type Way string

// The ways, the weightiest first.
const (
	WayExe     Way = "exe"     // it executes it
	WayLibrary Way = "library" // it has code of it mapped
	WayShared  Way = "shared"  // it has it mapped so that changes of the file are seen, and may write to it
	WayMap     Way = "map"     // it has it mapped in another way
	WayWrite   Way = "write"   // it has it open for writing
	WayRead    Way = "read"    // it has it open
	WayCwd     Way = "cwd"     // it is its working directory
	WayRoot    Way = "root"    // it is its root directory
)

// FileUse is one way in which a process uses the file.
type FileUse struct {
	Way  Way    `json:"way"`
	Path string `json:"path"`           // as the kernel prints it, any bytes
	FD   int    `json:"fd"`             // the descriptor; -1 if it is none
	Lock string `json:"lock,omitempty"` // the lock it holds on it through FD: "FLOCK WRITE", "POSIX READ"
}

// FileUser is a process that uses the file.
type FileUser struct {
	PID       int       `json:"pid"`
	Ticks     uint64    `json:"ticks"`
	Start     time.Time `json:"started"`
	UID       int       `json:"uid"`
	User      string    `json:"user"`
	Comm      string    `json:"comm"`
	Exe       string    `json:"exe"`
	Command   []string  `json:"command"`
	Unit      Unit      `json:"unit"`
	Container Container `json:"container"`

	Uses []FileUse `json:"uses"` // the weightiest first
}

// Advice says whether something may be done to a file that is in use.
type Advice struct {
	Safe bool   `json:"safe"`
	Why  string `json:"why"` // in words, also if it is safe
}

// FileReport says who uses a file.
type FileReport struct {
	Path  string `json:"path"` // as asked
	ID    Inode  `json:"-"`
	Links int    `json:"links"` // the names that the file has
	Dir   bool   `json:"-"`     // it is a directory

	Users      []FileUser `json:"users"`      // by PID
	Unreadable []int      `json:"unreadable"` // each may use it, too
	Hidden     bool       `json:"hidden"`

	Overwrite Advice `json:"overwrite"` // to open and write it, as cp(1) does
	Rename    Advice `json:"rename"`    // to rename another file over it, as install(1) and moult do
	Delete    Advice `json:"delete"`
}

// ErrNoAnswer says that a file system has not answered in time.
var ErrNoAnswer = errors.New("its file system does not answer")

// Answered asks a file system something, and does not wait for it for ever: a
// dead network mount holds whoever asks. Patience of 0 means 10 seconds, after
// which the asking goes on, and nobody hears of it.
func Answered[V any](patience time.Duration, ask func() (V, error)) (V, error) {
	type answer struct {
		v   V
		err error
	}
	if patience == 0 {
		patience = defaultPatience
	}
	got := make(chan answer, 1)
	go func() {
		v, err := ask()
		got <- answer{v, err}
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case a := <-got:
		return a.v, a.err
	case <-timer.C:
		var none V
		return none, ErrNoAnswer
	}
}

// FileUsers finds who uses this file, which may be a directory, at this moment,
// in which ways, and what it is safe to do with it. Symbolic links are followed.
// Only the inode counts, not the name by which a process got it. The caller's
// own descriptors do not count.
//
// An error says that the file or the list of processes could not be read.
func FileUsers(ctx context.Context, o Options, path string) (*FileReport, error) {
	s, err := newSearch(o)
	if err != nil {
		return nil, err
	}
	f, err := Answered(s.patience, func() (facts, error) { return inspect(unix.AT_FDCWD, path, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "statx", Path: path, Err: err}
	}
	defer s.close()
	all, err := s.all(ctx, func(w *worker, pid int) result { return w.uses(pid, f.id) })
	if err != nil {
		return nil, err
	}
	rep := &FileReport{Path: path, ID: f.id, Links: int(f.nlink), Dir: f.mode&unix.S_IFMT == unix.S_IFDIR, Hidden: s.hidden}
	for _, r := range all {
		if r.unreadable {
			rep.Unreadable = append(rep.Unreadable, r.pid)
		}
		if r.user != nil {
			rep.Users = append(rep.Users, *r.user)
		}
	}
	rep.advise()
	return rep, nil
}
