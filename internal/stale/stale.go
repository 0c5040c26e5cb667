// Package stale finds out from /proc who uses which files.
//
// The rule of this room: a file is known by its inode as stat(2) gives it,
// never by its path alone and never by the device that /proc/PID/maps prints,
// which is another one on btrfs and overlay. A path only decides between the
// several trees that hold the same inode as hard links. Whatever cannot be
// found out counts as a use. Nothing is run, nothing is written, no signal is
// sent, and all that a process says of itself is read with bounds.
package stale

import (
	"cmp"
	"context"
	"iter"
	"slices"
	"time"
)

// Options say where to look. The zero value is right for this host.
type Options struct {
	Proc string // where procfs is mounted; "" means /proc

	// Patience is how long one process may keep us waiting, 0 means 10 seconds.
	// The memory map of a process that hangs in the kernel, or a descriptor on
	// a dead network mount, can block its reader for ever; such a process
	// counts as unreadable.
	Patience time.Duration

	// What follows is for Find.

	PIDs   []int  // look at these only; nil means all
	UIDs   []int  // look at processes of these effective users only; nil means all
	Strict bool   // report another inode with the same bytes, too, as Same
	Places Places // what is known of targets; nil means nothing

	// MapsOnly leaves out what the loader of each process says about itself. It
	// takes half the time, and misses a file that still has a name, but another
	// one than that by which it was loaded: moved aside, exchanged, behind a
	// symbolic link that was switched.
	MapsOnly bool

	// FilesOnly leaves out who a process is: of each there are PID and Files, no
	// hints. What the kernel tells of these takes as long as the rest.
	FilesOnly bool

	// Open counts the space of deleted files that are open or mapped as data,
	// too. It takes a look at every descriptor and every mapping.
	Open bool

	// Answers asks whether the file system that a path leads to answers at all,
	// and waits no longer than the time given. It is called for one that a program
	// serves (FUSE) and that somebody runs code from. Nil means that all do.
	Answers func(path string, within time.Duration) bool

	textOnly bool   // for tests: as on a kernel that cannot be asked for mappings
	asFUSE   string // for tests: a type of file system that is taken for FUSE
}

const defaultPatience = 10 * time.Second

// Inode is what identifies a file on this host, as stat(2) returns it.
type Inode struct{ Dev, Ino uint64 }

// Tree is a directory whose users are wanted, with everything below it.
type Tree struct {
	Dir string // a path to it; symbolic links are followed

	// Inodes yields every inode of the tree: files and directories, Dir itself
	// too. Nil means that Users walks the tree.
	Inodes iter.Seq[Inode]
}

// By is the way in which a process uses a file.
type By string

// The ways, by the names that they have in /proc/PID.
const (
	ByExe  By = "exe"  // it executes it
	ByCwd  By = "cwd"  // it is its working directory
	ByRoot By = "root" // it is its root directory
	ByFD   By = "fd"   // it has it open
	ByMap  By = "map"  // it has it mapped: a shared library, usually
)

// Use is one reason why a process is a user.
type Use struct {
	Of   int    // index of the tree or file, in the order in which they were given
	By   By     // how
	Path string // as the kernel prints it, any bytes; in the process's own view if that has other mounts
}

// User is a process that uses something that was asked for.
type User struct {
	PID   int
	Ticks uint64    // when it was started, clock ticks since boot; with PID it names one process for ever
	Start time.Time // the same by the clock of now, right to about a tick
	Comm  string    // the name that it gives itself, any bytes
	Exe   string    // its executable as the kernel prints it; "" if there is none
	Uses  []Use     // by Of, By and Path; none twice
}

// Usage is what Users and UsersOf found.
type Usage struct {
	Users []User // by PID

	// Unreadable are the processes, by PID, of which something could not be
	// read: for want of the right (another user's, and we are not root), or of
	// patience. Each may use anything. What could be read is in Users, too.
	Unreadable []int

	// Hidden says that there are processes that /proc does not show us
	// (its mount option hidepid). They may use anything. Processes outside our
	// own PID namespace are never seen, and nothing tells of them.
	Hidden bool
}

// Of returns the known users of the tree or file with this index.
func (r Usage) Of(of int) []User {
	var users []User
	for _, u := range r.Users {
		if slices.ContainsFunc(u.Uses, func(x Use) bool { return x.Of == of }) {
			users = append(users, u)
		}
	}
	return users
}

// InUse says whether the tree or file with this index has a user, or may have
// one: an unreadable or hidden process counts.
func (r Usage) InUse(of int) bool {
	return r.Hidden || len(r.Unreadable) > 0 || len(r.Of(of)) > 0
}

// Users finds every process that executes, maps or has open a file of one of
// the trees, or stands or is rooted in a directory of it.
//
// An inode that several trees hold as hard links is used in the tree that the
// path names under which the process got it. Where that path does not lead to
// the inode any more (it is unlinked, mounted over, lazily unmounted, or cut
// short by a chroot in another mount namespace) it counts for every tree that
// holds the inode. An executable or mapped file that was unlinked counts for
// the tree that its directory is in, because its process may load more from
// there. A name outside of all trees is no use of them.
//
// The caller's own open files do not count; its executable, mappings and
// directories do. A process that is in the middle of an execve(2) may be
// missed: who removes something afterwards calls Users twice. Scripts that
// their interpreter has read and closed cannot be seen.
//
// An error says that a tree or the list of processes could not be read; then
// nothing is known.
func Users(ctx context.Context, o Options, trees []Tree) (Usage, error) {
	x, err := indexTrees(trees)
	if err != nil {
		return Usage{}, err
	}
	return newScan(o, x, false).run(ctx)
}

// UsersOf finds every process that executes or maps one of these files. Only
// the inode counts, not the name by which the process got it.
func UsersOf(ctx context.Context, o Options, files []Inode) (Usage, error) {
	return newScan(o, indexFiles(files), true).run(ctx)
}

func compareUses(a, b Use) int {
	return cmp.Or(cmp.Compare(a.Of, b.Of), cmp.Compare(a.By, b.By), cmp.Compare(a.Path, b.Path))
}
