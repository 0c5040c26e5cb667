package main

import (
	"bytes"
	"context"
	"embed"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"
)

//go:embed src
var sources embed.FS

// set is a product of 200 files in two releases which differ in every file, the
// first a program with three libraries of its own. The others are libraries that
// stand between these in any order of names, programs, plugins and data, as
// beside every program; nobody starts them.
type set struct {
	dirs     [2]string // the releases
	names    []string  // of the files, below
	launcher string
}

const (
	setFiles    = 200
	setProgram  = "bin/prog"
	setOthers   = 60 // libraries and plugins
	setPrograms = 20
)

var setLibraries = []string{"audio", "media", "video"}

func library(name string) string { return "lib/lib" + name + ".so" }

// theSet compiles and lays out the set, once.
func (b *bench) theSet(ctx context.Context) (*set, error) {
	if b.set != nil {
		return b.set, nil
	}
	b.say("make the set")
	src := filepath.Join(b.dir, "src")
	if err := os.CopyFS(b.dir, sources); err != nil {
		return nil, err
	}
	s := &set{launcher: filepath.Join(b.dir, "launcher")}
	if _, err := b.run(ctx, []string{"cc", "-O2", "-o", s.launcher, filepath.Join(src, "launcher.c")}); err != nil {
		return nil, err
	}
	for i := range s.dirs {
		s.dirs[i] = filepath.Join(b.dir, fmt.Sprintf("release-%d", i+1))
		for _, dir := range []string{"bin", "lib/plugins", "share/data", "share/doc"} {
			if err := os.MkdirAll(filepath.Join(s.dirs[i], dir), 0o755); err != nil {
				return nil, err
			}
		}
		if err := b.compileSet(ctx, src, s.dirs[i], i+1); err != nil {
			return nil, err
		}
		var err error
		if s.names, err = fillSet(s.dirs[i], i+1); err != nil {
			return nil, err
		}
	}
	b.set = s
	return s, nil
}

// compileSet compiles the program and its libraries.
func (b *bench) compileSet(ctx context.Context, src, dir string, version int) error {
	define := fmt.Sprintf("-DVERSION=%d", version)
	prog := []string{"cc", "-O1", define, "-o", filepath.Join(dir, setProgram), filepath.Join(src, "prog.c")}
	for _, name := range setLibraries {
		out := filepath.Join(dir, library(name))
		_, err := b.run(ctx, []string{
			"cc", "-O1", "-fPIC", "-shared", define, "-DNAME=" + name + "_version", "-Wl,-soname," + filepath.Base(out),
			"-o", out, filepath.Join(src, "lib.c"),
		})
		if err != nil {
			return err
		}
		prog = append(prog, out)
	}
	_, err := b.run(ctx, append(prog, "-Wl,--enable-new-dtags", "-Wl,-rpath,$ORIGIN/../lib"))
	return err
}

// fillSet makes the other files, and sets times that tell the releases apart.
func fillSet(dir string, version int) (names []string, err error) {
	lib, err := os.ReadFile(filepath.Join(dir, library(setLibraries[0])))
	if err != nil {
		return nil, err
	}
	prog, err := os.ReadFile(filepath.Join(dir, setProgram))
	if err != nil {
		return nil, err
	}
	names = []string{setProgram}
	for _, l := range setLibraries {
		names = append(names, library(l))
	}
	given := len(names)
	random := rand.NewChaCha8([32]byte{byte(version)})
	sizes := rand.New(rand.NewPCG(0, 0))
	for i := given; i < setFiles; i++ {
		var name string
		var data []byte
		mode := os.FileMode(0o755)
		switch {
		case i < given+setOthers:
			if name = fmt.Sprintf("lib/lib%c%03d.so", 'b'+i%20, i); i%3 == 0 {
				name = fmt.Sprintf("lib/plugins/pl%03d.so", i)
			}
			// another soname, that takes no more room
			soname := fmt.Sprintf("x%07d.so", i)
			data = bytes.ReplaceAll(lib, []byte(filepath.Base(library(setLibraries[0]))), []byte(soname))
		case i < given+setOthers+setPrograms:
			name, data = fmt.Sprintf("bin/tool-%d", i), prog
		default:
			name = fmt.Sprintf("share/%s/%d.dat", []string{"data", "doc"}[i%2], i)
			data, mode = make([]byte, 2000+sizes.IntN(60000)), 0o644
			random.Read(data)
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, mode); err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	when := time.Now().Add(time.Duration(version-24) * time.Hour).Truncate(time.Second)
	for _, name := range names {
		if err := os.Chtimes(filepath.Join(dir, name), when, when); err != nil {
			return nil, err
		}
	}
	return names, nil
}
