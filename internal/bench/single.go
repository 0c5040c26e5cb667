package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// measureStart: what a process costs that does nothing.
func (b *bench) measureStart(ctx context.Context, s *Section) error {
	s.Title = "start and end of moult version"
	s.Method = "seconds are the target's own here"
	e := &entrant{name: "moult version", run: func(ctx context.Context) (usage, error) {
		return b.run(ctx, []string{b.moult, "version"})
	}}
	if err := b.turns(ctx, 20*b.opt.rounds, nil, e); err != nil {
		return err
	}
	if e.failed != nil {
		return e.failed
	}
	ms := e.wall().Seconds() * 1e3
	s.Unit = "ms"
	s.Rows = []Row{{Name: e.name, Value: ms, Samples: samplesOf(e.samples)}}
	s.check(e.name, ms, 8, "ms")
	return nil
}

const oneFile = 1e6

// measureInstall: one file is replaced by a new one.
func (b *bench) measureInstall(ctx context.Context, s *Section) error {
	s.Title = "install of one file of 1 MB over another"
	dir := filepath.Join(b.dir, "install")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	src, data := filepath.Join(dir, "src"), make([]byte, oneFile)
	rand.NewChaCha8([32]byte{}).Read(data)
	if err := os.WriteFile(src, data, 0o644); err != nil {
		return err
	}
	into := func(name string, commands func(dst string) [][]string) *entrant {
		dst := filepath.Join(dir, fmt.Sprint("d", len(name)), "dst")
		return &entrant{
			name: name,
			before: func(context.Context) error {
				if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
					return err
				}
				if err := os.WriteFile(dst, data[:len(data)/2], 0o755); err != nil {
					return err
				}
				return b.settle(dir)
			},
			run: func(ctx context.Context) (usage, error) { return b.run(ctx, commands(dst)...) },
			after: func(context.Context) error {
				if same, err := equal(src, dst); err != nil || !same {
					return fmt.Errorf("%s: not what the source holds (%v)", dst, err)
				}
				return nil
			},
		}
	}
	const reference = "install + sync FILE DIRECTORY"
	all := []*entrant{
		into("moult install", func(dst string) [][]string { return [][]string{{b.moult, "install", src, dst}} }),
		into(reference, func(dst string) [][]string {
			return [][]string{{"install", src, dst}, {"sync", dst, filepath.Dir(dst)}}
		}),
		// As safe as moult's: whenever the power fails, the old file is there or the
		// new one. It syncs twice, since the data comes before the name.
		into("install + sync FILE + mv + sync DIRECTORY", func(dst string) [][]string {
			return [][]string{{"install", src, dst + ".new"}, {"sync", dst + ".new"}, {"mv", dst + ".new", dst}, {"sync", filepath.Dir(dst)}}
		}),
		into("install", func(dst string) [][]string { return [][]string{{"install", src, dst}} }),
	}
	if err := b.turns(ctx, 10*b.opt.rounds, nil, all...); err != nil {
		return err
	}
	s.compare(reference, all...)
	s.hold("moult install", reference, 1.1, all...)
	return nil
}
