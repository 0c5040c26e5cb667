package reexec

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The types of records, as in docs/reexec-protocol.md.
const (
	recEnd        = 0
	recPID        = 1
	recParent     = 2
	recGeneration = 3
	recFD         = 4
	recBlob       = 5
	recPrevious   = 6
	recArg        = 7
	recEnv        = 8
	recCwd        = 9
	recRejected   = 10
	recRolledBack = 11
	recReady      = 12
	recIgnored    = 13
	recExe        = 14
	recPaused     = 0x80000001

	mayBeSkipped = 1 << 31
	maxName      = 4096
	maxRejected  = 64
	maxHandover  = 1 << 32 // bytes; far above anything sensible
)

var handoverMagic = []byte("MOULT\x00\x00\x01")

// handover is what the old code tells the new one. Descriptors are -1 if there
// is none.
type handover struct {
	pid, parent int // one of them is 0
	generation  int
	fds         []namedFD
	blobs       []blob
	previous    namedFD // the name is its path
	args, env   []string
	cwd         int
	rejected    []rejection
	rolledBack  *rejection
	ready       int
	ignored     uint64
	exePath     string
	exe         identity
	paused      uint64
}

type namedFD struct {
	name string
	fd   int
}

type blob struct {
	name string
	data []byte
}

// rejection is a file that is not to be tried again.
type rejection struct {
	why string
	id  identity
}

type encoder struct{ buf []byte }

func (e *encoder) record(kind uint32, name string, data []byte) {
	if len(name) > maxName {
		name = name[:maxName]
	}
	e.buf = binary.LittleEndian.AppendUint32(e.buf, kind)
	e.buf = binary.LittleEndian.AppendUint32(e.buf, uint32(len(name)))
	e.buf = binary.LittleEndian.AppendUint64(e.buf, uint64(len(data)))
	e.buf = append(e.buf, name...)
	e.buf = append(e.buf, data...)
	for len(e.buf)%8 != 0 {
		e.buf = append(e.buf, 0)
	}
}

func (e *encoder) number(kind uint32, name string, n uint64) {
	e.record(kind, name, binary.LittleEndian.AppendUint64(nil, n))
}

// encode makes the bytes of a hand-over.
func (h *handover) encode() []byte {
	size := 4096
	for _, b := range h.blobs {
		size += len(b.data) + len(b.name) + 32
	}
	e := &encoder{make([]byte, 0, size+64*len(h.fds))}
	e.buf = append(e.buf, handoverMagic...)
	if h.parent != 0 {
		e.number(recParent, "", uint64(h.parent))
	} else {
		e.number(recPID, "", uint64(h.pid))
	}
	e.number(recGeneration, "", uint64(h.generation))
	e.record(recExe, h.exePath, []byte(h.exe))
	for _, a := range h.args {
		e.record(recArg, "", []byte(a))
	}
	for _, v := range h.env {
		e.record(recEnv, "", []byte(v))
	}
	for _, optional := range []struct {
		kind uint32
		fd   int
		name string
	}{{recCwd, h.cwd, ""}, {recPrevious, h.previous.fd, h.previous.name}, {recReady, h.ready, ""}} {
		if optional.fd >= 0 {
			e.number(optional.kind, optional.name, uint64(optional.fd))
		}
	}
	for _, r := range h.rejected[max(0, len(h.rejected)-maxRejected):] {
		e.record(recRejected, r.why, []byte(r.id))
	}
	if h.rolledBack != nil {
		e.record(recRolledBack, h.rolledBack.why, []byte(h.rolledBack.id))
	}
	if h.ignored != 0 {
		e.number(recIgnored, "", h.ignored)
	}
	if h.paused != 0 {
		e.number(recPaused, "", h.paused)
	}
	for _, f := range h.fds {
		e.number(recFD, f.name, uint64(f.fd))
	}
	for _, b := range h.blobs {
		e.record(recBlob, b.name, b.data)
	}
	e.record(recEnd, "", nil)
	return e.buf
}

