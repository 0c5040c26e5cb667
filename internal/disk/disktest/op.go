// Package disktest is the instruments that test whoever changes a disk through
// a [disk.FS]: they record what is done, fail or kill at any operation, build
// every disk that a power cut can leave, and seed faults that such a test must
// catch.
//
// The rule of this room: an instrument stands between a job and its disk, and
// the job cannot tell. So one job, written once, is recorded, failed, killed
// and cut without a line of its own for it.
//
//   - [Record] logs, [States] makes crash states of the log, [Try] runs
//     recovery and the oracle on each.
//   - [Inject] fails or kills at the n-th operation; [FromEnv] does it in a
//     real program.
//   - [NoSync], [Drop] and [Delay] take away or move operations.
//   - [Conformance] is what any disk.FS must do; [LoopFS] makes real file
//     systems to run it on.
package disktest

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"moult.example/internal/disk"
)

// Kind is the name of a method of [disk.FS] or [disk.File].
type Kind string

// The kinds of operation. A file's SetMeta is OpFileMeta. StartSync is none,
// because it promises nothing and cannot fail.
const (
	OpCreate   Kind = "create"
	OpAppend   Kind = "append"
	OpMkdir    Kind = "mkdir"
	OpSymlink  Kind = "symlink"
	OpLink     Kind = "link"
	OpRename   Kind = "rename"
	OpPlace    Kind = "place"
	OpExchange Kind = "exchange"
	OpRemove   Kind = "remove"
	OpSetMeta  Kind = "setmeta"
	OpSyncDir  Kind = "syncdir"
	OpSyncFS   Kind = "syncfs"

	OpWrite    Kind = "write"
	OpWriteAt  Kind = "writeat"
	OpCopyFrom Kind = "copyfrom"
	OpTruncate Kind = "truncate"
	OpLock     Kind = "lock"
	OpFileMeta Kind = "filemeta"
	OpSync     Kind = "sync"
	OpClose    Kind = "close"

	opMark Kind = "mark" // no operation: see Recorder.Mark
)

// Op is one operation on a disk.
type Op struct {
	Kind Kind
	Name string // for a file's operations: the name under which it was created
	New  string // the second name of link, rename, place and exchange; the label of a mark

	Text string    // symlink
	File uint64    // which file: the same number from its create to its close, unique in the process
	Data []byte    // append, write, writeat, copyfrom
	Off  int64     // write, writeat: where
	Size int64     // copyfrom, truncate
	Meta disk.Meta // setmeta, filemeta

	Written int   // write, writeat: how much of Data was taken
	Err     error // what the operation returned

	source *os.File // copyfrom, while it runs
}

// String tells the operation in one line.
func (o Op) String() string {
	var b strings.Builder
	b.WriteString(string(o.Kind))
	if o.Kind != OpSyncFS && o.Kind != opMark {
		b.WriteString(" " + quote(o.Name))
	}
	switch o.Kind {
	case OpLink, OpRename, OpPlace, OpExchange, opMark:
		b.WriteString(" " + quote(o.New))
	case OpSymlink:
		b.WriteString(" -> " + quote(o.Text))
	case OpAppend, OpWrite:
		fmt.Fprintf(&b, " %d bytes", len(o.Data))
	case OpWriteAt:
		fmt.Fprintf(&b, " %d bytes at %d", len(o.Data), o.Off)
	case OpCopyFrom, OpTruncate:
		fmt.Fprintf(&b, " %d bytes", o.Size)
	case OpSetMeta, OpFileMeta:
		if !o.Meta.KeepMode {
			fmt.Fprintf(&b, " %04o", o.Meta.Mode)
		}
	}
	if o.Err != nil {
		fmt.Fprintf(&b, ": %v", o.Err)
	}
	return b.String()
}

// quote quotes a name that would not be one word.
func quote(name string) string {
	if q := strconv.Quote(name); q != `"`+name+`"` || strings.ContainsRune(name, ' ') || name == "" {
		return q
	}
	return name
}

// Is matches operations of one kind (any if empty) of which a name matches the
// pattern of [path.Match] (any if empty). A pattern without a slash is held
// against the last component.
func Is(kind Kind, pattern string) func(Op) bool {
	if _, err := path.Match(pattern, ""); err != nil {
		panic(err)
	}
	match := func(name string) bool {
		if !strings.Contains(pattern, "/") {
			name = path.Base(name)
		}
		ok, _ := path.Match(pattern, name)
		return ok
	}
	return func(o Op) bool {
		if kind != "" && kind != o.Kind {
			return false
		}
		return pattern == "" || match(o.Name) || (o.New != "" && match(o.New))
	}
}
