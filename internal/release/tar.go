package release

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// packedManifest is the first member of a packed release.
const packedManifest = Own + "/manifest"

// A member is what a tar says of one entry, and where its bytes went.
type member struct {
	Entry
	bytes   int   // the number of the spooled file, the same for hard links; 0 for none
	refused error // why it cannot be part of a release, unless moult.toml excludes it
}

// tarReader reads a tar once, from its beginning to its end.
type tarReader struct {
	spool    *spool
	progress *progress
	owners   Owners

	members  []member
	byPath   map[string]int
	text     int       // bytes of names and attributes so far
	config   []byte    // the moult.toml in the archive; nil for none
	manifest *Manifest // of a packed release; nil for a foreign tar
}

// openStream reads a tar, or a packed release without its index.
func openStream(ctx context.Context, in io.Reader, path string, opt Options) (*Release, error) {
	r := &Release{progress: progress{report: opt.OnProgress}}
	if opt.Config != "" {
		if err := r.findConfig(opt, "", nil, ""); err != nil {
			return nil, err
		}
	}
	sp := &spool{fs: opt.Spool, dir: opt.SpoolDir}
	t := &tarReader{spool: sp, progress: &r.progress, owners: opt.Owners, byPath: map[string]int{}}
	err := t.read(ctx, in)
	if err == nil {
		err = r.fromTar(t, path, opt)
	}
	if err != nil {
		return nil, errors.Join(err, sp.close())
	}
	return r, nil
}

// fromTar makes the release of what was read.
func (r *Release) fromTar(t *tarReader, path string, opt Options) error {
	if t.manifest != nil {
		if err := packedOptions(t.manifest, opt); err != nil {
			return err
		}
		if t.config != nil {
			return fmt.Errorf("%q is not in its manifest", configName)
		}
	} else if opt.Config == "" {
		beside := ""
		if path != "" {
			abs, err := filepath.Abs(path)
			if err != nil {
				return err
			}
			beside = filepath.Dir(abs)
		}
		if err := r.findConfig(opt, configName, t.readConfig, beside); err != nil {
			return err
		}
	}
	entries, files, err := t.assemble(r.Config)
	if err != nil {
		return err
	}
	r.source = &spoolSource{spool: t.spool, files: files}
	r.Manifest = &Manifest{Entries: entries}
	if t.manifest == nil {
		return r.settle(opt)
	}
	if err := sameBytes(t.manifest, entries); err != nil {
		return err
	}
	r.Manifest, r.packed = t.manifest, true
	return nil
}

// readConfig returns the moult.toml in the archive.
func (t *tarReader) readConfig() ([]byte, error) {
	if t.config == nil {
		return nil, os.ErrNotExist
	}
	return t.config, nil
}

var (
	errTruncatedTar = errors.New("the archive is truncated")
	errMore         = errors.New("there is more after the end of the archive: another one, or something else")
	errNoArchive    = errors.New("it is no release: neither a directory, nor a file of moult pack, nor a tar")
)

// read reads the archive.
func (t *tarReader) read(ctx context.Context, in io.Reader) error {
	plain, err := decompress(bufio.NewReaderSize(in, 64<<10))
	if err != nil {
		return err
	}
	counted := &countReader{r: plain}
	tr := tar.NewReader(counted)
	buf := make([]byte, 256<<10)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		at := counted.n
		hdr, err := tr.Next()
		if err != nil && counted.done && counted.n < 512 {
			return errNoArchive // not even one header long
		}
		if err == io.EOF {
			// archive/tar takes a missing end for an end. Of two blocks of
			// zeros there must be one at least, after padding of less than one.
			if counted.n-at < 512 || !counted.endsInZeros() {
				return errTruncatedTar
			}
			return drain(counted)
		}
		if err == nil {
			err = t.member(ctx, hdr, tr, buf)
		}
		if err != nil {
			return t.tarError(err)
		}
	}
}

// tarError says in words what archive/tar and the decoders report.
func (t *tarReader) tarError(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errTruncatedTar
	case errors.Is(err, tar.ErrHeader) && len(t.members) == 0 && t.manifest == nil:
		return errNoArchive
	case errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("the archive is damaged after %d members", len(t.members))
	}
	return err
}

