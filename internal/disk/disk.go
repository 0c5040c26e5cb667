// Package disk is every way moult changes a file system.
//
// Reads are not here: they use [os] and [io/fs] directly. Every change goes
// through an [FS], so that a test can fail, kill or cut the power at each one.
// A test in the root of the module fails on a call that changes a file system
// anywhere else.
//
// The rules of this room:
//
//   - No existing file is ever opened for writing. A file is made under a new
//     name ([FS.Create] refuses a name that exists), filled, given its
//     metadata, synced, and only then does a name that people use point to it.
//     The one exception is [FS.Append], for logs of our own.
//   - Names are relative to the root that was opened and are resolved one
//     component at a time without following symbolic links, so that nobody who
//     can write below the root can lead us out of it.
//   - Nothing is retried after a failed sync: since the kernel marks the pages
//     clean, a second fsync would report a success that is none (fsyncgate,
//     2018). The caller throws the new file away.
package disk

import (
	"io"
	"os"
	"time"
)

// FS changes one tree: everything below one directory.
//
// Names are slash-separated, relative and clean; "." is the root itself. They
// may hold any byte but NUL. No component but the last may be a symbolic link,
// and the last one is never followed. Errors are [*fs.PathError] or
// [*os.LinkError], with the errno inside. An FS may be used by several
// goroutines at once.
type FS interface {
	// Create makes a new, empty file, readable and writable by its owner only
	// (0600), with no ACL inherited that would say otherwise. It fails with
	// EEXIST if there is anything under that name.
	Create(name string) (File, error)

	// Append writes data at the end of a log of our own, which it makes (0644)
	// if there is none, and syncs the file. A crash can leave a part of data.
	Append(name string, data []byte) error

	// Mkdir makes a directory with mode 0700.
	Mkdir(name string) error

	// Symlink makes a symbolic link that holds text.
	Symlink(text, name string) error

	// Link gives the file a second name. It never follows a symbolic link.
	Link(oldname, newname string) error

	// Rename moves oldname to newname and replaces what was there, in one step
	// (rename(2)). Two names of one inode: POSIX makes that a no-op which
	// leaves both, so Rename then removes oldname.
	Rename(oldname, newname string) error

	// Place moves oldname to newname, and fails with EEXIST if that exists
	// (RENAME_NOREPLACE: ext4 3.15, btrfs and tmpfs 3.17, XFS 4.0). Where the
	// file system lacks it, a file is placed by link and unlink.
	Place(oldname, newname string) error

	// Exchange swaps two names, which may be of different types, in one step
	// (RENAME_EXCHANGE). Where the file system lacks it the error is EINVAL
	// and nothing has changed.
	Exchange(a, b string) error

	// Remove unlinks a file or removes an empty directory.
	Remove(name string) error

	// SetMeta sets what m holds on the file, directory or symbolic link.
	SetMeta(name string, m Meta) error

	// SyncDir makes the names in a directory durable, and the directory's own
	// metadata. It does not sync the files that the names point to.
	SyncDir(name string) error

	// SyncFS makes everything durable that was written to this file system
	// before (syncfs(2)). Errors of earlier writes are reported since Linux
	// 5.8, for those made after the FS was opened.
	SyncFS() error
}

// File is a file that Create has made and that nobody else knows yet.
type File interface {
	io.Writer
	io.WriterAt

	// CopyFrom fills the file, which must be empty, with the first size bytes
	// of src: by sharing its blocks (FICLONE) where the file system can, else
	// hole for hole with copy_file_range(2), else by reading and writing. A
	// src that is shorter is io.ErrUnexpectedEOF. The offset of src is
	// undefined afterwards.
	CopyFrom(src *os.File, size int64) error

	// Truncate sets the size; what is added reads as zeros and takes no blocks.
	Truncate(size int64) error

	// Lock takes an exclusive flock(2) on the file, without waiting, which lasts
	// until Close or the end of the process. Whoever finds the file later can
	// tell by it whether its maker is still at work. EWOULDBLOCK if it is held.
	Lock() error

	// StartSync asks the kernel to begin writing the file out, without waiting
	// (sync_file_range(2)), so that a later SyncFS has less to wait for. It
	// promises nothing.
	StartSync()

	// SetMeta sets owner, ACL, mode, attributes, capabilities and times, in the
	// order in which none of them undoes another and none is there before its
	// owner is: chown(2) clears set-user-id bits and capabilities.
	SetMeta(m Meta) error

	// Sync makes bytes and metadata durable (fsync(2), never fdatasync, which
	// may leave out mode and attributes). The name needs SyncDir too.
	Sync() error

	// Close closes the file. It does not sync.
	Close() error
}

// MaxID is the highest user or group id. The one above it means "leave it as it
// is" to chown(2), and is nobody's.
const MaxID = 1<<32 - 2

// Meta is what a file carries beside its bytes.
type Meta struct {
	UID, GID int    // owner by number; -1 leaves it as it is
	Mode     uint32 // permission, set-id and sticky bits, as chmod(2) takes them
	KeepMode bool   // leave the mode as it is (symbolic links have none)

	// Xattrs are all the extended attributes that the file is to have, by full
	// name: user.*, system.posix_acl_access, system.posix_acl_default,
	// security.selinux, security.capability, trusted.*. An access or default
	// ACL that was inherited from the directory and is not here is removed.
	// Other attributes that are there and not here are left.
	Xattrs map[string]string

	MTime time.Time // modification (and access) time; zero leaves it as it is
}
