package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The tree of the targets: 5,000 files, 1 GB.
const (
	treeFiles = 5000
	treeBytes = 1e9
	treeDirs  = 250

	changedFiles = 10
	changedBytes = 2e6
)

// tree is a directory full of files that was made here.
type tree struct {
	dir     string
	files   []treeFile // by path
	bytes   int64
	dirs    int
	random  *rand.ChaCha8
	changes int
}

type treeFile struct {
	path string // below dir
	size int64
}

// shape says what a tree looks like.
type shape struct {
	files, dirs int
	bytes       int64
	spread      float64 // of the sizes: the deviation of their logarithm
	seed        byte
}

// root is where files of one kind are.
type root struct {
	dir, name string
	mode      os.FileMode
	share     int // of all files, in a hundred
}

var roots = []root{
	{"bin", "tool-%d", 0o755, 4},
	{"libexec", "helper-%d", 0o755, 4},
	{"lib", "lib%d.so.1", 0o755, 30},
	{"share", "data-%d.dat", 0o644, 50},
	{"include", "part-%d.h", 0o644, 12},
}

// makeTree makes a tree as products have it: programs, libraries with links to
// them, data in directories some levels deep, few big files and many small
// ones. Equal shapes give equal trees but for their times.
func makeTree(dir string, s shape) (*tree, error) {
	t := &tree{dir: dir, random: rand.NewChaCha8([32]byte{s.seed})}
	r := rand.New(t.random)
	dirs, err := t.makeDirs(r, s.dirs)
	if err != nil {
		return nil, err
	}
	sizes := sizes(r, s)
	weeks := time.Now().Add(-30 * 24 * time.Hour).Truncate(time.Second)
	buf := make([]byte, 256<<10)
	for i, size := range sizes {
		root := pickRoot(r)
		in := dirs[root.dir]
		// a squared random number: few directories are full, most are not
		at := in[int(math.Pow(r.Float64(), 2)*float64(len(in)))]
		f := treeFile{filepath.Join(at, fmt.Sprintf(root.name, i)), size}
		if err := t.write(f, root.mode, weeks.Add(time.Duration(i)*time.Minute), buf); err != nil {
			return nil, err
		}
		if root.dir == "lib" && i%5 == 0 {
			name := filepath.Join(dir, f.path)
			if err := os.Symlink(filepath.Base(name), strings.TrimSuffix(name, ".1")); err != nil {
				return nil, err
			}
		}
		t.files = append(t.files, f)
		t.bytes += size
	}
	return t, nil
}

// makeDirs makes so many directories and returns them by root.
func (t *tree) makeDirs(r *rand.Rand, n int) (map[string][]string, error) {
	dirs := map[string][]string{}
	for _, root := range roots {
		dirs[root.dir] = []string{root.dir}
		if err := os.MkdirAll(filepath.Join(t.dir, root.dir), 0o755); err != nil {
			return nil, err
		}
	}
	for i := range max(0, n-len(roots)) {
		root := pickRoot(r).dir
		if root == "bin" {
			root = "share"
		}
		in := dirs[root]
		parent := in[r.IntN(len(in))]
		if strings.Count(parent, "/") > 4 {
			parent = root
		}
		d := filepath.Join(parent, fmt.Sprintf("part-%d", i))
		if err := os.Mkdir(filepath.Join(t.dir, d), 0o755); err != nil {
			return nil, err
		}
		dirs[root] = append(in, d)
	}
	for _, in := range dirs {
		t.dirs += len(in)
	}
	return dirs, nil
}

func pickRoot(r *rand.Rand) root {
	n := r.IntN(100)
	for _, root := range roots {
		if n -= root.share; n < 0 {
			return root
		}
	}
	return roots[0]
}

// sizes are log-normal, and make up the bytes of the shape together. None is
// more than a twentieth of all.
func sizes(r *rand.Rand, s shape) []int64 {
	weights := make([]float64, s.files)
	sum := 0.0
	for i := range weights {
		weights[i] = math.Exp(r.NormFloat64() * s.spread)
		sum += weights[i]
	}
	sizes := make([]int64, s.files)
	for i, w := range weights {
		sizes[i] = 64 + int64(min(w/sum, 0.05)*float64(s.bytes))
	}
	return sizes
}

// write makes a file of random bytes.
func (t *tree) write(f treeFile, mode os.FileMode, when time.Time, buf []byte) error {
	name := filepath.Join(t.dir, f.path)
	out, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	for left := f.size; left > 0 && err == nil; {
		piece := buf[:min(left, int64(len(buf)))]
		t.random.Read(piece)
		_, err = out.Write(piece)
		left -= int64(len(piece))
	}
	if err2 := out.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Chtimes(name, when, when)
	}
	return err
}

// change gives ten files of together 2 MB new bytes and keeps their sizes, as a
// rebuild does: under the same names are new files. Each change has a time of
// its own: rsync would not see two of them within a second.
func (t *tree) change() (changed []treeFile, err error) {
	t.changes++
	each := int64(changedBytes / changedFiles)
	near := slices.Clone(t.files)
	slices.SortStableFunc(near, func(a, b treeFile) int { return int(abs(a.size-each) - abs(b.size-each)) })
	changed = near[:min(changedFiles, len(near))]
	buf := make([]byte, 256<<10)
	when := time.Now().Truncate(time.Second).Add(time.Duration(t.changes-1000) * time.Minute)
	for _, f := range changed {
		name := filepath.Join(t.dir, f.path)
		st, err := os.Lstat(name)
		if err != nil {
			return nil, err
		}
		if err := os.Remove(name); err != nil {
			return nil, err
		}
		if err := t.write(f, st.Mode().Perm(), when, buf); err != nil {
			return nil, err
		}
	}
	return changed, nil
}

func abs(n int64) int64 { return max(n, -n) }

// warm reads every file of a tree, which brings it into the page cache.
func warm(dir string) error {
	buf := make([]byte, 256<<10)
	return eachFile(dir, func(f *os.File) error {
		for {
			if _, err := f.Read(buf); err == io.EOF {
				return nil
			} else if err != nil {
				return err
			}
		}
	})
}

// cool takes the files of a tree out of the page cache, those of one name: a
// generation shares the others with the next.
func cool(dir string) error {
	return eachFile(dir, func(f *os.File) error {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Nlink > 1 {
			return err
		}
		return unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
	})
}

func eachFile(dir string, do func(*os.File) error) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return do(f)
	})
}

// equal compares two files piece by piece.
func equal(a, b string) (bool, error) {
	var files [2]*os.File
	for i, name := range []string{a, b} {
		f, err := os.Open(name)
		if err != nil {
			return false, err
		}
		defer f.Close()
		files[i] = f
	}
	one, two := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(files[0], one)
		m, err2 := io.ReadFull(files[1], two)
		if !bytes.Equal(one[:n], two[:m]) {
			return false, nil
		}
		ended := err == io.EOF || err == io.ErrUnexpectedEOF
		switch {
		case err == nil && err2 == nil:
		case ended && (err2 == io.EOF || err2 == io.ErrUnexpectedEOF):
			return true, nil
		case err != nil && !ended:
			return false, err
		default:
			return false, err2
		}
	}
}
