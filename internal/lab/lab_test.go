package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"moult.example/internal/testneed"
)

// testDir is what all tests of the package share.
var testDir string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "moult-lab-test-")
	if err != nil {
		panic(err)
	}
	testDir = dir
	status := m.Run()
	os.RemoveAll(dir)
	os.Exit(status)
}

// built is the moult of this tree.
var built = sync.OnceValues(func() (string, error) {
	path := filepath.Join(testDir, "moult")
	cmd := exec.Command("go", "build", "-o", path, "moult.example/cmd/moult")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build moult: %w\n%s", err, out)
	}
	return path, nil
})

// measured is one quick run of everything, for all tests that look at a report.
var measured = sync.OnceValues(func() (*Report, error) {
	moult, err := built()
	if err != nil {
		return nil, err
	}
	return Run(context.Background(), Options{Dir: testDir, Moult: moult, Quick: true})
})

func fresh(t *testing.T) *Report {
	t.Helper()
	testneed.Tool(t, "cc")
	testneed.Tool(t, "rsync")
	r, err := measured()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// law is what must be the same on every kernel and file system.
type law struct {
	exe    Outcome // of a program in use, asleep or calling
	lib    string  // of a library in use: "unharmed", or "harmed"
	plugin Outcome
	start  string // what a process runs afterwards, of the program/the library
	inode  string
	links  string
	space  string // of the old library while it is in use
	home   string // the directory of a running program, as it sees it
	mixed  string // launches: "0", or "" for whatever it is
	failed string
}

var (
	inPlace = law{exe: Refused, lib: "harmed", plugin: Mixed, start: "old/new", inode: "same", links: New, space: "gone", home: "kept"}
	renamed = law{exe: Unharmed, lib: "unharmed", plugin: Mixed, start: "new/new", inode: "new", links: Old, space: "deleted", home: "kept", failed: "0"}
)

// but is a law with some of it changed.
func (l law) but(change func(*law)) law {
	change(&l)
	return l
}

var laws = map[string]law{
	"cp":                  inPlace,
	"cp-smaller":          inPlace,
	"echo":                inPlace.but(func(l *law) { l.plugin, l.start, l.links = Unloaded, "old/nothing", "other" }),
	"rm-cp":               renamed.but(func(l *law) { l.failed = "" }),
	"mv-aside":            renamed.but(func(l *law) { l.failed, l.space = "", "kept" }),
	"mv":                  renamed,
	"install":             renamed.but(func(l *law) { l.failed = "" }),
	"ln":                  renamed,
	"rsync":               renamed,
	"rsync-inplace":       inPlace,
	"rsync-delay-updates": renamed,
	"moult-install":       renamed,
	"moult-install-keep":  renamed,
	"moult-apply-shared":  renamed.but(func(l *law) { l.space = "kept" }),
	"moult-apply-owned":   renamed.but(func(l *law) { l.space, l.plugin, l.mixed = "kept", Unharmed, "0" }),
}

// observed is the row in the terms of a law; want says which of the launches
// have to be counted.
func observed(row Row, want law) law {
	got := law{
		exe:    row.exe().Outcome,
		lib:    "unharmed",
		plugin: row.Plugin.Outcome,
		start:  row.ExeAsleep.Started + "/" + row.LibAsleep.Started,
		inode:  row.Traits.Inode,
		links:  row.Traits.Links,
		space:  "gone",
		home:   row.ExeAsleep.Home,
	}
	fates := []Fate{row.LibAsleep, row.LibCalling, row.LibFix, row.LibShared}
	harmed := 0
	for _, f := range fates {
		if f.Outcome != Unharmed {
			harmed++
		}
	}
	switch harmed {
	case 0:
	case len(fates):
		got.lib = "harmed"
	default:
		got.lib = "some harmed"
	}
	switch h := row.LibAsleep.Held; {
	case h.Deleted > 0:
		got.space = "deleted"
	case h.Kept > 0:
		got.space = "kept"
	}
	if n := row.Launches; n != nil {
		if want.mixed != "" {
			got.mixed = fmt.Sprint(n.Mixed)
		}
		if want.failed != "" {
			got.failed = fmt.Sprint(n.Failed)
		}
	}
	return got
}

func TestLaws(t *testing.T) {
	r := fresh(t)
	for _, u := range r.Untried {
		t.Errorf("%s: not tried: %s", u.Title, u.Why)
	}
	for _, row := range r.Rows {
		want, ok := laws[row.Method]
		if !ok {
			t.Errorf("%s: no law for it", row.Method)
			continue
		}
		// Only these two kernels let a program in use be opened for writing.
		if want.exe == Refused && (strings.HasPrefix(r.Kernel, "6.11.") || strings.HasPrefix(r.Kernel, "6.12.")) {
			want.exe = row.exe().Outcome
		}
		if got := observed(row, want); got != want {
			t.Errorf("%s: got %+v\n\twant %+v\n\tsaid %q %q", row.Title, got, want, row.ExeAsleep.Said, row.LibAsleep.Said)
		}
		if n := row.Launches; n != nil && strings.HasPrefix(row.Method, "moult") && n.Errors > 0 {
			t.Errorf("%s: %d of %d switches failed: %s", row.Title, n.Errors, n.Switches, n.Said)
		}
	}
}

// The mode and owner that files arrive with are laws too, but for root only.
func TestTraits(t *testing.T) {
	r := fresh(t)
	if !r.Root {
		testneed.Skip(t, "needs root: owners cannot differ without")
	}
	want := map[string][2]string{
		"cp": {"kept", "kept"}, "cp-smaller": {"kept", "kept"}, "echo": {"kept", "kept"},
		"rm-cp": {"source", "caller"}, "mv-aside": {"source", "caller"}, "mv": {"source", "caller"},
		"install": {"0755", "caller"}, "ln": {"source", "source"},
		"rsync": {"source", "source"}, "rsync-inplace": {"source", "source"}, "rsync-delay-updates": {"source", "source"},
		"moult-install": {"0755", "caller"}, "moult-install-keep": {"kept", "kept"},
		"moult-apply-shared": {"source", "caller"}, "moult-apply-owned": {"source", "caller"},
	}
	for _, row := range r.Rows {
		if got := [2]string{row.Traits.Mode, row.Traits.Owner}; got != want[row.Method] {
			t.Errorf("%s: mode and owner %q, want %q", row.Title, got, want[row.Method])
		}
	}
}

// An interrupt leaves no process and no file.
func TestInterrupted(t *testing.T) {
	testneed.Tool(t, "cc")
	for _, at := range []string{"compile", "library, calling", "launches"} {
		t.Run(at, func(t *testing.T) {
			dir := t.TempDir()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			began := time.Time{}
			_, err := Run(ctx, Options{Dir: dir, Methods: []string{"mv"}, OnEvent: func(e Event) {
				if e.Step == at {
					began = time.Now()
					time.AfterFunc(5*time.Millisecond, cancel)
				}
			}})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("error %v, want %v (began %v)", err, context.Canceled, began)
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) > 0 {
				t.Errorf("left behind: %v, %v", left, err)
			}
			if p := processesIn(dir); len(p) > 0 {
				t.Errorf("processes left behind: %v", p)
			}
		})
	}
}

