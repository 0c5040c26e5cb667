package disktest

import (
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

// history is a log made into effects on inodes.
type history struct {
	base    *image // before the first operation, with all inodes that there will ever be
	effects []effect
	log     []Op
	dirName map[inode]string // what to call a directory
}

// compiler resolves the names of a log to inodes, by doing all of it in memory.
type compiler struct {
	history
	now       *image
	nextInode inode
	nextName  nameID
	files     map[uint64]inode
	pending   []int                  // effects that are not durable
	waits     map[int]map[inode]bool // for each of them that is of names, the directories to sync
	doomed    map[int]bool           // whose sync has failed: no later one helps
}

// compile makes a history of a log. A log that cannot have happened on that
// tree is an error.
func compile(initial *Tree, log []Op) (h *history, err error) {
	c := &compiler{files: map[uint64]inode{}, waits: map[int]map[inode]bool{}, doomed: map[int]bool{}}
	c.base, c.nextInode, c.nextName = imageOf(initial)
	c.now = c.base.clone()
	c.log = log
	c.dirName = map[inode]string{rootInode: "."}
	c.now.walk(func(name string, i inode) { c.dirName[i] = name })
	for n, op := range log {
		if err := c.add(n, op); err != nil {
			return nil, fmt.Errorf("operation %d, %s, cannot be: %w", n+1, op, err)
		}
	}
	return &c.history, nil
}

// add adds the effects of one operation.
func (c *compiler) add(n int, op Op) error {
	if op.Err != nil {
		c.failed(op)
		if op.Kind != OpWrite && op.Kind != OpWriteAt {
			return nil
		}
	}
	switch op.Kind {
	case OpWrite, OpWriteAt, OpCopyFrom, OpTruncate, OpFileMeta, OpSync:
		return c.addFile(n, op)
	case OpSyncDir:
		i, err := c.find(op.Name)
		c.synced(n, func(k int, e *effect) bool { return c.dirSynced(k, e, i) })
		return err
	case OpSyncFS:
		c.synced(n, func(int, *effect) bool { return true })
		return nil
	case OpLock, OpClose, opMark:
		return nil
	}
	return c.addNames(n, op)
}

func (c *compiler) addFile(n int, op Op) error {
	i, ok := c.files[op.File]
	if !ok {
		return os.ErrClosed
	}
	switch op.Kind {
	case OpWrite, OpWriteAt:
		if op.Written > 0 {
			c.effect(effect{op: n, what: byteEffect, inode: i, off: op.Off, data: op.Data[:op.Written]})
		}
	case OpCopyFrom:
		c.effect(effect{op: n, what: byteEffect, inode: i, data: op.Data})
	case OpTruncate:
		c.effect(effect{op: n, what: byteEffect, inode: i, off: op.Size, resize: true})
	case OpFileMeta:
		c.effect(effect{op: n, what: metaEffect, inode: i, meta: op.Meta})
	case OpSync:
		c.synced(n, func(_ int, e *effect) bool { return e.what != nameEffect && e.inode == i })
	}
	return nil
}

func (c *compiler) addNames(n int, op Op) error {
	at, err := c.place(op.Name)
	if err != nil {
		return err
	}
	ref, exists := c.now.nodes[at.dir].names[at.base]
	to, toRef := at, ref
	switch op.Kind {
	case OpLink, OpRename, OpPlace, OpExchange:
		if to, err = c.place(op.New); err != nil {
			return err
		}
		toRef = c.now.nodes[to.dir].names[to.base]
		fallthrough
	case OpRemove:
		if !exists {
			return os.ErrNotExist
		}
	}
	switch op.Kind {
	case OpCreate:
		c.files[op.File] = c.birth(n, at, unix.S_IFREG|0o600, "")
	case OpMkdir:
		c.dirName[c.birth(n, at, unix.S_IFDIR|0o700, "")] = op.Name
	case OpSymlink:
		c.birth(n, at, unix.S_IFLNK|0o777, op.Text)
	case OpLink:
		c.effect(effect{op: n, what: nameEffect, set: []nameSet{{to, c.newName(ref.to)}}})
	case OpRename, OpPlace:
		switch {
		case at == to:
		case toRef.to == ref.to: // two names of one inode
			c.effect(effect{op: n, what: nameEffect, clear: []place{at}})
		default:
			c.effect(effect{op: n, what: nameEffect, clear: []place{at}, set: []nameSet{{to, ref}}})
		}
	case OpExchange:
		c.effect(effect{op: n, what: nameEffect, clear: []place{at, to}, set: []nameSet{{to, ref}, {at, toRef}}})
	case OpRemove:
		c.effect(effect{op: n, what: nameEffect, clear: []place{at}})
	case OpSetMeta:
		i, err := c.find(op.Name)
		if err != nil {
			return err
		}
		c.effect(effect{op: n, what: metaEffect, inode: i, meta: op.Meta})
	case OpAppend:
		c.append(n, op, at, ref, exists)
	default:
		return fmt.Errorf("unknown kind")
	}
	return nil
}

// append is three things in one call: perhaps a new file, its bytes, its sync.
func (c *compiler) append(n int, op Op, at place, ref nameRef, exists bool) {
	i := ref.to
	if !exists {
		i = c.birth(n, at, unix.S_IFREG|0o644, "")
	}
	c.effect(effect{op: n, what: byteEffect, inode: i, off: int64(len(c.now.nodes[i].Data)), data: op.Data})
	c.synced(n, func(_ int, e *effect) bool { return e.what != nameEffect && e.inode == i })
}

// birth makes a new inode and its first name.
func (c *compiler) birth(n int, at place, mode uint32, text string) inode {
	i := c.nextInode
	c.nextInode++
	born := &node{Entry: Entry{Mode: mode, UID: os.Geteuid(), GID: os.Getegid(), Text: text}}
	if parent := c.now.nodes[at.dir]; parent.Mode&unix.S_ISGID != 0 {
		born.GID = parent.GID
		if born.isDir() {
			born.Mode |= unix.S_ISGID
		}
	}
	if born.isDir() {
		born.names = map[string]nameRef{}
	}
	c.base.nodes[i], c.now.nodes[i] = born, born
	c.effect(effect{op: n, what: nameEffect, set: []nameSet{{at, c.newName(i)}}})
	return i
}

func (c *compiler) newName(i inode) nameRef {
	c.nextName++
	return nameRef{c.nextName - 1, i}
}

// effect appends an effect, not durable yet, and lets it happen.
func (c *compiler) effect(e effect) {
	e.durable = never
	k := len(c.effects)
	c.pending = append(c.pending, k)
	if e.what == nameEffect {
		c.waits[k] = map[inode]bool{}
		for _, d := range e.dirs() {
			c.waits[k][d] = true
		}
	}
	e.apply(c.now, full)
	c.effects = append(c.effects, e)
}

// synced makes those pending effects durable for which done says so.
func (c *compiler) synced(n int, done func(k int, e *effect) bool) {
	c.pending = slices.DeleteFunc(c.pending, func(k int) bool {
		if c.doomed[k] || !done(k, &c.effects[k]) {
			return false
		}
		c.effects[k].durable = n + 1
		return true
	})
}

// dirSynced notes the sync of a directory. It says whether the effect needs no
// further one. The metadata of a symbolic link, which nobody can sync by itself,
// goes with the directory that holds it.
func (c *compiler) dirSynced(k int, e *effect, dir inode) bool {
	switch {
	case e.what != nameEffect && e.inode == dir:
		return true
	case e.what != nameEffect:
		return c.now.nodes[e.inode].Mode&unix.S_IFMT == unix.S_IFLNK && c.now.hasName(dir, e.inode)
	}
	delete(c.waits[k], dir)
	return len(c.waits[k]) == 0
}

// failed notes a sync that has failed. The kernel has marked clean what it could
// not write, so that no later sync writes it.
func (c *compiler) failed(op Op) {
	for _, k := range c.pending {
		e := &c.effects[k]
		switch op.Kind {
		case OpSyncFS:
			c.doomed[k] = true
		case OpSync:
			if e.what != nameEffect && e.inode == c.files[op.File] {
				c.doomed[k] = true
			}
		case OpSyncDir:
			if i, err := c.find(op.Name); err == nil && (e.what == nameEffect && c.waits[k][i] || e.inode == i) {
				c.doomed[k] = true
			}
		}
	}
}

// place resolves all of a name but its last component.
func (c *compiler) place(name string) (place, error) {
	if name == "." {
		return place{rootInode, "."}, nil // for SetMeta
	}
	dir, base := splitName(name)
	i, err := c.find(dir)
	if err == nil && !c.now.nodes[i].isDir() {
		err = unix.ENOTDIR
	}
	return place{i, base}, err
}

func (c *compiler) find(name string) (inode, error) {
	if name == "." {
		return rootInode, nil
	}
	dir, base := splitName(name)
	i, err := c.find(dir)
	if err != nil {
		return 0, err
	}
	ref, ok := c.now.nodes[i].names[base]
	if !ok {
		return 0, os.ErrNotExist
	}
	return ref.to, nil
}

func splitName(name string) (dir, base string) { return path.Dir(name), path.Base(name) }