// drain reads what follows the end of the archive, which tar(1) fills up to a
// record with zeros, so that whoever writes it into a pipe ends well and the
// checksum of the compression is looked at. Anything else is refused: a second
// archive behind the first would be left out without a word.
func drain(in io.Reader) error {
	const most = 64 << 20
	buf := make([]byte, 64<<10)
	for total := 0; total < most; {
		n, err := in.Read(buf)
		if !isZero(buf[:n]) {
			return errMore
		}
		total += n
		switch {
		case err == io.EOF:
			return nil
		case errors.Is(err, io.ErrUnexpectedEOF):
			return errTruncatedTar
		case err != nil:
			return err
		}
	}
	return errMore
}

type countReader struct {
	r    io.Reader
	n    int64
	done bool   // it has come to its end, and not by an error
	tail []byte // the end of what was read: enough to hold the last whole block
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.done = c.done || err == io.EOF
	c.tail = append(c.tail, p[max(0, n-1023):n]...)
	c.tail = append(c.tail[:0], c.tail[max(0, len(c.tail)-1023):]...)
	return n, err
}

// endsInZeros says whether the last whole block that was read is one of zeros,
// as the end of an archive is, and a header never.
func (c *countReader) endsInZeros() bool {
	end := len(c.tail) - int(c.n%512)
	if end < 512 {
		return false
	}
	for _, b := range c.tail[end-512 : end] {
		if b != 0 {
			return false
		}
	}
	return true
}

// member takes one member.
func (t *tarReader) member(ctx context.Context, hdr *tar.Header, tr *tar.Reader, buf []byte) error {
	if hdr.Typeflag == tar.TypeXGlobalHeader {
		return nil // of git archive: a comment
	}
	if hdr.Name == packedManifest && len(t.members) == 0 && t.manifest == nil {
		var err error
		t.manifest, err = readManifest(tr, hdr.Size)
		return err
	}
	path, err := memberPath(hdr.Name)
	if err != nil {
		return fmt.Errorf("%.200q: %w", hdr.Name, err)
	}
	if path == "." && hdr.Typeflag == tar.TypeDir {
		return nil // the directory that was packed
	}
	if path == "." {
		return fmt.Errorf("%.200q: the top of a release is a directory", hdr.Name)
	}
	if path == configName {
		return t.readsConfig(hdr, tr)
	}
	if _, ok := t.byPath[path]; ok {
		return fmt.Errorf("%q is there twice", path)
	}
	if len(t.members) == maxEntries {
		return fmt.Errorf("it has more than %d members", maxEntries)
	}
	m, err := t.entry(hdr, path)
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	if m.Type == File && hdr.Typeflag != tar.TypeLink && m.refused == nil {
		m.bytes, m.Digest, err = t.spool.keep(ctx, tr, &m.Entry, buf, t.progress)
		if err != nil {
			return fmt.Errorf("%q: %w", path, err)
		}
	}
	t.byPath[path] = len(t.members)
	t.members = append(t.members, m)
	return nil
}

// readsConfig takes the moult.toml at the top of the archive.
func (t *tarReader) readsConfig(hdr *tar.Header, in io.Reader) (err error) {
	switch {
	case hdr.Typeflag != tar.TypeReg:
		return fmt.Errorf("%q: %w", configName, errNotFile)
	case hdr.Size > maxConfig:
		return fmt.Errorf("%q: it has more than %d bytes", configName, maxConfig)
	case t.config != nil:
		return fmt.Errorf("%q is there twice", configName)
	}
	t.config, err = io.ReadAll(in)
	return err
}

// memberPath makes the path of an entry of a member's name: "./bin//x/" is
// bin/x. A name that leads out of the release is refused.
func memberPath(name string) (string, error) {
	if strings.HasPrefix(name, "/") {
		return "", errors.New("the path is absolute")
	}
	parts := strings.Split(name, "/")
	keep := parts[:0]
	for _, p := range parts {
		switch p {
		case "", ".":
		case "..":
			return "", errDotName
		default:
			keep = append(keep, p)
		}
	}
	if len(keep) == 0 {
		return ".", nil
	}
	path := strings.Join(keep, "/")
	return path, checkPath(path)
}

// readManifest reads the member that holds the manifest.
func readManifest(in io.Reader, size int64) (*Manifest, error) {
	if size < 0 || size > maxManifest {
		return nil, fmt.Errorf("a manifest of %d bytes is too large", size)
	}
	text, err := io.ReadAll(in)
	if err != nil {
		return nil, err
	}
	return Parse(text)
}
