package deploy

import (
	"bufio"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/stale"
	"moult.example/internal/testneed"
)

// versions compiles two releases of a program and the library that it needs.
func versions(t *testing.T) [2]tree {
	t.Helper()
	testneed.Tool(t, "cc")
	dir := t.TempDir()
	must(t, os.WriteFile(dir+"/lib.c", []byte("const char *const names[] = {V, \"b\"}; int part(void) { return names[0][0]; }\n"), 0o644))
	must(t, os.WriteFile(dir+"/prog.c", []byte(`#include <stdio.h>
#include <unistd.h>
int part(void);
int main(void) { puts(part() ? "ready" : ""); fflush(stdout); for (;;) pause(); }
`), 0o644))
	var out [2]tree
	for i, v := range []string{"1.0", "2.0"} {
		cc := func(args ...string) string {
			cmd := exec.Command("cc", args...)
			cmd.Dir = dir
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("cc %q: %v\n%s", args, err, text)
			}
			data, err := os.ReadFile(dir + "/" + args[1])
			must(t, err)
			return string(data)
		}
		lib := cc("-o", "libpart.so", "-shared", "-fPIC", "-O1", `-DV="`+v+`"`, "lib.c")
		prog := cc("-o", "prog", "-O1", "prog.c", "libpart.so", "-Wl,-rpath,$ORIGIN/../lib")
		if i == 1 {
			prog += "2" // other bytes, the same program
		}
		out[i] = tree{
			"bin/prog": "0755:" + prog, "lib/libpart.so": "0755:" + lib, "lib/same": "same",
			"moult.toml": "name = \"app\"\nversion = \"" + v + "\"\n",
		}
	}
	return out
}

// runs starts a program that says "ready", and ends it after the test.
func runs(t *testing.T, path string) (pid int) {
	t.Helper()
	cmd := exec.Command(path)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Fatalf("%s said %q, %v", path, line, err)
	}
	return cmd.Process.Pid
}

// stales looks at one process, with new books.
func stales(t *testing.T, target *Target, pid int) *stale.Process {
	t.Helper()
	rep, err := stale.Find(t.Context(), stale.Options{PIDs: []int{pid}, Places: NewPlaces(target.opts)})
	must(t, err)
	if len(rep.Processes) == 0 {
		return nil
	}
	return &rep.Processes[0]
}

// The generations of an owned target, and what a shared one has put aside, are
// known by what processes run.
func TestPlaces(t *testing.T) {
	for _, layout := range []Layout{Owned, Shared} {
		t.Run(string(layout), func(t *testing.T) {
			releases := versions(t)
			dir := filepath.Join(t.TempDir(), "app")
			target := open(t, dir)
			apply(t, target, releases[0], ApplyOptions{Layout: layout})
			first := runs(t, dir+"/bin/prog")
			awaitTick(t, dir)
			if p := stales(t, target, first); p != nil {
				t.Errorf("before: got %+v, want nothing", p)
			}
			apply(t, target, releases[1], ApplyOptions{})
			p := stales(t, target, first)
			if p == nil || p.Verdict() != stale.Stale {
				t.Fatalf("after: got %+v, want it stale", p)
			}
			if p.Runs.Version != "1.0" || p.Runs.Generation != 1 || p.Gets.Version != "2.0" || p.Gets.Generation != 2 || p.Runs.Target != dir || p.Gets.Product != "app" {
				t.Errorf("it runs %+v and gets %+v, want 1.0 of generation 1 and 2.0 of generation 2", p.Runs, p.Gets)
			}
			if len(p.Files) != 2 || !slices.ContainsFunc(p.Files, func(f stale.File) bool {
				return f.Kind == stale.KindLibrary && strings.HasSuffix(f.Path, "/lib/libpart.so") && f.Verdict == stale.Stale && f.Runs.Generation == 1
			}) {
				t.Errorf("its files are %+v, want prog and libpart.so", p.Files)
			}
			second := runs(t, dir+"/bin/prog")
			if p := stales(t, target, second); p != nil {
				t.Errorf("started afterwards: got %+v, want nothing", p)
			}
			_, err := target.Rollback(context.Background(), RollbackOptions{Generation: -1})
			must(t, err)
			if p := stales(t, target, first); p != nil {
				t.Errorf("after the rollback: got %+v, want nothing", p)
			}
			p = stales(t, target, second)
			if p == nil || p.Runs.Generation != 2 || p.Gets.Generation != 1 {
				t.Errorf("after the rollback, what was started in between: got %+v, want 2 and 1", p)
			}
		})
	}
}

