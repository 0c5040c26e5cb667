package moult_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
)

const module = "moult.example"

// source is one file of the repository; syntax is nil if it is not Go.
type source struct {
	path   string // relative to the root, with slashes
	text   []byte
	fset   *token.FileSet
	syntax *ast.File
}

func (s *source) dir() string  { return path.Dir(s.path) }
func (s *source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

func (s *source) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", s.path, s.fset.Position(n.Pos()).Line)
}

// parse makes a source of a text.
func parse(name string, text []byte) (*source, error) {
	s := &source{path: name, text: text, fset: token.NewFileSet()}
	if !strings.HasSuffix(name, ".go") {
		return s, nil
	}
	var err error
	s.syntax, err = parser.ParseFile(s.fset, name, text, parser.ParseComments)
	return s, err
}

// repository reads all text files, but what the tools make.
func repository(t *testing.T) []*source {
	t.Helper()
	var all []*source
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (name == ".git" || name == "out") {
			return filepath.SkipDir
		}
		if !d.Type().IsRegular() || name == ".git" { // it is a file in a work tree of git's
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if bytes.IndexByte(text[:min(len(text), 8000)], 0) >= 0 {
			return nil // not text
		}
		s, err := parse(filepath.ToSlash(name), text)
		if err != nil {
			return err
		}
		all = append(all, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// goFiles are the Go files outside testdata.
func goFiles(all []*source) []*source {
	return slices.DeleteFunc(slices.Clone(all), func(s *source) bool {
		return s.syntax == nil || strings.Contains("/"+s.path, "/testdata/") || strings.HasPrefix(s.path, "examples/")
	})
}

// programFiles are the Go files that are no tests.
func programFiles(all []*source) []*source {
	return slices.DeleteFunc(goFiles(all), (*source).isTest)
}

// checks are all rules: each returns what is against it.
var checks = map[string]func([]*source) []string{
	"imports":         checkImports,
	"empty rooms":     checkEmptyRooms,
	"refused imports": checkRefusedImports,
	"dependencies":    checkDependencies,
	"go.mod":          checkGoMod,
	"package comment": checkPackageComments,
	"vague names":     checkNames,
	"file length":     checkLength,
	"gofmt":           checkFormat,
	"printing":        checkPrinting,
	"disk":            checkDisk,
	"machine paths":   checkPaths,
}

func TestStructure(t *testing.T) {
	all := repository(t)
	for name, check := range checks {
		t.Run(name, func(t *testing.T) {
			for _, problem := range check(all) {
				t.Error(problem)
			}
		})
	}
}

func importPaths(s *source) []string {
	var paths []string
	for _, i := range s.syntax.Imports {
		paths = append(paths, strings.Trim(i.Path.Value, `"`))
	}
	return paths
}

func checkImports(all []*source) (problems []string) {
	for _, s := range programFiles(all) {
		allowed, known := rooms[s.dir()]
		if !known {
			problems = append(problems, fmt.Sprintf("%s: package %s is not in the table of rooms; say there what it may import", s.path, s.dir()))
			continue
		}
		for _, p := range importPaths(s) {
			room, ours := strings.CutPrefix(p, module+"/")
			if ours && !slices.Contains(allowed, room) {
				problems = append(problems, fmt.Sprintf("%s imports %s: imports point down, and the table of rooms does not have this one", s.path, room))
			}
		}
	}
	return problems
}

// checkEmptyRooms finds lines of the table whose package is gone.
func checkEmptyRooms(all []*source) (problems []string) {
	for room := range rooms {
		if !slices.ContainsFunc(programFiles(all), func(s *source) bool { return s.dir() == room }) {
			problems = append(problems, fmt.Sprintf("the table of rooms has %s, which holds no package", room))
		}
	}
	return problems
}

func checkRefusedImports(all []*source) (problems []string) {
	for _, s := range programFiles(all) {
		for _, p := range importPaths(s) {
			if refused, is := refusedImports[p]; is && !slices.Contains(refused.may, s.dir()) {
				problems = append(problems, fmt.Sprintf("%s imports %s: %s", s.path, p, refused.why))
			}
		}
	}
	return problems
}

var isStandard = regexp.MustCompile(`^[^./]+(/|$)`)

func checkDependencies(all []*source) (problems []string) {
	for _, s := range goFiles(all) {
		who := s.dir()
		if s.isTest() {
			who += "_test"
		}
		for _, p := range importPaths(s) {
			if isStandard.MatchString(p) || p == module || strings.HasPrefix(p, module+"/") {
				continue
			}
			d, name := dependencyOf(p)
			may := slices.Contains(d.packages, anyone) || slices.Contains(d.packages, who) || s.isTest() && slices.Contains(d.packages, s.dir())
			if !may {
				problems = append(problems, fmt.Sprintf("%s imports %s: the table of dependencies allows %s to %v alone", s.path, p, orUnknown(name), d.packages))
			}
		}
	}
	return problems
}

var required = regexp.MustCompile(`(?m)^\t(\S+) v\S+$`) // without "// indirect"

func checkGoMod(all []*source) (problems []string) {
	for _, s := range all {
		if s.path != "go.mod" {
			continue
		}
		for _, match := range required.FindAllSubmatch(s.text, -1) {
			if _, known := dependencies[string(match[1])]; !known {
				problems = append(problems, fmt.Sprintf("go.mod requires %s, which the table of dependencies does not know: say there what for", match[1]))
			}
		}
	}
	return problems
}

func dependencyOf(importPath string) (dependency, string) {
	for p := importPath; p != "." && p != "/"; p = path.Dir(p) {
		if d, known := dependencies[p]; known {
			return d, p
		}
	}
	return dependency{}, ""
}

func orUnknown(name string) string {
	if name == "" {
		return "this module (which it does not know)"
	}
	return name
}

func checkPackageComments(all []*source) (problems []string) {
	comments := map[string][]string{}
	for _, s := range programFiles(all) {
		dir := s.dir()
		comments[dir] = append(comments[dir], "")[:len(comments[dir])]
		if s.syntax.Doc == nil {
			continue
		}
		comments[dir] = append(comments[dir], s.path)
		want := "Package " + s.syntax.Name.Name + " "
		if s.syntax.Name.Name == "main" {
			want = "Command " + path.Base(dir) + " "
		}
		if !strings.HasPrefix(s.syntax.Doc.Text(), want) {
			problems = append(problems, fmt.Sprintf("%s: the package comment does not begin with %q", s.path, want))
		}
	}
	for dir, files := range comments {
		if len(files) != 1 {
			problems = append(problems, fmt.Sprintf("%s: %d package comments, want one that says what is in this room and its rule %v", dir, len(files), files))
		}
	}
	return problems
}

func checkNames(all []*source) (problems []string) {
	for _, s := range programFiles(all) {
		base := strings.TrimSuffix(path.Base(s.path), ".go")
		if slices.Contains(vagueNames, s.syntax.Name.Name) || slices.Contains(vagueNames, path.Base(s.dir())) || slices.Contains(vagueNames, base) {
			problems = append(problems, fmt.Sprintf("%s: a name that says nothing; call it after the idea in it", s.path))
		}
	}
	return problems
}

func checkLength(all []*source) (problems []string) {
	var long []string
	files := programFiles(all)
	for _, s := range files {
		n := bytes.Count(s.text, []byte("\n"))
		if n > longFile {
			long = append(long, fmt.Sprintf("%s (%d)", s.path, n))
		}
		if n > worstFile {
			problems = append(problems, fmt.Sprintf("%s has %d lines, more than %d: it holds two ideas", s.path, n, worstFile))
		}
	}
	if len(long)*10 > len(files) {
		sort.Strings(long)
		problems = append(problems, fmt.Sprintf("%d of %d files have more than %d lines, want one of ten at most: %v", len(long), len(files), longFile, long))
	}
	return problems
}

func checkFormat(all []*source) (problems []string) {
	for _, s := range goFiles(all) {
		if text, err := format.Source(s.text); err != nil || !bytes.Equal(text, s.text) {
			problems = append(problems, fmt.Sprintf("%s: gofmt would change it (%v)", s.path, err))
		}
	}
	return problems
}

// machinePath is put together so that this file does not hold one.
var machinePath = regexp.MustCompile("/wo" + "rk/|/ho" + "me/[a-z]+/|/ro" + "ot/[a-z]")

func checkPaths(all []*source) (problems []string) {
	for _, s := range all {
		if found := machinePath.Find(s.text); found != nil {
			problems = append(problems, fmt.Sprintf("%s names %s: a path of somebody's machine", s.path, found))
		}
	}
	return problems
}
