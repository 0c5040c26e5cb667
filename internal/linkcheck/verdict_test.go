package linkcheck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// verdict is what there is to be said of a program that is loaded.
type verdict struct {
	fatal     string          // the loader gives up; why is not compared
	assertion string          // it ends the program with an assertion
	crashed   bool            // it crashes itself
	chance    bool            // it reads outside of its tables: what it says is chance
	unsure    map[string]bool // symbols whose versions the loader does not know for that
	text      string          // what was said
	loaded    []string        // real paths, in order
	missing   []string        // names
	undefined []string        // object symbol version
	versions  []string        // object needs file version
}

// real asks the loader. It maps and relocates, and runs nothing of the files:
// no initializers, no resolvers of IFUNCs (elf/rtld.c, rtld_mode_trace). All the
// same it gets an empty environment, no privileges and little time.
func real(t testing.TB, dir, program, libraryPath string) verdict {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	interp := "/lib64/ld-linux-x86-64.so.2"
	cmd := exec.CommandContext(ctx, interp, program)
	cmd.Dir = dir
	cmd.Env = []string{"LD_TRACE_LOADED_OBJECTS=1", "LD_WARN=1", "LD_BIND_NOW=1", "LC_ALL=C"}
	if libraryPath != "" {
		cmd.Env = append(cmd.Env, "LD_LIBRARY_PATH="+libraryPath)
	}
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Pdeathsig: syscall.SIGKILL}
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s: the loader does not end", program)
	}
	v := parseVerdict(stdout.String() + "\n" + stderr.String())
	v.text = stdout.String() + "\n" + stderr.String()
	var ee *exec.ExitError
	if errors.As(err, &ee) && v.fatal == "" && v.assertion == "" {
		v.crashed = strings.Contains(err.Error(), "signal")
		v.fatal = err.Error() + ": " + strings.TrimSpace(stderr.String())
	}
	return v
}

var (
	realFound     = regexp.MustCompile(`^\t(\S.*) => (\S.*) \(0x[0-9a-f]+\)$`)
	realPlain     = regexp.MustCompile(`^\t(/\S*) \(0x[0-9a-f]+\)$`)
	realMissing   = regexp.MustCompile(`^\t(\S.*) => not found$`)
	realUndefined = regexp.MustCompile(`^undefined symbol: ([^,]*)(?:, version (.*))?\t\((.*)\)$`)
	realVersion   = regexp.MustCompile("^.*: (.*): (?:weak )?version `(.*)' not found \\(required by (.*)\\)$")
)

func parseVerdict(text string) (v verdict) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if m := realMissing.FindStringSubmatch(line); m != nil {
			v.missing = append(v.missing, m[1])
		} else if m := realFound.FindStringSubmatch(line); m != nil {
			v.loaded = append(v.loaded, realPath(m[2]))
		} else if m := realPlain.FindStringSubmatch(line); m != nil {
			v.loaded = append(v.loaded, realPath(m[1]))
		} else if m := realUndefined.FindStringSubmatch(line); m != nil {
			v.undefined = append(v.undefined, realPath(m[3])+" "+m[1]+" "+m[2])
		} else if m := realVersion.FindStringSubmatch(line); m != nil {
			v.versions = append(v.versions, realPath(m[3])+" needs "+realPath(m[1])+" "+m[2])
		} else if strings.Contains(line, "Inconsistency detected by ld.so") {
			v.assertion = line
		} else if strings.Contains(line, "error while loading shared libraries") || strings.Contains(line, "DT_RELR without") {
			v.fatal = line
		}
	}
	v.tidy()
	return v
}

func (v *verdict) tidy() {
	v.loaded = slices.DeleteFunc(v.loaded, func(p string) bool {
		return strings.Contains(p, "/ld-linux") || strings.Contains(p, "-linux-musl/libc.so")
	})
	for _, s := range []*[]string{&v.missing, &v.undefined, &v.versions} {
		slices.Sort(*s)
		*s = slices.Compact(*s)
	}
}

var realPaths sync.Map

func realPath(p string) string {
	if r, ok := realPaths.Load(p); ok {
		return r.(string)
	}
	r, err := filepath.EvalSymlinks(p)
	if err != nil {
		r = p
	}
	if !strings.Contains(p, "moult-diff") {
		realPaths.Store(p, r)
	}
	return r
}

