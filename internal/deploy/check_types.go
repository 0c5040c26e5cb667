package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"moult.example/internal/linkcheck"
	"moult.example/internal/linkcheck/abi"
)

// LinkType is a type that is another in the new version of a library, so that
// who was built against the old one passes or reads the wrong thing.
type LinkType struct {
	Severity linkcheck.Severity `json:"severity"` // a warning where callers may know nothing of it
	Path     Path               `json:"path"`     // of the library
	Symbol   Path               `json:"symbol"`   // through which it is reached
	What     string             `json:"what"`
	Why      string             `json:"why"`
}

// LinkTypes is the comparison of one library's types.
type LinkTypes struct {
	Path     Path   `json:"path"`
	Compared int    `json:"compared"`          // functions and objects of which both versions have types
	Why      string `json:"why,omitempty"`     // why nothing could be compared
	ABIDiff  string `json:"abidiff,omitempty"` // what abidiff says: compatible, changed, incompatible, or its error
	Report   string `json:"abidiff_report,omitempty"`
}

// maxCallers is how many programs and libraries are asked what they use.
const maxCallers = 3000

// compareTypes compares the types of the libraries that are replaced, as far as
// who was judged uses them.
func (l *Laid) compareTypes(ctx context.Context, o CheckOptions, outside []string, r *LinkReport) error {
	if !o.Types && !o.ABIDiff || len(l.pairs) == 0 {
		return nil
	}
	ao := abi.Options{Debug: debugIn(o.Root)}
	callers := l.callers(ctx, outside, ao)
	for _, p := range l.pairs {
		t := LinkTypes{Path: p.Path}
		if o.Types {
			if err := l.compareOne(ctx, p, callers, ao, &t, r); err != nil {
				return err
			}
		}
		if o.ABIDiff {
			runABIDiff(ctx, p, &t)
		}
		r.Types = append(r.Types, t)
	}
	return nil
}

// caller is who uses libraries, and what it knows of them.
type caller struct {
	path string
	abi.Caller
}

func (l *Laid) callers(ctx context.Context, outside []string, o abi.Options) (all []caller) {
	for _, path := range append(append([]string{}, l.paths...), outside...) {
		file := path
		if staged, ok := l.overlay[path]; ok {
			file = staged
		}
		if len(all) >= maxCallers || ctx.Err() != nil {
			break
		}
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		st, err := f.Stat()
		if err == nil {
			var c abi.Caller
			if c, err = abi.ReadCaller(ctx, f, st.Size(), o); err == nil {
				all = append(all, caller{path, c})
			}
		}
		f.Close()
	}
	return all
}

// compareOne compares one library for those who use it; if nobody does, for all.
func (l *Laid) compareOne(ctx context.Context, p ABIPair, callers []caller, o abi.Options, t *LinkTypes, r *LinkReport) error {
	was, err := os.Open(p.Old)
	if err != nil {
		return err
	}
	defer was.Close()
	is, err := os.Open(p.New)
	if err != nil {
		return err
	}
	defer is.Close()
	wasStat, err := was.Stat()
	if err != nil {
		return err
	}
	isStat, err := is.Stat()
	if err != nil {
		return err
	}
	if used, known := usedBy(callers, p); len(used) > 0 {
		o.Symbols, o.Seen = used, known
	}
	got, err := abi.Compare(ctx, was, is, wasStat.Size(), isStat.Size(), o)
	if err != nil {
		if ctx.Err() != nil {
			return err
		}
		t.Why = err.Error()
		return nil
	}
	t.Compared, t.Why = got.Compared, got.Why
	for _, c := range got.Changes {
		severity := linkcheck.Warning
		if c.Sure {
			severity = linkcheck.Break
		}
		r.TypeChanges = append(r.TypeChanges, LinkType{severity, p.Path, Path(c.Symbol), c.What, c.Why})
	}
	return nil
}

// usedBy are the symbols that callers take, the library itself aside, and the
// types that they know the inside of: nil if one of them does not say.
func usedBy(callers []caller, p ABIPair) (symbols, defined map[string]bool) {
	symbols, defined = map[string]bool{}, map[string]bool{}
	for _, c := range callers {
		if filepath.Base(c.path) == filepath.Base(p.Old) {
			continue
		}
		for _, name := range c.Imports {
			symbols[name] = true
		}
		if !c.Debug {
			defined = nil
		}
		for _, name := range c.Defines {
			if defined != nil {
				defined[name] = true
			}
		}
	}
	return symbols, defined
}

// debugIn opens debug information by build id, where distributions install it.
func debugIn(root string) func(id string) (io.ReaderAt, int64, error) {
	return func(id string) (io.ReaderAt, int64, error) {
		if len(id) < 4 {
			return nil, 0, os.ErrNotExist
		}
		// The file is small change for a process that ends soon, and has to stay
		// open as long as its sections are read.
		f, err := os.Open(filepath.Join(root, "/usr/lib/debug/.build-id", id[:2], id[2:]+".debug"))
		if err != nil {
			return nil, 0, err
		}
		st, err := f.Stat()
		if err != nil {
			return nil, 0, errors.Join(err, f.Close())
		}
		return f, st.Size(), nil
	}
}

// maxReport is how much of abidiff's report is kept, in bytes.
const maxReport = 64 << 10

// runABIDiff asks libabigail. Its status is a set of bits: 1 an error, 2 wrong
// usage, 4 something has changed, 8 incompatibly (abidiff(1)).
func runABIDiff(ctx context.Context, p ABIPair, t *LinkTypes) {
	tool, err := exec.LookPath("abidiff")
	if err != nil {
		t.ABIDiff = "not installed: it is in Debian's abigail-tools, or libabigail"
		return
	}
	cmd := exec.CommandContext(ctx, tool, "--no-added-syms", p.Old, p.New)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	out, err := cmd.Output()
	t.Report = string(bytes.TrimSpace(out[:min(len(out), maxReport)]))
	var exit *exec.ExitError
	switch {
	case err == nil:
		t.ABIDiff = "compatible"
	case !errors.As(err, &exit) || exit.ExitCode() < 0 || exit.ExitCode()&3 != 0:
		t.ABIDiff = "failed: " + strings.TrimSpace(fmt.Sprintf("%v %s", err, errorText(exit)))
	case exit.ExitCode()&8 != 0:
		t.ABIDiff = "incompatible"
	default:
		t.ABIDiff = "changed"
	}
}

func errorText(exit *exec.ExitError) string {
	if exit == nil {
		return ""
	}
	return string(exit.Stderr[:min(len(exit.Stderr), 1000)])
}
