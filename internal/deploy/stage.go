package deploy

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/release"
)

// stager fills one generation. The files that it makes are private until the
// stage directory is renamed (owned) or the commit exchanges them (shared).
type stager struct {
	*plan
	n   int    // the new generation's number
	dir string // its directory while it is not complete, below the target

	of int             // owned: the generation that it is made of, or noGeneration
	as map[string]bool // directories of it whose metadata are, too, if nothing comes into them

	files, bytes atomic.Int64
	allFiles     int
	allBytes     int64
	eventMu      sync.Mutex
}

// encodeAhead begins to make texts of what will not change any more: all digests
// are known, but for a first release.
func (p *plan) encodeAhead() {
	if p.live == noGeneration {
		return
	}
	p.encodeSource()
	p.s.t.soonID(p.m)
	p.text = soon(p.m.Encode)
}

// endAhead waits for all that was begun: the release is its owner's again, and so
// is the target.
func (p *plan) endAhead() {
	if p.text != nil {
		p.text()
		p.s.t.idOf(p.m)
	}
	if p.sourceText != nil {
		p.sourceText()
	}
	p.s.t.ahead = nil
}

// stage makes the generation of a plan and returns its number.
func (p *plan) stage(ctx context.Context) (int, error) {
	s := p.s
	if err := s.refuseUsedStage(ctx); err != nil {
		return 0, err
	}
	if err := s.dropUncommitted(); err != nil {
		return 0, err
	}
	n, err := s.next()
	if err != nil {
		return 0, err
	}
	p.encodeAhead()
	b := newStager(p, n)
	if s.layout == Owned {
		err = b.stageOwned(ctx)
	} else {
		err = b.stageShared(ctx)
	}
	if err == nil {
		err = b.checkStaged(ctx)
	}
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = b.publish()
	}
	if b.of != noGeneration {
		p.reused, p.stayed = []int{b.of}, true
		s.noteGone(fmt.Sprintf("generation %d is made of %d", n, b.of))
	}
	if err != nil {
		return 0, errors.Join(b.dropStage(fmt.Errorf("stage: %w", err)), p.recordSpent())
	}
	p.n, p.sealed = n, release.Now()
	s.t.rememberOwn(s.abs(s.books(genDir(n))+"/manifest"), p.m)
	return n, nil
}

// noteGone leaves to the next record that a generation is there no more.
func (s *state) noteGone(why string) {
	r := s.t.newRecord("gc", noGeneration, noGeneration)
	r.Note = why
	s.note(r)
}

// recordSpent says what became of the generation that a new one was made of, when
// that has come to nothing.
func (p *plan) recordSpent() error {
	p.s.noted = nil
	for _, n := range p.reused {
		p.s.noteGone(fmt.Sprintf("generation %d was taken apart for one that has come to nothing", n))
	}
	return p.s.recordNoted()
}

// newStager counts what there is to do.
func newStager(p *plan, n int) *stager {
	b := &stager{plan: p, n: n, dir: p.s.file(stageDir(n)), of: noGeneration}
	for i := range p.steps {
		if st := &p.steps[i]; st.e.Type == release.File && st.act == actCopy {
			b.allFiles++
			b.allBytes += st.e.Size
		}
	}
	return b
}

func (b *stager) progress(bytes int64) {
	files, done := b.files.Add(1), b.bytes.Add(bytes)
	if b.s.t.opts.OnEvent == nil {
		return
	}
	b.eventMu.Lock()
	defer b.eventMu.Unlock()
	b.s.t.event(Event{Job: "stage", Files: int(files), Bytes: done, AllFiles: b.allFiles, AllBytes: b.allBytes})
}

// copyFile makes the file of a step under name, with bytes and metadata, and
// checks that the bytes are what the manifest says, or fills in what they are.
// It is not synced yet.
func (b *stager) copyFile(st *step, name string) (err error) {
	src, err := b.rel.OpenFile(st.e)
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := b.s.t.fs.Create(name)
	if err != nil {
		return err
	}
	defer func() {
		if err2 := f.Close(); err == nil {
			err = err2
		}
		if err == nil {
			err = b.look(st, name)
		}
	}()
	digest, err := b.copyBytes(f, src, st.e)
	if err != nil {
		return err
	}
	if st.e.Digest.IsZero() {
		st.e.Digest = digest
	} else if digest != st.e.Digest {
		return fmt.Errorf("%s: its bytes do not have the digest that the manifest says (%s, not %s): damaged, or changed while it was read",
			Path(st.e.Path).Quoted(), digest.Short(), st.e.Digest.Short())
	}
	if err := f.SetMeta(b.metaOf(st)); err != nil {
		return err
	}
	f.StartSync()
	b.progress(st.e.Size)
	return nil
}

// look remembers the inode that a step has made, for the stat cache.
func (b *stager) look(st *step, name string) error {
	var u unix.Stat_t
	if err := unix.Lstat(b.s.t.abs(name), &u); err != nil {
		return &fs.PathError{Op: "lstat", Path: b.s.t.abs(name), Err: err}
	}
	st.made = statOf(&u)
	return nil
}

