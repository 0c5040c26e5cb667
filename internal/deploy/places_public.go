package deploy

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"moult.example/internal/stale"
)

var _ stale.Renamer = (*Places)(nil)

// Public implements [stale.Renamer]. A commit in a shared target has exchanged
// a displaced file with its successor before it unlinked the temporary, so the
// kernel's name of it is "bin/.moult-…" (deleted). A rollback gives the inode
// its name back, which the kernel does not learn.
func (p *Places) Public(path string, id stale.Inode) (string, bool) {
	dir, name := filepath.Split(path)
	if !strings.HasPrefix(name, tempPrefix) || len(name) != len(tempPrefix)+16 {
		return "", false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	pt := p.around(filepath.Clean(dir))
	if pt == nil || pt.layout != Shared {
		return "", false
	}
	if pt.displaced == nil {
		pt.readDisplaced()
	}
	if public, ok := pt.public[id]; ok {
		return public, true
	}
	return nameOf(dir, id)
}

// nameOf finds an inode among the entries of a directory.
func nameOf(dir string, id stale.Inode) (string, bool) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", false
	}
	for _, e := range entries {
		var st unix.Stat_t
		if e.Type().IsRegular() && unix.Lstat(dir+e.Name(), &st) == nil && st.Ino == id.Ino && uint64(st.Dev) == id.Dev {
			return dir + e.Name(), true
		}
	}
	return "", false
}
