package disktest

import (
	"bytes"
	"io"
	"path"
	"slices"
	"sync"
	"testing"

	"moult.example/internal/disk"
)

// Recorder is a [disk.FS] that logs each operation on another one, in the order
// in which they happened: while it records, operations of several goroutines
// take place one after the other.
type Recorder struct {
	disk.FS
	initial *Tree

	mu  sync.Mutex
	log []Op
}

// Record logs what is done to under, whose root is the directory dir. The tree
// in dir as it is now is taken for durable: it is the Initial of the crash
// states.
func Record(t testing.TB, dir string, under disk.FS) *Recorder {
	t.Helper()
	tree, err := Capture(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := &Recorder{initial: tree}
	r.FS = r.Sub(".", under)
	return r
}

// Sub returns a disk that logs into the same log, with the names put below
// prefix: for a job that works on several directories of one disk, of which the
// recorder holds the common parent.
func (r *Recorder) Sub(prefix string, under disk.FS) disk.FS {
	offsets := map[uint64]int64{} // where the next Write of a file goes; under r.mu
	return Wrap(under, func(op *Op, do func() error) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		entry := *op
		entry.Data = bytes.Clone(op.Data)
		if op.source != nil {
			entry.Data = readSource(op.source, op.Size)
			entry.source = nil
		}
		err := do()
		entry.Err, entry.Written = op.Err, op.Written
		if op.Kind == OpWrite {
			entry.Off = offsets[op.File]
			offsets[op.File] += int64(op.Written)
		}
		entry.Name = path.Join(prefix, op.Name)
		if op.New != "" {
			entry.New = path.Join(prefix, op.New)
		}
		r.log = append(r.log, entry)
		return err
	})
}

func readSource(src io.ReaderAt, size int64) []byte {
	data, err := io.ReadAll(io.NewSectionReader(src, 0, size))
	if err != nil {
		panic("disktest: source of a copy: " + err.Error())
	}
	return data
}

// Mark puts a label into the log, for [State.After]: "from here on the job has
// said that it is done". It is no operation.
func (r *Recorder) Mark(label string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = append(r.log, Op{Kind: opMark, New: label})
}

// Log returns what was done so far.
func (r *Recorder) Log() []Op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.log)
}

// Initial returns the tree as it was when the recording began.
func (r *Recorder) Initial() *Tree { return r.initial }

// States is [States] of what was recorded.
func (r *Recorder) States(o Options) []State { return slices.Collect(States(r.initial, r.Log(), o)) }