// decodeHandover reads the bytes of a hand-over. Saved bytes are not copied.
func decodeHandover(data []byte) (*handover, error) {
	rest, ok := bytes.CutPrefix(data, handoverMagic)
	if !ok {
		return nil, errors.New("not a hand-over, or one of another protocol")
	}
	h := &handover{previous: namedFD{fd: -1}, cwd: -1, ready: -1}
	seen := map[uint32]bool{}
	for n := 0; ; n++ {
		if len(rest) < 16 {
			return nil, fmt.Errorf("record %d: cut short", n)
		}
		kind := binary.LittleEndian.Uint32(rest)
		nameLen := uint64(binary.LittleEndian.Uint32(rest[4:]))
		dataLen := binary.LittleEndian.Uint64(rest[8:])
		rest = rest[16:]
		if nameLen > maxName || dataLen > maxHandover || nameLen+dataLen > uint64(len(rest)) {
			return nil, fmt.Errorf("record %d: longer than the hand-over", n)
		}
		name, body := string(rest[:nameLen]), rest[nameLen:nameLen+dataLen]
		padded := (nameLen + dataLen + 7) &^ 7
		rest = rest[min(padded, uint64(len(rest))):]
		if kind == recEnd {
			break
		}
		if seen[kind] && !repeats(kind) {
			return nil, fmt.Errorf("record %d: a second one of type %d", n, kind)
		}
		seen[kind] = true
		if err := h.take(kind, name, body); err != nil {
			return nil, fmt.Errorf("record %d: %w", n, err)
		}
	}
	if seen[recPID] == seen[recParent] || !seen[recGeneration] {
		return nil, errors.New("it does not say whom it is for")
	}
	return h, nil
}

func repeats(kind uint32) bool {
	switch kind {
	case recFD, recBlob, recArg, recEnv, recRejected:
		return true
	}
	return kind&mayBeSkipped != 0
}

// take fills in one record.
func (h *handover) take(kind uint32, name string, body []byte) error {
	number := func() (n uint64, err error) {
		if len(body) != 8 {
			return 0, fmt.Errorf("type %d has %d bytes, want 8", kind, len(body))
		}
		return binary.LittleEndian.Uint64(body), nil
	}
	small := func(to *int) error { // descriptors, processes, generations
		n, err := number()
		if err == nil && n > 1<<31-1 {
			err = fmt.Errorf("type %d is %d, which is out of range", kind, n)
		}
		*to = int(n)
		return err
	}
	var err error
	switch kind {
	case recPID:
		err = small(&h.pid)
	case recParent:
		err = small(&h.parent)
	case recGeneration:
		err = small(&h.generation)
	case recFD:
		f := namedFD{name: name}
		err = small(&f.fd)
		h.fds = append(h.fds, f)
	case recBlob:
		h.blobs = append(h.blobs, blob{name, body})
	case recPrevious:
		h.previous.name = name
		err = small(&h.previous.fd)
	case recArg:
		h.args, err = appendString(h.args, body)
	case recEnv:
		h.env, err = appendString(h.env, body)
	case recCwd:
		err = small(&h.cwd)
	case recRejected:
		h.rejected = append(h.rejected, rejection{name, identity(body)})
	case recRolledBack:
		h.rolledBack = &rejection{name, identity(body)}
	case recReady:
		err = small(&h.ready)
	case recIgnored:
		h.ignored, err = number()
	case recExe:
		h.exePath, h.exe = name, identity(body)
	case recPaused:
		h.paused, err = number()
	default:
		if kind&mayBeSkipped == 0 {
			err = fmt.Errorf("unknown type %d", kind)
		}
	}
	return err
}

func appendString(list []string, body []byte) ([]string, error) {
	if bytes.IndexByte(body, 0) >= 0 {
		return nil, errors.New("a string with a zero byte")
	}
	return append(list, string(body)), nil
}

// identity is what tells one file from another: words of the forms
// stat:DEV:INO:SIZE:SECONDS.NANOSECONDS and sha256:HEX.
type identity string

// same says that the two have a word in common.
func (id identity) same(other identity) bool {
	others := strings.Fields(string(other))
	for _, word := range strings.Fields(string(id)) {
		known := strings.HasPrefix(word, "stat:") || strings.HasPrefix(word, "sha256:")
		if known && slices.Contains(others, word) {
			return true
		}
	}
	return false
}

// isRejected finds the reason why a file is not to be tried again.
func isRejected(list []rejection, id identity) (rejection, bool) {
	for i := len(list) - 1; i >= 0; i-- {
		if list[i].id.same(id) {
			return list[i], true
		}
	}
	return rejection{}, false
}