// processesIn are the processes that stand in or below dir, or run a file there.
func processesIn(dir string) []string {
	var found []string
	links, _ := filepath.Glob("/proc/[0-9]*/[ce][wx][de]") // cwd, exe
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, dir) {
			found = append(found, link+" "+to)
		}
	}
	return found
}

func TestWhatIsMissing(t *testing.T) {
	t.Run("compiler", func(t *testing.T) {
		dir := t.TempDir()
		_, err := Run(t.Context(), Options{Dir: dir, CC: "no-such-compiler -O9"})
		var missing *CompilerError
		if !errors.As(err, &missing) || missing.Command != "no-such-compiler -O9" || !errors.Is(err, exec.ErrNotFound) {
			t.Errorf("error %v, want a CompilerError that says not found", err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	t.Run("leave to execute", func(t *testing.T) {
		testneed.Tool(t, "cp")
		dir, cc := t.TempDir(), filepath.Join(t.TempDir(), "cc")
		// What it makes may not be executed by anybody, as on a mount with noexec.
		script := "while [ $# -gt 1 ]; do [ \"$1\" != -o ] || : > \"$2\"; shift; done\n"
		if err := os.WriteFile(cc, []byte(script), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := Run(t.Context(), Options{Dir: dir, CC: "sh " + cc})
		var launch *LaunchError
		if !errors.As(err, &launch) || launch.Why != "execve: permission denied" {
			t.Errorf("error %v, want a LaunchError that says permission denied", err)
		}
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	})
	t.Run("rsync and moult", func(t *testing.T) {
		bin := t.TempDir()
		for _, tool := range []string{"sh", "cp", "cc", "as", "ld"} {
			path, err := exec.LookPath(tool)
			if err != nil {
				testneed.Skip(t, "needs the program "+tool)
			}
			if err := os.Symlink(path, filepath.Join(bin, tool)); err != nil {
				t.Fatal(err)
			}
		}
		t.Setenv("PATH", bin)
		r, err := Run(t.Context(), Options{Dir: t.TempDir(), Methods: []string{"rsync", "mv", "moult-install"}})
		if err != nil {
			t.Fatal(err)
		}
		want := []Untried{
			{"rsync", "rsync", "no rsync here"},
			{"mv", "mv over", "no mv here"},
			{"moult-install", "moult install", "no moult program was named"},
		}
		if !slices.Equal(r.Untried, want) || len(r.Rows) != 0 {
			t.Errorf("untried %v, rows %v, want %v and none", r.Untried, r.Rows, want)
		}
	})
	t.Run("subcommand", func(t *testing.T) {
		testneed.Tool(t, "cc")
		r, err := Run(t.Context(), Options{Dir: t.TempDir(), Methods: []string{"moult-install"}, Moult: "/bin/false"})
		if err != nil || len(r.Untried) != 1 || r.Untried[0].Why != "false install: exit status 1" {
			t.Errorf("report %+v, error %v, want: false install: exit status 1", r, err)
		}
	})
	t.Run("method", func(t *testing.T) {
		_, err := Run(t.Context(), Options{Methods: []string{"scp"}})
		var unknown *UnknownMethodError
		if !errors.As(err, &unknown) || unknown.Name != "scp" {
			t.Errorf("error %v, want an UnknownMethodError for scp", err)
		}
	})
}