// Since when old code runs is when the new release became live, not when its
// files were staged; and a release between the two that had the same file does
// not count.
func TestPlacesSince(t *testing.T) {
	for _, layout := range []Layout{Owned, Shared} {
		t.Run(string(layout), func(t *testing.T) {
			releases := versions(t)
			between := maps.Clone(releases[0])
			between["lib/same"] = "different"
			dir := filepath.Join(t.TempDir(), "app")
			target := open(t, dir)
			apply(t, target, releases[0], ApplyOptions{Layout: layout})
			pid := runs(t, dir+"/bin/prog")
			awaitTick(t, dir)
			apply(t, target, between, ApplyOptions{})
			_, err := target.Stage(context.Background(), openRelease(t, releases[1].write(t, t.TempDir())), ApplyOptions{})
			must(t, err)
			awaitTick(t, dir)
			_, err = target.Commit(context.Background(), CommitOptions{})
			must(t, err)
			records, err := target.History("")
			must(t, err)
			p := stales(t, target, pid)
			if p == nil || len(p.Files) != 2 {
				t.Fatalf("got %+v, want two old files", p)
			}
			for _, f := range p.Files {
				if want := records[len(records)-1].Time; !f.Since.Equal(want) {
					t.Errorf("%s: since %v, want %v; its history is %+v", f.Path, f.Since, want, records)
				}
			}
		})
	}
}

// A file whose times say that it was written to is settled by its digest.
func TestPlacesSettle(t *testing.T) {
	releases := versions(t)
	dir := filepath.Join(t.TempDir(), "app")
	target := open(t, dir)
	apply(t, target, releases[0], ApplyOptions{})
	pid := runs(t, dir+"/bin/prog")
	awaitTick(t, dir)
	now := time.Now()
	must(t, os.Chtimes(dir+"/lib/libpart.so", now, now))
	if p := stales(t, target, pid); p != nil {
		t.Errorf("touched: got %+v, want nothing", p)
	}
	rep, err := stale.Find(t.Context(), stale.Options{PIDs: []int{pid}})
	must(t, err)
	if len(rep.Processes) != 1 || len(rep.Processes[0].Files[0].Notes) != 1 {
		t.Errorf("without the books: got %+v, want a note", rep.Processes)
	}
}

// Books that others may write to are not believed.
func TestPlacesTrust(t *testing.T) {
	testneed.Root(t)
	dir := filepath.Join(t.TempDir(), "app")
	target := open(t, dir)
	apply(t, target, v1, ApplyOptions{})
	path := dir + "/.moult/generations/1/bin/tool"
	if o, ok := NewPlaces(target.opts).Origin(path); !ok || o.Generation != 1 {
		t.Errorf("Origin = %+v, %v, want generation 1", o, ok)
	}
	must(t, os.Chown(dir+"/.moult", 12345, 0))
	if o, ok := NewPlaces(target.opts).Origin(path); ok {
		t.Errorf("of another user: Origin = %+v, want none", o)
	}
}

func TestPlacesLive(t *testing.T) {
	p := NewPlaces(Options{})
	for path, want := range map[string]string{
		"/opt/app/.moult/generations/41/bin/x":   "/opt/app/.moult/live/bin/x",
		"/opt/app/.moult/generations/41":         "/opt/app/.moult/live",
		"/opt/app/.moult/generations/041/bin/x":  "/opt/app/.moult/generations/041/bin/x",
		"/opt/app/.moult/generations/.trash-4/x": "/opt/app/.moult/generations/.trash-4/x",
		"/opt/app/bin/x":                         "/opt/app/bin/x",
		"":                                       "",
	} {
		if got := p.Live(path); got != want {
			t.Errorf("Live(%q) = %q, want %q", path, got, want)
		}
	}
}

// awaitTick waits until files that change are younger than the processes that
// run, by more than a tick of the clock.
func awaitTick(t *testing.T, dir string) {
	t.Helper()
	begin := time.Now()
	for deadline := begin.Add(5 * time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		must(t, os.WriteFile(filepath.Dir(dir)+"/probe", nil, 0o644))
		var st unix.Stat_t
		must(t, unix.Stat(filepath.Dir(dir)+"/probe", &st))
		if st.Mtim.Nano() > begin.Add(30*time.Millisecond).UnixNano() {
			return
		}
	}
	t.Fatal("the clock of files stands still")
}