// copyBytes fills f with the bytes of an entry and returns their digest.
func (b *stager) copyBytes(f disk.File, src io.ReadCloser, e *release.Entry) (digest release.Digest, err error) {
	if file, ok := src.(*os.File); ok {
		return b.copyOpen(f, file, e)
	}
	h := sha256.New()
	buf := bufs.Get().(*[]byte)
	defer bufs.Put(buf)
	var off int64
	for {
		n, err := io.ReadFull(src, *buf)
		piece := (*buf)[:n]
		h.Write(piece)
		if n > 0 && !(e.Sparse && allZero(piece)) {
			if _, err := f.WriteAt(piece, off); err != nil {
				return digest, err
			}
		}
		off += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			break
		}
		if err != nil {
			return digest, fmt.Errorf("%s: %w", Path(e.Path).Quoted(), err)
		}
		if off > e.Size {
			break
		}
	}
	if off != e.Size {
		return digest, fmt.Errorf("%s: %d bytes long, not %d as the manifest says", Path(e.Path).Quoted(), off, e.Size)
	}
	h.Sum(digest[:0])
	if e.Sparse {
		err = f.Truncate(e.Size)
	}
	return digest, err
}

// copyOpen copies from a file of this host: cloned where the file system can.
// The source is digested after it was copied; that it is the same before and
// after, by size and times, says that the digest is that of the copy.
func (b *stager) copyOpen(f disk.File, src *os.File, e *release.Entry) (digest release.Digest, err error) {
	seen := release.Now()
	if err := f.CopyFrom(src, e.Size); errors.Is(err, io.ErrUnexpectedEOF) {
		return digest, changed(e)
	} else if err != nil {
		return digest, err
	}
	if digest, err = hashOpen(io.NewSectionReader(src, 0, e.Size)); err != nil {
		return digest, err
	}
	if err := b.rel.Unchanged(e, src); err != nil {
		return digest, err
	}
	if e.Digest.IsZero() {
		b.rel.Learn(e, digest, seen)
	}
	return digest, nil
}

func changed(e *release.Entry) error {
	return fmt.Errorf("%s: the source changed while it was read", Path(e.Path).Quoted())
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// writeBooks puts manifest and info into the stage directory.
func (b *stager) writeBooks() error {
	books := b.s.books(b.dir)
	text := b.text
	if text == nil {
		text = b.m.Encode
	}
	if err := writeFile(b.s.t.fs, books+"/manifest", text(), false); err != nil {
		return err
	}
	info := Info{
		Schema: 1, Release: b.s.t.idOf(b.m), Version: b.m.Version, Name: b.s.name, Time: b.s.t.opts.Now().UTC(),
		UID: os.Geteuid(), GID: os.Getegid(), Base: b.live, Waits: b.waits,
	}
	data, err := json.MarshalIndent(info, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(b.s.t.fs, books+"/info.json", append(data, '\n'), false)
}

// publish makes everything durable and gives the generation its name.
func (b *stager) publish() error {
	if err := b.s.t.fs.SyncFS(); err != nil {
		return err
	}
	if err := b.s.t.fs.Place(b.dir, b.s.file(genDir(b.n))); err != nil {
		return err
	}
	return b.s.t.fs.SyncDir(b.s.file("generations"))
}

// dropStage takes back a stage that did not succeed. What it cannot remove, the
// next recovery will.
func (b *stager) dropStage(cause error) error {
	if err := b.s.removeStage(b.n); err != nil {
		return errors.Join(cause, fmt.Errorf("clean up: %w", err))
	}
	return cause
}

// removeTree removes a directory of ours with all that is in it, or a file. A
// name that is not there is fine.
func removeTree(t *Target, name string) error {
	return removeTreeBy(t, name, t.fs.Remove)
}

// removeTreeBy is removeTree, where remove removes what is not a directory with
// something in it.
func removeTreeBy(t *Target, name string, remove func(name string) error) error {
	err := remove(name)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
		return err
	}
	st, err := os.Lstat(t.abs(name))
	if err != nil {
		return err
	}
	if err := openDir(t, name, uint32(st.Mode().Perm())); err != nil {
		return err
	}
	entries, err := os.ReadDir(t.abs(name))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := removeTreeBy(t, name+"/"+e.Name(), remove); err != nil {
			return err
		}
	}
	return t.fs.Remove(name)
}

// openDir lets us change a directory of ours whose mode, as the release has it,
// keeps its owner out: 0555, say. Only root can do without.
func openDir(t *Target, name string, mode uint32) error {
	if mode&0o700 == 0o700 {
		return nil
	}
	return t.fs.SetMeta(name, disk.Meta{UID: -1, GID: -1, Mode: 0o700})
}

// parentOf is the directory of a name, "." for one at the top.
func parentOf(name string) string {
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		return name[:i]
	}
	return "."
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
