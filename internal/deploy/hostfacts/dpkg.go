package hostfacts

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// dpkg finds the owners among dpkg's packages, from the lists of files in its
// database: dpkg -S reads the same, and takes ten times as long.
func (o Options) dpkg(ctx context.Context, a aliases, w wanted, owners map[string]string) error {
	dir := o.path("/var/lib/dpkg/info")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	d, err := o.diversions(a)
	if err != nil {
		return err
	}
	l := lists{a: a, d: d, w: w, owners: owners, listed: map[string]bool{}}
	l.prepare()
	var buf []byte
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		pkg, ok := strings.CutSuffix(e.Name(), ".list")
		if !ok {
			continue
		}
		if buf, err = readInto(buf, filepath.Join(dir, e.Name())); errors.Is(err, fs.ErrNotExist) {
			continue // removed by a dpkg that is at work
		}
		if err != nil {
			return err
		}
		l.read(pkg, buf)
	}
	return nil
}

// lists goes through the lists of files of packages.
type lists struct {
	a       aliases
	d       diversions
	w       wanted
	owners  map[string]string
	listed  map[string]bool // what a list may say: wanted, or diverted to what is wanted
	needles [][]byte        // one of which a list must hold to matter
}

func (l *lists) prepare() {
	for path := range l.w {
		l.listed[path] = true
	}
	for from, d := range l.d {
		if _, ok := l.w[d.to]; ok {
			l.listed[from] = true
		}
	}
	common, first := "", true
	for path := range l.listed {
		dir := strings.TrimSuffix(filepath.Dir(path), "/") + "/"
		if first {
			common, first = dir, false
		}
		for !strings.HasPrefix(dir, common) { // up by one directory
			common = common[:strings.LastIndexByte(common[:len(common)-1], '/')+1]
		}
	}
	for _, way := range l.a.written(common) {
		l.needles = append(l.needles, []byte(way))
	}
}

// read goes through one package's list, a path a line.
func (l *lists) read(pkg string, text []byte) {
	matters := false
	for _, n := range l.needles {
		matters = matters || bytes.Contains(text, n)
	}
	if !matters {
		return
	}
	name, _, _ := strings.Cut(pkg, ":") // diversions do not name the architecture
	for line := range bytes.Lines(text) {
		path := l.a.canonicalBytes(bytes.TrimSuffix(line, []byte("\n")))
		if !l.listed[string(path)] {
			continue
		}
		at := string(path)
		if d, ok := l.d[at]; ok && d.by != name {
			at = d.to
		}
		l.w.found(at, pkg, l.owners)
	}
}

// canonicalBytes is canonical, and costs nothing for a path without alias.
func (a aliases) canonicalBytes(path []byte) []byte {
	if len(path) < 2 || path[0] != '/' || bytes.HasPrefix(path, []byte("/usr/")) && a["usr/sbin"] == "" {
		return path
	}
	first, _, ok := bytes.Cut(path[1:], []byte{'/'})
	if _, alias := a[string(first)]; !ok || !alias && string(first) != "usr" {
		return path
	}
	return []byte(a.canonical(string(path)))
}

// diversions are the paths that dpkg has moved out of the way, by
// dpkg-divert(1): what a package lists there is elsewhere.
type diversions map[string]diversion

type diversion struct {
	to string
	by string // the package whose own file is at the path; ":" is the administrator
}

// diversions reads dpkg's file of them: path, new path and package, a line each.
func (o Options) diversions(a aliases) (diversions, error) {
	text, err := os.ReadFile(o.path("/var/lib/dpkg/diversions"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := diversions{}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for ; len(lines) >= 3; lines = lines[3:] {
		d[a.canonical(lines[0])] = diversion{a.canonical(lines[1]), lines[2]}
	}
	return d, nil
}

// readInto reads a whole file into a buffer that is used again.
func readInto(buf []byte, path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return buf, err
	}
	defer f.Close()
	buf = buf[:0]
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, max(64<<10, cap(buf)))...)[:len(buf)]
		}
		n, err := f.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err == io.EOF {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
}
