package disktest

import (
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"moult.example/internal/disk"
)

// A Hook stands before each operation of a disk. It calls do, which performs
// the operation and returns its error, once or not at all, and returns the
// error that the job is to see. Before do it may change op; after do it finds
// op.Written and op.Err in it. It may be called by several goroutines at once.
//
// A create that is not done must return an error, since there is no file then.
type Hook func(op *Op, do func() error) error

// Wrap puts a hook before each operation of a disk. What it returns has a Close
// that closes the disk below, if that can be closed.
func Wrap(under disk.FS, hook Hook) disk.FS { return &wrapFS{under, hook} }

type wrapFS struct {
	under disk.FS
	hook  Hook
}

// Close closes the disk below, if that can be closed. It is no operation.
func (w *wrapFS) Close() error {
	if c, ok := w.under.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (w *wrapFS) run(op Op, do func() error) error {
	return w.hook(&op, func() error {
		op.Err = do()
		return op.Err
	})
}

// fileID numbers files across all disks of the process, so that two logs can
// be put one after the other.
var fileID atomic.Uint64

func (w *wrapFS) Create(name string) (disk.File, error) {
	op := Op{Kind: OpCreate, Name: name, File: fileID.Add(1)}
	var f disk.File
	err := w.hook(&op, func() error {
		f, op.Err = w.under.Create(op.Name)
		return op.Err
	})
	if err != nil {
		if f != nil {
			f.Close()
		}
		return nil, err
	}
	return &wrapFile{under: f, hook: w.hook, name: name, id: op.File}, nil
}

func (w *wrapFS) Append(name string, data []byte) error {
	op := Op{Kind: OpAppend, Name: name, Data: data}
	return w.hook(&op, func() error {
		op.Err = w.under.Append(name, op.Data)
		return op.Err
	})
}

func (w *wrapFS) Mkdir(name string) error {
	return w.run(Op{Kind: OpMkdir, Name: name}, func() error { return w.under.Mkdir(name) })
}

func (w *wrapFS) Symlink(text, name string) error {
	return w.run(Op{Kind: OpSymlink, Name: name, Text: text}, func() error { return w.under.Symlink(text, name) })
}

func (w *wrapFS) Link(a, b string) error {
	return w.run(Op{Kind: OpLink, Name: a, New: b}, func() error { return w.under.Link(a, b) })
}

func (w *wrapFS) Rename(a, b string) error {
	return w.run(Op{Kind: OpRename, Name: a, New: b}, func() error { return w.under.Rename(a, b) })
}

func (w *wrapFS) Place(a, b string) error {
	return w.run(Op{Kind: OpPlace, Name: a, New: b}, func() error { return w.under.Place(a, b) })
}

func (w *wrapFS) Exchange(a, b string) error {
	return w.run(Op{Kind: OpExchange, Name: a, New: b}, func() error { return w.under.Exchange(a, b) })
}

func (w *wrapFS) Remove(name string) error {
	return w.run(Op{Kind: OpRemove, Name: name}, func() error { return w.under.Remove(name) })
}

func (w *wrapFS) SetMeta(name string, m disk.Meta) error {
	return w.run(Op{Kind: OpSetMeta, Name: name, Meta: m}, func() error { return w.under.SetMeta(name, m) })
}

func (w *wrapFS) SyncDir(name string) error {
	return w.run(Op{Kind: OpSyncDir, Name: name}, func() error { return w.under.SyncDir(name) })
}

func (w *wrapFS) SyncFS() error {
	return w.run(Op{Kind: OpSyncFS, Name: "."}, func() error { return w.under.SyncFS() })
}

type wrapFile struct {
	under disk.File
	hook  Hook
	name  string
	id    uint64
}

func (f *wrapFile) run(op Op, do func() error) error {
	op.Name, op.File = f.name, f.id
	return f.hook(&op, func() error {
		op.Err = do()
		return op.Err
	})
}

// write runs one of the two kinds of writing. One that a hook leaves out
// without an error looks whole to the job.
func (f *wrapFile) write(op Op, do func(p []byte) (int, error)) (int, error) {
	op.Name, op.File = f.name, f.id
	whole, done := len(op.Data), false
	err := f.hook(&op, func() error {
		done = true
		op.Written, op.Err = do(op.Data)
		return op.Err
	})
	if !done && err == nil {
		return whole, nil
	}
	return op.Written, err
}

func (f *wrapFile) Write(p []byte) (int, error) {
	return f.write(Op{Kind: OpWrite, Data: p}, f.under.Write)
}

func (f *wrapFile) WriteAt(p []byte, off int64) (int, error) {
	return f.write(Op{Kind: OpWriteAt, Data: p, Off: off}, func(p []byte) (int, error) { return f.under.WriteAt(p, off) })
}

func (f *wrapFile) CopyFrom(src *os.File, size int64) error {
	return f.run(Op{Kind: OpCopyFrom, Size: size, source: src}, func() error { return f.under.CopyFrom(src, size) })
}

func (f *wrapFile) Truncate(size int64) error {
	return f.run(Op{Kind: OpTruncate, Size: size}, func() error { return f.under.Truncate(size) })
}

func (f *wrapFile) Lock() error { return f.run(Op{Kind: OpLock}, f.under.Lock) }

func (f *wrapFile) StartSync() { f.under.StartSync() }

func (f *wrapFile) SetMeta(m disk.Meta) error {
	return f.run(Op{Kind: OpFileMeta, Meta: m}, func() error { return f.under.SetMeta(m) })
}

func (f *wrapFile) Sync() error { return f.run(Op{Kind: OpSync}, f.under.Sync) }

func (f *wrapFile) Close() error { return f.run(Op{Kind: OpClose}, f.under.Close) }

// asError dresses an errno as the real disk does.
func asError(op Op, err error) error {
	switch op.Kind {
	case OpLink, OpRename, OpPlace, OpExchange:
		return &os.LinkError{Op: string(op.Kind), Old: op.Name, New: op.New, Err: err}
	}
	return &fs.PathError{Op: string(op.Kind), Path: op.Name, Err: err}
}
