package linkcheck

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"slices"
)

// memory is the last report of Index.Check, and of what.
type memory struct {
	key    string
	report []byte // by encodeReport
}

// indexMagic begins the file of an index; its last digit is its format.
const indexMagic = "moult link index 1\n"

// maxIndex is more than any index has: four million files with long names.
const maxIndex = 1 << 30

// ReadIndex reads what Write wrote. What cannot be understood is an empty index,
// since all of it can be found again; an error is one of r's.
func ReadIndex(r io.Reader) (*Index, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxIndex))
	if err != nil {
		return &Index{}, err
	}
	n := len(b) - 4
	if n < len(indexMagic) || !bytes.HasPrefix(b, []byte(indexMagic)) || crc32.ChecksumIEEE(b[:n]) != binary.LittleEndian.Uint32(b[n:]) {
		return &Index{}, nil
	}
	d := indexDecoder{b: b[len(indexMagic):n]}
	ix := &Index{dirs: map[string]*indexDir{}}
	ix.changes = d.number()
	ix.memory.key, ix.memory.report = d.text(), d.bytes()
	for range d.count() {
		p := d.text()
		ix.dirs[p] = d.dir(p)
	}
	if d.bad || len(d.b) > 0 {
		return &Index{}, nil
	}
	return ix, nil
}

// Write writes the index, for ReadIndex. The caller puts it where it belongs.
func (ix *Index) Write(w io.Writer) error {
	sum := crc32.NewIEEE()
	buf := bufio.NewWriterSize(io.MultiWriter(w, sum), 64<<10)
	e := indexEncoder{w: buf}
	buf.WriteString(indexMagic)
	e.number(ix.changes)
	e.text(ix.memory.key)
	e.number(uint64(len(ix.memory.report)))
	buf.Write(ix.memory.report)
	e.number(uint64(len(ix.dirs)))
	for _, p := range sortedKeys(ix.dirs) {
		e.text(p)
		e.dir(ix.dirs[p])
	}
	if err := buf.Flush(); err != nil {
		return err
	}
	_, err := w.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32()))
	return err
}

type indexEncoder struct {
	w       *bufio.Writer
	words   map[string]uint64
	scratch [binary.MaxVarintLen64]byte
}

func (e *indexEncoder) number(n uint64) { e.w.Write(e.scratch[:binary.PutUvarint(e.scratch[:], n)]) }

func (e *indexEncoder) text(s string) {
	e.number(uint64(len(s)))
	e.w.WriteString(s)
}

func (e *indexEncoder) texts(all []string) {
	e.number(uint64(len(all)))
	for _, s := range all {
		e.text(s)
	}
}

func (e *indexEncoder) stamp(s *stamp) {
	for _, n := range []uint64{s.dev, s.ino, uint64(s.ctime), uint64(s.mtime), s.size, s.mode} {
		e.number(n)
	}
}

func (e *indexEncoder) dir(d *indexDir) {
	e.stamp(&d.id)
	e.texts(d.subs)
	e.number(uint64(len(d.links)))
	for _, l := range d.links {
		e.text(l.name)
		e.text(l.to)
	}
	e.number(uint64(len(d.files)))
	for _, f := range d.files {
		e.text(path.Base(f.path))
		e.stamp(&f.id)
		e.number(uint64(f.kind))
		e.number(uint64(f.class))
		e.text(f.soname)
		e.texts(f.needed)
	}
}

type indexDecoder struct {
	b     []byte
	words []string
	bad   bool
}

func (d *indexDecoder) number() uint64 {
	n, size := binary.Uvarint(d.b)
	if size <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[size:]
	return n
}

// count is how many of something follow: no more than there are bytes.
func (d *indexDecoder) count() int {
	n := d.number()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return 0
	}
	return int(n)
}

func (d *indexDecoder) bytes() []byte {
	n := d.count()
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *indexDecoder) text() string { return string(d.bytes()) }

func (d *indexDecoder) texts() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	all := make([]string, n)
	for i := range all {
		all[i] = d.text()
	}
	return all
}

func (d *indexDecoder) stamp() (s stamp) {
	s.dev, s.ino, s.ctime, s.mtime = d.number(), d.number(), int64(d.number()), int64(d.number())
	s.size, s.mode = d.number(), d.number()
	return s
}

func (d *indexDecoder) dir(p string) *indexDir {
	dir := &indexDir{id: d.stamp(), subs: d.texts()}
	for range d.count() {
		dir.links = append(dir.links, indexLink{d.text(), d.text()})
	}
	for range d.count() {
		f := &indexFile{path: joinPath(p, d.text()), id: d.stamp(), kind: Kind(d.number()), class: uint16(d.number())}
		f.soname, f.needed = d.text(), d.texts()
		dir.files = append(dir.files, f)
	}
	return dir
}

// Check checks all programs and libraries of the index as Check does. Where
// nothing has changed since it did so the last time, by what Refresh said and by
// the loaders' own files, it gives the report of that time: libraries outside of
// the directories of the index are then not looked at. It is remembered in the
// index, and only without an overlay.
func (ix *Index) Check(ctx context.Context, o Options) (*Report, error) {
	key, err := ix.key(o)
	if err != nil {
		return nil, err
	}
	if key != "" && key == ix.memory.key {
		if report, ok := decodeReport(ix.memory.report); ok {
			return report, nil
		}
	}
	report, err := Check(ctx, ix.Paths(), o)
	if err != nil {
		return nil, err
	}
	ix.memory = memory{}
	if key != "" && len(report.Unread) == 0 {
		ix.memory = memory{key, encodeReport(report)}
	}
	return report, nil
}

// key stands for everything that a report depends on; "" if it is not to be
// remembered.
func (ix *Index) key(o Options) (string, error) {
	if len(o.Overlay)+len(o.Links) > 0 {
		return "", nil
	}
	c, err := newChecker(o, nil)
	if err != nil {
		return "", err
	}
	o.HWCaps = append(append([]string{}, o.HWCaps...), c.hwcaps(elf.EM_X86_64)...)
	options, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	e := indexEncoder{w: bufio.NewWriter(sum)}
	e.text(string(options))
	files := []string{"/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/ld.so.conf"}
	for _, arch := range muslArch {
		files = append(files, "/etc/ld-musl-"+arch+".path")
	}
	slices.Sort(files)
	for _, p := range files {
		at := c.tree.find(p)
		id := stampOf(&at.stat)
		e.stamp(&id)
	}
	e.number(ix.changes)
	if err := e.w.Flush(); err != nil {
		return "", err
	}
	return fmt.Sprintf("%x", sum.Sum(nil)), nil
}
