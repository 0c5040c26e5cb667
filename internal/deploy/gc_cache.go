package deploy

import (
	"os"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
	"moult.example/internal/stale"
)

// A collection removes other names of files that are live, which moves their
// change times. That is all by which a stat cache tells that somebody has written
// into a file and put its modification time back. So while a name goes, a lease on
// the file (fcntl(2), F_SETLEASE) says that nobody has it open for writing, or
// mapped; what it cannot be had for is read again by the next apply.

// unwritten are live files that the cache knows, by inode, as stat(2) last showed
// each of them, before the collection or by its doing.
type unwritten map[stale.Inode]release.Stat

func (u unwritten) add(st release.Stat) { u[stale.Inode{Dev: st.Dev, Ino: st.Ino}] = st }

// has says that a file has not changed but by us.
func (u unwritten) has(st release.Stat) bool {
	was, ok := u[stale.Inode{Dev: st.Dev, Ino: st.Ino}]
	return ok && was == st
}

// removeWatched removes a name in a generation that is collected.
func (s *state) removeWatched(name string) error {
	var st unix.Stat_t
	if len(s.watched) == 0 || unix.Lstat(s.t.abs(name), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink < 2 {
		return s.t.fs.Remove(name)
	}
	id := stale.Inode{Dev: uint64(st.Dev), Ino: st.Ino}
	was, ok := s.watched[id]
	if !ok {
		return s.t.fs.Remove(name)
	}
	delete(s.watched, id)
	f, err := os.OpenFile(s.t.abs(name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return s.t.fs.Remove(name)
	}
	defer f.Close() // and with it goes the lease, and who wants to write goes on
	fd := int(f.Fd())
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	if err != nil || unix.Fstat(fd, &st) != nil || statOf(&st) != was {
		return s.t.fs.Remove(name)
	}
	if err := s.t.fs.Remove(name); err != nil {
		return err
	}
	err = unix.Fstat(fd, &st)
	lease, err2 := unix.FcntlInt(uintptr(fd), unix.F_GETLEASE, 0)
	now := statOf(&st)
	if err == nil && err2 == nil && lease == unix.F_RDLCK && now.Size == was.Size && now.MTime == was.MTime {
		s.watched.add(now)
	}
	return nil
}

// refreshing does work that removes other names of live files, and keeps what
// the cache knows about those.
func (s *state) refreshing(work func() error) error {
	live, err := s.live()
	if err != nil || live == noGeneration || s.layout == Shared {
		return work()
	}
	m, err := s.manifest(live)
	if err != nil {
		return err
	}
	before := s.loadCache()
	var names []string // of files that are as we know them, right before the first is removed
	s.beforeTake = func() {
		s.watched = unwritten{}
		for i := range m.Entries {
			var u unix.Stat_t
			path := m.Entries[i].Path
			if m.Entries[i].Type != release.File || unix.Lstat(s.place(live, path), &u) != nil {
				continue
			}
			if _, ok := before.lookup(path, statOf(&u)); ok {
				names = append(names, path)
				s.watched.add(statOf(&u))
			}
		}
	}
	err = work()
	if s.beforeTake = nil; s.watched == nil {
		return err // nothing was removed
	}
	fresh := release.NewCache()
	seen := release.Now()
	for _, path := range names {
		var u unix.Stat_t
		_, digest, _ := before.cache.Known(path)
		if unix.Lstat(s.place(live, path), &u) == nil && s.watched.has(statOf(&u)) {
			fresh.Store(path, statOf(&u), digest, seen)
		}
	}
	s.watched = nil
	s.writeCache(fresh)
	return err
}
