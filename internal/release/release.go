package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"moult.example/internal/disk"
)

// Release is a manifest plus the bytes behind it. It may be used by several
// goroutines at once, except for Complete and Close.
type Release struct {
	// Manifest is complete for a packed release and for a tar. The digests of
	// a directory's files are zero until Complete.
	Manifest *Manifest

	// Config is the moult.toml that was followed; nil if there was none.
	Config *Config

	// Notes are sentences for the user, in no form a program could use: a
	// moult.toml that is there but not trusted, a pattern that matches nothing.
	Notes []string

	source   source
	stats    []Stat // of the entries of a directory, else nil
	packed   bool   // it was packed: its manifest is what it was made with
	cache    *Cache
	learning sync.Mutex // guards cache in Learn
	progress progress
}

// source is where the bytes of a release are.
type source interface {
	// open returns the bytes of e, which is entry i.
	open(e *Entry, i int) (io.ReadCloser, error)
	close() error
}

// Options say how to open a release. The zero value is right for a directory
// and for a packed file.
type Options struct {
	Stdin io.Reader // what "-" is; nil is an empty one

	// Spool and SpoolDir are where a tar is unpacked: files are made at the top
	// of the tree that Spool changes and read back from SpoolDir, which must be
	// the same directory. Close removes them. With a nil Spool a tar is read
	// once and its bytes are not kept: enough for a plan.
	Spool    disk.FS
	SpoolDir string

	Cache *Cache // of a directory's digests; nil hashes every file

	Config  string // path of the moult.toml; "" looks for one
	Name    string // "" is what moult.toml says
	Version string // "" is what moult.toml says
	Owners  Owners // which owners to take from the source, where moult.toml has none
	Times   bool   // modification times count, whatever moult.toml says

	// OnProgress is told how many files and bytes have been read so far, while
	// Open unpacks a tar and while Complete hashes: by one goroutine at a time,
	// several times for a large file. nil tells nobody.
	OnProgress func(files int, bytes int64)
}

// Owners says which owners a release takes over from the files it is made of.
type Owners int

// What a source can say of owners. A release seldom means the account that
// happened to build it, so the default is none: files belong to whoever
// applies the release, or to whom moult.toml says.
const (
	OwnersNone    Owners = iota // none
	OwnersNames                 // the names that the numbers have on this host, or in the tar
	OwnersNumbers               // the numbers
)

// ErrNoBytes says that a tar was read without a place to keep its bytes.
var ErrNoBytes = errors.New("the bytes of this release were not kept")

// Open opens the release at path: a directory, a packed file, a tar (plain, or
// compressed with gzip, bzip2 or zstd), or "-" for a packed file or a tar on
// Options.Stdin. Everything about it is checked but the digests of a packed
// file's bytes, which whoever copies them compares.
func Open(ctx context.Context, path string, opt Options) (*Release, error) {
	if path == "-" {
		if opt.Stdin == nil {
			return nil, errors.New("release: there is no standard input")
		}
		r, err := openStream(ctx, opt.Stdin, "", opt)
		return named("standard input", r, err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("release: %w", err)
	}
	if fi.IsDir() {
		r, err := openDir(ctx, path, opt)
		return named(path, r, err)
	}
	r, err := openFile(ctx, path, opt)
	return named(path, r, err)
}

// named adds to an error which release it speaks of, unless it does so itself.
func named(path string, r *Release, err error) (*Release, error) {
	var pe *fs.PathError
	switch {
	case err == nil:
		return r, nil
	case errors.As(err, &pe) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("release: %w", err)
	}
	return nil, fmt.Errorf("release %s: %w", path, err)
}

// OpenFile returns the bytes of a File entry of the manifest. Those of a
// directory or an unpacked tar are an [*os.File], so that they can be cloned;
// a directory's file that has changed since it was scanned is an error. Those
// of a packed file end with an error, not io.EOF, if they are cut short.
func (r *Release) OpenFile(e *Entry) (io.ReadCloser, error) {
	i := search(r.Manifest.Entries, e.Path)
	if i == len(r.Manifest.Entries) || r.Manifest.Entries[i].Path != e.Path {
		return nil, &fs.PathError{Op: "open", Path: e.Path, Err: fs.ErrNotExist}
	}
	e = &r.Manifest.Entries[i]
	if e.Type != File {
		return nil, &fs.PathError{Op: "open", Path: e.Path, Err: errNotFile}
	}
	return r.source.open(e, i)
}

var errNotFile = errors.New("not a file")

// Unchanged says that a file which OpenFile has opened is still as it was when
// the release was opened: what was read or cloned from it in between is what
// was there. It is always nil for what is not a directory's file.
func (r *Release) Unchanged(e *Entry, f io.Closer) error {
	d, ok := r.source.(*dirSource)
	osf, ok2 := f.(*os.File)
	if !ok || !ok2 {
		return nil
	}
	return d.unchanged(e, search(r.Manifest.Entries, e.Path), osf)
}

// Close gives up the release and what was unpacked for it.
func (r *Release) Close() error { return r.source.close() }
