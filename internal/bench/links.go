package main

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/linkcheck"
)

// checkedPrograms is how many programs are checked at once.
const checkedPrograms = 50

// measureLinks: would programs load? It is the processor's time that counts, of
// all processes; ours is measured inside of this one.
func (b *bench) measureLinks(ctx context.Context, s *Section) error {
	programs := somePrograms(checkedPrograms)
	if len(programs) < checkedPrograms {
		s.skip("check", fmt.Sprintf("%d programs in /usr/bin", len(programs)))
		return nil
	}
	s.Title = fmt.Sprintf("%d programs of /usr/bin, every symbol that they and their libraries need", len(programs))
	s.Method = "processor time; the files are in the cache"
	s.Unit = "ms"
	var r *linkcheck.Report
	moult := &entrant{name: "moult, every symbol", run: within(func() (err error) {
		r, err = linkcheck.Check(ctx, programs, linkcheck.Options{})
		return err
	})}
	all := []*entrant{moult}
	if why := missing("ldd"); why != "" {
		s.skip("ldd -r", why)
	} else {
		all = append(all, &entrant{name: "ldd -r", rounds: slow(b.opt.rounds), run: func(ctx context.Context) (usage, error) {
			return b.run(ctx, append([]string{"ldd", "-r"}, programs...))
		}})
	}
	if err := b.turns(ctx, 2*b.opt.rounds, nil, all...); err != nil {
		return err
	}
	for _, e := range all {
		s.processor(e)
	}
	if moult.failed != nil {
		return moult.failed
	}
	s.check(moult.name, processorTime(moult), 25, "ms")
	s.Rows[0].Note = fmt.Sprintf("%d references, %d files", r.References, r.Loaded)
	return b.measureHost(ctx, s)
}

// measureHost: all of /usr, first with nothing known, then with an index.
func (b *bench) measureHost(ctx context.Context, s *Section) error {
	var kept []byte
	var files int
	var references int64
	o := linkcheck.Options{}
	whole := func() error {
		ix, err := linkcheck.ReadIndex(bytes.NewReader(kept))
		if err != nil {
			return err
		}
		if _, err := ix.Refresh(ctx, o, "/usr"); err != nil {
			return err
		}
		r, err := ix.Check(ctx, o)
		if err != nil {
			return err
		}
		references, files = r.References, len(ix.Paths())
		if kept == nil {
			var buf bytes.Buffer
			err = ix.Write(&buf)
			kept = buf.Bytes()
		}
		return err
	}
	// The very first time the kernel reads a hundred thousand names from the disk,
	// which is not what is compared here: the method says that they are in its cache.
	first := &entrant{name: "moult, all of /usr, the first time", rounds: 1, run: within(whole)}
	cold := &entrant{name: "moult, all of /usr", before: func(context.Context) error { kept = nil; return nil }, run: within(whole)}
	warm := &entrant{name: "moult, all of /usr, with its index", run: within(whole)}
	var ix *linkcheck.Index
	var found int
	library := theLibrary()
	who := &entrant{
		name: "moult, who depends on " + filepath.Base(library),
		run: within(func() (err error) {
			if ix, err = linkcheck.ReadIndex(bytes.NewReader(kept)); err != nil {
				return err
			}
			if _, err := ix.Refresh(ctx, o, "/usr"); err != nil {
				return err
			}
			found = len(ix.Dependants(library))
			return nil
		}),
	}
	for _, e := range []*entrant{first, cold, warm, who} {
		if err := b.turns(ctx, b.opt.rounds, nil, e); err != nil {
			return err
		}
		if e.failed != nil {
			return e.failed
		}
		s.processor(e)
	}
	n := len(s.Rows)
	s.Rows[n-3].Note = fmt.Sprintf("%d programs and libraries, %d references", files, references)
	s.Rows[n-1].Note = fmt.Sprintf("%d of them", found)
	s.check(cold.name, processorTime(cold), 1000, "ms")
	s.check(warm.name, processorTime(warm), 100, "ms")
	s.check(who.name, processorTime(who), 100, "ms")
	// References alone: a second run over the same files in one process.
	resolve := &entrant{name: "moult, a million references", run: within(func() error {
		_, err := linkcheck.Check(ctx, ix.Paths(), o)
		return err
	})}
	if err := b.turns(ctx, b.opt.rounds, nil, resolve); err != nil || references == 0 {
		return err
	}
	million := processorTime(resolve) * 1e6 / float64(references)
	s.Rows = append(s.Rows, Row{Name: resolve.name, Value: million, Note: "reading the files counted in"})
	s.check(resolve.name, million, 1000, "ms")
	return nil
}

// within measures what a function takes in this process.
func within(f func() error) func(context.Context) (usage, error) {
	return func(context.Context) (usage, error) {
		var before, after unix.Rusage
		began := time.Now()
		if err := unix.Getrusage(unix.RUSAGE_SELF, &before); err != nil {
			return usage{}, err
		}
		err := f()
		wall := time.Since(began)
		if err := unix.Getrusage(unix.RUSAGE_SELF, &after); err != nil {
			return usage{}, err
		}
		return usage{
			wall, time.Duration(after.Utime.Nano() - before.Utime.Nano()), time.Duration(after.Stime.Nano() - before.Stime.Nano()), after.Maxrss << 10,
		}, err
	}
}

// processorTime is the median of an entrant, in milliseconds.
func processorTime(e *entrant) float64 {
	return median(e.samples, func(u usage) float64 { return (u.user + u.system).Seconds() * 1000 })
}

// processor adds a row of the processor time of an entrant.
func (s *Section) processor(e *entrant) {
	if e.failed != nil {
		s.skip(e.name, e.failed.Error())
		return
	}
	s.Rows = append(s.Rows, Row{Name: e.name, Value: processorTime(e), Samples: samplesOf(e.samples)})
}

// somePrograms are programs of /usr/bin that have libraries, the same ones in
// each run.
func somePrograms(n int) []string {
	names, _ := filepath.Glob("/usr/bin/*")
	r := rand.New(rand.NewPCG(1, 1))
	r.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	var programs []string
	for _, name := range names {
		if st, err := os.Lstat(name); err != nil || !st.Mode().IsRegular() {
			continue
		}
		f, err := elf.Open(name)
		if err != nil {
			continue
		}
		needed, _ := f.ImportedLibraries()
		f.Close()
		if len(needed) > 0 && len(programs) < n {
			programs = append(programs, name)
		}
	}
	return programs
}

// theLibrary is one that many programs need, but not all.
func theLibrary() string {
	for _, pattern := range []string{"/usr/lib/*-linux-gnu/libz.so.1", "/usr/lib64/libz.so.1", "/usr/lib/libz.so.1"} {
		if m, _ := filepath.Glob(pattern); len(m) > 0 {
			if p, err := filepath.EvalSymlinks(m[0]); err == nil {
				return p
			}
		}
	}
	return "/usr/lib/libz.so.1"
}
