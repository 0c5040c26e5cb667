package linkcheck

import (
	"context"
	"io"
)

// Index knows the programs and libraries of a host and what each needs. It is
// refreshed by looking whether files are still the same, and reads only those
// that are not. It is not safe for concurrent use.
type Index struct{}

// Dependant is a file that needs a library.
type Dependant struct {
	Path   string // as seen in Root
	Kind   Kind   // Program or Library
	Needs  string // the name by which it needs the library, or the one on the way to it
	Direct bool   // it needs the library itself, not something that does
}

// ReadIndex reads what Write wrote. What cannot be understood is an empty index,
// since all of it can be found again; an error is one of r's.
func ReadIndex(r io.Reader) (*Index, error) { return &Index{}, nil }

// Write writes the index, for ReadIndex. The caller puts it where it belongs.
func (ix *Index) Write(w io.Writer) error { return nil }

// Refresh brings the index up to date with the files below these directories, as
// seen in o.Root, and says whether anything had changed since it was written.
// Directories that are not there are no error. No dirs are DefaultDirs.
func (ix *Index) Refresh(ctx context.Context, o Options, dirs ...string) (changed bool, err error) {
	return false, nil
}

// DefaultDirs are where programs and libraries of a host are.
func DefaultDirs() []string {
	return []string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/srv"}
}

// Dependants are the files of the index that load one of these libraries, given
// by their paths (as seen in Root), directly or by way of other libraries,
// sorted by path. The libraries need not exist: it is their names that count.
func (ix *Index) Dependants(libraries ...string) []Dependant { return nil }

// Paths are the programs and libraries of the index, sorted.
func (ix *Index) Paths() []string { return nil }
