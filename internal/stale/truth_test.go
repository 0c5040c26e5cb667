package stale

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moult.example/internal/testneed"
)

// A situation is one line of the truth table: a process, something that happens
// to its files, and what is true then.
type situation struct {
	name string
	want Verdict // of the process
	note bool    // instead of a verdict there is a suspicion
	same bool    // with Strict, it is Same

	// begin starts the process; after returns when the change is made.
	begin func(s *scene) *exec.Cmd
	after func(s *scene)
}

// scene is the place of one situation.
type scene struct {
	t    *testing.T
	dir  string
	pid  int
	said *bufio.Reader
}

func (s *scene) in(name string) string { return filepath.Join(s.dir, name) }

// put copies a compiled file into the scene.
func (s *scene) put(from, to string) string {
	s.t.Helper()
	mkdir(s.t, filepath.Dir(s.in(to)))
	copyFile(s.t, filepath.Join(programs, from), s.in(to))
	return s.in(to)
}

func (s *scene) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) rename(from, to string) { s.t.Helper(); s.must(os.Rename(s.in(from), s.in(to))) }

// replace renames another file over one.
func (s *scene) replace(from, to string) {
	s.t.Helper()
	s.put(from, to+".new")
	s.rename(to+".new", to)
}

// overwrite writes into the file itself, after cutting it to nothing or not.
func (s *scene) overwrite(from, to string, cut bool) {
	s.t.Helper()
	data, err := os.ReadFile(filepath.Join(programs, from))
	s.must(err)
	flags := os.O_WRONLY
	if cut {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(s.in(to), flags, 0)
	s.must(err)
	_, err = f.Write(data)
	s.must(err)
	s.must(f.Close())
}

// go on lets a process go on that awaits a file, and waits until it is ready.
func (s *scene) resume() {
	s.t.Helper()
	s.must(os.WriteFile(s.in("go"), nil, 0o644))
	s.expect("ready")
}

func (s *scene) expect(word string) {
	s.t.Helper()
	line, err := s.said.ReadString('\n')
	if err != nil || line != word+"\n" {
		s.t.Fatalf("it said %q, %v, want %s", line, err, word)
	}
}

func (s *scene) shell(script string) {
	s.t.Helper()
	cmd := exec.Command("sh", "-ec", script, "sh", s.dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// inside runs a script in the mounts of the process.
func (s *scene) inside(script string) {
	s.t.Helper()
	run(s.t, "nsenter", "-t", fmt.Sprint(s.pid), "-m", "sh", "-ec", script, "sh", s.dir)
}

// compileParts makes what the truth table needs: two versions of a library with
// other layouts (part1.so, part2.so), one with the first's layout and another
// byte (part1p.so), and programs that need it.
var compileParts = sync.OnceValue(func() error {
	if err := compile(); err != nil {
		return err
	}
	cc := func(args ...string) error {
		cmd := exec.Command("cc", append(args, "-O1", "-w")...)
		cmd.Dir = programs
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("cc %q: %w\n%s", args, err, out)
		}
		return nil
	}
	src, err := filepath.Abs("testdata")
	if err != nil {
		return err
	}
	relro := "-Wl,-z,relro"
	for _, args := range [][]string{
		{"-shared", "-fPIC", relro, "-DVERSION=1", "-o", "part1.so", src + "/part.c", "-Wl,-soname,libpart.so.1"},
		{"-shared", "-fPIC", relro, "-DVERSION=2", "-DEXTRA=7", "-o", "part2.so", src + "/part.c", "-Wl,-soname,libpart.so.1"},
		{"-o", "needs", src + "/hold.c", "-pthread", "-ldl", "-Wl,--no-as-needed", "part1.so", "-Wl,-rpath,$ORIGIN"},
		{"-o", "needs2", src + "/hold.c", "-pthread", "-ldl", "-Wl,--no-as-needed", "part1.so", "-Wl,-rpath,$ORIGIN", "-g"},
		{"-shared", "-fPIC", relro, "-DVERSION=3", "-o", "part3.so", src + "/part.c", "-Wl,-soname,libpart.so.3"},
		{"-o", "needs3", src + "/hold.c", "-pthread", "-ldl", "-Wl,--no-as-needed", "part3.so", "-Wl,-rpath,$ORIGIN"},
		{"-o", "hold2", "-g", src + "/hold.c", "-pthread", "-ldl"},
		{"-o", "static2", "-g", src + "/hold.c", "-static", "-pthread"},
		{"-o", "staticpie", src + "/hold.c", "-static-pie", "-pthread"},
	} {
		if err := cc(args...); err != nil {
			return err
		}
	}
	data, err := os.ReadFile(filepath.Join(programs, "part1.so"))
	if err != nil {
		return err
	}
	data = bytes.Replace(data, []byte("patch level 0"), []byte("patch level 1"), 1)
	return os.WriteFile(filepath.Join(programs, "part1p.so"), data, 0o755)
})

// play starts all processes, waits until the clock of files is past their
// start, makes all changes, and returns the scenes.
func play(t *testing.T, all []situation) map[string]*scene {
	t.Helper()
	testneed.Tool(t, "cc")
	if err := compileParts(); err != nil {
		t.Fatal(err)
	}
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	scenes := map[string]*scene{}
	for i, x := range all {
		s := &scene{t: t, dir: filepath.Join(base, fmt.Sprint(i))}
		mkdir(t, s.dir)
		cmd := x.begin(s)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		s.must(err)
		s.must(cmd.Start())
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		s.pid, s.said = cmd.Process.Pid, bufio.NewReader(out)
		scenes[x.name] = s
	}
	for _, x := range all {
		s := scenes[x.name]
		line, err := s.said.ReadString('\n')
		if err != nil || line != "ready\n" && line != "waiting\n" {
			if err == io.EOF {
				err = fmt.Errorf("it ended")
			}
			t.Fatalf("%s: said %q, %v", x.name, line, err)
		}
	}
	passTick(t, base)
	for _, x := range all {
		if x.after != nil {
			x.after(scenes[x.name])
		}
	}
	return scenes
}

// passTick waits until files that change are younger than processes that were
// started before, by more than one tick.
func passTick(t *testing.T, dir string) {
	t.Helper()
	begin := time.Now()
	probe := filepath.Join(dir, "probe")
	for deadline := begin.Add(5 * time.Minute); ; time.Sleep(time.Millisecond) {
		if err := os.WriteFile(probe, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		f, err := inspect(unix.AT_FDCWD, probe, 0)
		if err != nil || time.Now().After(deadline) {
			t.Fatal("the clock of files stands still", err)
		}
		if f.changed > begin.Add(3*tick).UnixNano() {
			return
		}
	}
}

// judged is what Find says of a process.
func judged(rep *Report, pid int) (v Verdict, note bool, text string) {
	i := slices.IndexFunc(rep.Processes, func(p Process) bool { return p.PID == pid })
	if i < 0 {
		return None, false, "nothing"
	}
	var b strings.Builder
	for _, f := range rep.Processes[i].Files {
		fmt.Fprintf(&b, "%q (%q) %s %s: %s %q; ", f.Path, f.Mapped, f.Kind, f.Verdict, f.Why, f.Notes)
		note = note || len(f.Notes) > 0
	}
	return rep.Processes[i].Verdict(), note, b.String()
}

// compareTruth looks at all processes and at what is true.
func compareTruth(t *testing.T, all []situation) map[string]*scene {
	t.Helper()
	scenes := play(t, all)
	for _, strict := range []bool{false, true} {
		rep, err := Find(t.Context(), Options{Strict: strict})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range all {
			got, note, text := judged(rep, scenes[x.name].pid)
			want := x.want
			if strict && x.same {
				want = Same
			}
			if got != want || note && !x.note || x.note && !note {
				t.Errorf("%s (strict %v): verdict %q, note %v, want %q, %v: %s", x.name, strict, got, note, want, x.note, text)
			}
			if slices.Contains(rep.Unreadable, scenes[x.name].pid) {
				t.Errorf("%s: unreadable", x.name)
			}
		}
	}
	return scenes
}
