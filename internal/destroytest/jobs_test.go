package destroytest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"moult.example/internal/disk/disktest"
)

// Two releases, of which the second changes, adds, removes and leaves alone:
// programs under two names, a library and the link to it, data.
var (
	release1 = files{
		"bin/tool": "0755:tool 1", "bin/alias": "=bin/tool", "share/same": "same",
		"lib/libx.so.1.0": "x 1", "lib/libx.so.1": "->libx.so.1.0", "VERSION": "1", "gone/old": "old",
	}
	release2 = files{
		"bin/tool": "0755:tool 2", "bin/alias": "=bin/tool", "share/same": "same",
		"lib/libx.so.1.1": "x 2", "lib/libx.so.1": "->libx.so.1.1", "VERSION": "2", "extra/new": "new",
	}
	release3 = files{"bin/tool": "0755:tool 3", "VERSION": "3"}
	present  = files{"bin/tool": "0755:tool 0", "bin/other": "other", "lib/old": "old", "etc/conf": "conf"}
)

// A job is one command on a target that earlier commands have brought to where
// it begins.
type job struct {
	name   string
	there  files      // in the target's directory before the first command; nil: there is no directory
	before [][]string // commands
	do     []string
	owned  bool // people see one release at every moment
	gone   bool // the target is none of moult's afterwards
}

func jobs() []job {
	// --packaged leaves out the reading of the package manager's lists, which
	// takes longer than all the rest.
	up1, up2 := []string{"apply", "--packaged", "r1", "app"}, []string{"apply", "--packaged", "r2", "app"}
	up3 := []string{"apply", "--packaged", "--generations", "9", "r3", "app"}
	more1 := []string{"apply", "--packaged", "--generations", "9", "r1", "app"}
	more2 := []string{"apply", "--packaged", "--generations", "9", "r2", "app"}
	adopt := []string{"apply", "--packaged", "--adopt", "r1", "app"}
	back := func(n string) []string { return []string{"rollback", "app", n} }
	gc := []string{"gc", "--generations", "1", "app"}
	forget := []string{"forget", "--force", "app"}
	type c = [][]string
	return []job{
		{"owned first", nil, c{}, up1, true, false},
		{"owned update", nil, c{up1}, up2, true, false},
		{"owned rollback", nil, c{up1, up2}, back("1"), true, false},
		{"owned gc", nil, c{more1, more2, up3}, gc, true, false},
		{"owned forget", nil, c{up1, up2}, forget, true, true},
		{"adopt", present, c{}, adopt, true, false},
		{"adopt rollback", present, c{adopt}, back("0"), true, false},
		{"shared first", present, c{}, up1, false, false},
		{"shared update", present, c{up1}, up2, false, false},
		{"shared rollback", present, c{up1, up2}, back("1"), false, false},
		{"shared rollback to 0", present, c{up1, up2}, back("0"), false, false},
		{"shared gc", present, c{more1, more2, up3}, gc, false, false},
		{"shared forget", present, c{up1, up2}, forget, false, true},
	}
}

// bench is a job on a host, ready to be done any number of times.
type bench struct {
	*host
	job
	app        string
	start      map[string]*disktest.Tree // of app and state, where they are there
	old, new   *disktest.Tree            // views
	operations []string                  // of the disk, undisturbed
}

// prepare brings a host to where the job begins, and does it once undisturbed.
func (j job) prepare(t testing.TB) *bench {
	t.Helper()
	b := &bench{host: newHost(t), job: j, start: map[string]*disktest.Tree{}}
	b.app = b.path("app")
	for name, r := range map[string]files{"r1": release1, "r2": release2, "r3": release3} {
		r.write(t, b.path(name))
	}
	if j.there != nil {
		j.there.write(t, b.app)
	}
	for _, args := range j.before {
		b.ok(args...)
	}
	ageHistory(t, b.app)
	for _, name := range []string{"app", "state"} {
		if _, err := os.Lstat(b.path(name)); err == nil {
			b.start[name] = capture(t, b.path(name))
		}
	}
	b.old = view(t, b.app)
	if got := b.finish(b.faulty([]string{"MOULT_FAULT_LOG=" + b.path("log")}, j.do...)); got.status != 0 {
		t.Fatal(got)
	}
	b.operations = b.log()
	b.new = view(t, b.app)
	return b
}

// log is what the disk was asked to do, as [disktest.FromEnv] has written it
// down: the operations, from the first.
func (b *bench) log() []string {
	b.Helper()
	text, err := os.ReadFile(b.path("log"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	must(b, err)
	must(b, os.Remove(b.path("log")))
	var ops []string
	for line := range strings.Lines(string(text)) {
		_, op, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		ops = append(ops, op)
	}
	return ops
}

// again puts everything back to where the job begins.
func (b *bench) again() {
	b.Helper()
	for _, name := range []string{"app", "state"} {
		must(b, os.RemoveAll(b.path(name)))
		if tree := b.start[name]; tree != nil {
			must(b, os.Mkdir(b.path(name), 0o755))
			must(b, tree.Materialize(b.path(name)))
		}
	}
}

var anyTime = regexp.MustCompile(`"time":"[^"]*"`)

// ageHistory lets everything in a target have happened an hour ago: what was
// live in the last minute is not collected.
func ageHistory(t testing.TB, target string) {
	t.Helper()
	var logs []string
	for _, pattern := range []string{".moult/history.jsonl", ".moult/*/history.jsonl"} {
		found, err := filepath.Glob(filepath.Join(target, pattern))
		must(t, err)
		logs = append(logs, found...)
	}
	then := `"time":"` + time.Now().Add(-time.Hour).UTC().Format(time.RFC3339) + `"`
	for _, path := range logs {
		text, err := os.ReadFile(path)
		must(t, err)
		must(t, os.WriteFile(path, anyTime.ReplaceAll(text, []byte(then)), 0o644))
	}
}
