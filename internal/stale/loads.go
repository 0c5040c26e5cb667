package stale

import (
	"context"
	"path"
	"strings"
)

// Loads is what one process has loaded, by the paths that the kernel prints,
// without what it adds to those of deleted files.
type Loads struct {
	PID       int
	Exe       string
	Libraries []string // and plugins, in the order of their addresses, without the loader itself
}

// Loaded lists what the processes that share our root directory and our mounts
// have loaded, as their loaders' lists say. Where a process's memory may not be
// read, the names of files that it has mapped code of have to do.
func Loaded(ctx context.Context, o Options) ([]Loads, error) {
	s, err := newSearch(o)
	if err != nil {
		return nil, err
	}
	defer s.close()
	results, err := s.all(ctx, (*worker).loads)
	if err != nil {
		return nil, err
	}
	var all []Loads
	for _, r := range results {
		if r.loads != nil {
			all = append(all, *r.loads)
		}
	}
	return all, nil
}

func (w *worker) loads(pid int) (r result) {
	r.pid = pid
	p, err := openProcess(w.proc, pid)
	if err != nil {
		return r
	}
	defer p.close()
	l := &visit{search: w.search, scratch: w.scratch, p: p, first: p, mem: -1}
	ok, _ := l.open()
	if l.p != p {
		defer l.p.close()
	}
	if !ok {
		return r
	}
	defer l.close()
	if l.collect() != nil || !l.root.own || l.root.text != "" {
		return r
	}
	found := &Loads{PID: pid}
	for i := range l.files {
		u := &l.files[i]
		text := strings.TrimSuffix(l.printed(u), deletedSuffix)
		switch {
		case u.kind == KindExe:
			found.Exe = text
		case u.kind == KindLoader:
		case u.placed || len(l.entries) == 0 && strings.Contains(path.Base(text), ".so"):
			found.Libraries = append(found.Libraries, text)
		}
	}
	if found.Exe != "" && l.same() {
		r.loads = found
	}
	return r
}