// ours is the same by our own lights.
func ours(t testing.TB, program, libraryPath string) verdict {
	v := verdict{unsure: map[string]bool{}}
	o := Options{MaxFindings: 1 << 20}
	if libraryPath != "" {
		o.LibraryPath = strings.Split(libraryPath, ":")
	}
	r, err := check(context.Background(), []string{program}, o, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		switch object := realPath(f.Object); f.Problem {
		case BadFile, NotLoadable, Alignment, ProcessorLevel, RelativeNeedsLibc:
			v.fatal = f.Object + ": " + f.Detail
			v.chance = v.chance || f.Detail == outsideText || f.Detail == copiesOwnText || f.Detail == ownTLSText
		case MissingLibrary:
			v.missing = append(v.missing, f.Needs)
		case MissingSymbol:
			v.undefined = append(v.undefined, object+" "+f.Symbol+" "+f.Version)
		case MissingVersion, NewerLibc:
			if f.Found == "" {
				v.assertion = f.Detail
				continue
			}
			v.versions = append(v.versions, object+" needs "+realPath(f.Found)+" "+f.Version)
		case NoVersions:
			v.assertion = f.Detail
		}
	}
	c, err := newChecker(o, map[fileID]bool{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.objects.close()
	if o, ok := c.open(program); ok {
		s := c.load(program, o)
		for _, l := range s.list {
			for _, n := range l.o.image.needs {
				if s.fakes[n.file] {
					l.o.image.beyond(s.fakes, v.unsure)
				}
			}
			if l != s.main {
				v.loaded = append(v.loaded, realPath(l.name))
			}
		}
	} else {
		v.fatal = fmt.Sprintf("%+v", r.Findings)
	}
	v.tidy()
	return v
}

// beyond are the symbols of a file whose versions are beyond the table that the
// loader makes when it is asked only: it leaves the versions out that are wanted
// of libraries which are missing (_dl_check_map_versions in elf/dl-version.c), and
// reads what lies behind the table, or has none. Whoever looks for such a symbol
// gets an answer by chance.
func (im *image) beyond(missing, unsure map[string]bool) {
	known := 0
	for i, v := range im.versions {
		if v.name != "" && !missing[v.file] {
			known = i + 1
		}
	}
	for i := range uint32(im.symbolCount()) {
		if n, ok := im.versionIndex(i); ok && int(n&maxVersions) >= known {
			if s, ok := im.symbol(i); ok {
				unsure[string(im.text(s.name))] = true
			}
		}
	}
}

// differ says how two verdicts differ; "" if they do not.
func differ(real, our verdict) string {
	if our.chance || len(real.missing) > 0 && strings.Contains(our.fatal, "versions of symbols are not loaded") {
		return ""
	}
	// When it is asked only, it goes on without a library that is missing.
	if real.crashed && len(our.missing) > 0 && our.fatal == "" {
		real.fatal, real.crashed, real.undefined, our.undefined = "", false, nil, nil
	}
	real.undefined, our.undefined = without(real.undefined, our.unsure), without(our.undefined, our.unsure)
	if dies := real.fatal + real.assertion; (dies != "") != (our.fatal+our.assertion != "") {
		return fmt.Sprintf("the loader gives up with %q, we with %q", dies, our.fatal+our.assertion)
	}
	if real.fatal != "" || our.fatal != "" {
		return "" // what was said before depends on how far it had come
	}
	if !slices.Equal(real.loaded, our.loaded) && real.assertion == "" {
		return fmt.Sprintf("the loader loads %q, we %q", real.loaded, our.loaded)
	}
	for _, s := range []struct {
		what      string
		real, our []string
	}{
		{"missing", real.missing, our.missing}, {"undefined", real.undefined, our.undefined}, {"versions", real.versions, our.versions},
	} {
		var more, less []string
		for _, x := range s.real {
			if !slices.Contains(s.our, x) {
				more = append(more, x)
			}
		}
		for _, x := range s.our {
			// an assertion ends the program before all is said
			if !slices.Contains(s.real, x) && real.assertion == "" {
				less = append(less, x)
			}
		}
		if len(more)+len(less) > 0 {
			return fmt.Sprintf("%s: only the loader has %q, only we %q", s.what, clip(more), clip(less))
		}
	}
	return ""
}

// without are the undefined symbols but for some.
func without(undefined []string, unsure map[string]bool) (left []string) {
	for _, u := range undefined {
		_, symbol, _ := strings.Cut(u, " ")
		symbol, _, _ = strings.Cut(symbol, " ")
		if !unsure[symbol] {
			left = append(left, u)
		}
	}
	return left
}

func clip(s []string) []string { return s[:min(len(s), 5)] }
