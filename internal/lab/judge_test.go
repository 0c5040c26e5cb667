package lab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"testing"

	"golang.org/x/sys/unix"
)

func TestJudge(t *testing.T) {
	const before = "exe=1 a=1 b=1 steady=1 faults=2"
	for _, c := range []struct {
		after string
		want  Fate
	}{
		{"exe=1 a=1 b=1 steady=1 faults=5", Fate{Outcome: Unharmed, Running: Old, Faults: 3}},
		{"exe=1 a=2 b=1 steady=1 faults=2", Fate{Outcome: Wrong, Running: New}},
		{"exe=1 a=0 b=1 steady=1 faults=2", Fate{Outcome: Wrong, Running: Garbled}},
		{"exe=1 a=1 b=1 steady=0 faults=2", Fate{Outcome: Wrong, Running: Garbled}},
		{"exe=1 b=1 steady=1 faults=2", Fate{Outcome: Wrong, Running: Garbled}},
		{"", Fate{Outcome: Wrong, Running: Garbled}},
	} {
		if got := judge(before, c.after, "a"); got != c.want {
			t.Errorf("judge(%q) = %+v, want %+v", c.after, got, c.want)
		}
	}
	for answer, want := range map[string]Fate{
		"plugin=1":              {Outcome: Unharmed, Running: Old},
		"plugin=2":              {Outcome: Mixed, Running: New},
		"plugin=0":              {Outcome: Wrong, Running: Garbled},
		"plugin fails: no room": {Outcome: Unloaded, Running: Nothing, Said: "plugin fails: no room"},
	} {
		if got := judgePlugin(answer); got != want {
			t.Errorf("judgePlugin(%q) = %+v, want %+v", answer, got, want)
		}
	}
}

func TestMixed(t *testing.T) {
	for answer, want := range map[string]bool{
		"exe=1 a=1 b=1 plugin=1": false,
		"exe=2 a=2 b=2 plugin=2": false,
		"exe=2 a=1 b=2 plugin=2": true,
		"exe=1 a=1 b=2 plugin=1": true,
		"exe=1 a=1 b=1 plugin=2": true,
		"exe=1 a=1 b=1":          true,
	} {
		if got := (launched{versions: fields(answer)}).mixed(); got != want {
			t.Errorf("mixed(%q) = %v, want %v", answer, got, want)
		}
	}
}

func TestMessages(t *testing.T) {
	for line, want := range map[string]string{
		"cp: cannot create regular file '/tmp/x y/moult-lab-12/target-3/target/bin/prog': Text file busy": "cp: cannot create regular file '/tmp/x bin/prog': Text file busy",
		"sh: 1: cannot create /tmp/moult-lab-12/target-3/target/lib/liba.so: Text file busy":              "sh: 1: cannot create lib/liba.so: Text file busy",
		"target-9/target/bin/../lib/libb.so: file too short":                                              "lib/libb.so: file too short",
		"nothing of ours": "nothing of ours",
	} {
		if got := trim(line); got != want {
			t.Errorf("trim(%q) = %q, want %q", line, got, want)
		}
	}
	for said, want := range map[string]string{
		"cp: cannot create regular file 'x': Text file busy": "ETXTBSY",
		"moult: install: x: permission denied":               "EACCES",
		"it rains":                                           "",
	} {
		if got := errnoOf(said); got != want {
			t.Errorf("errnoOf(%q) = %q, want %q", said, got, want)
		}
	}
}

// How a program that is gone ended is read from its wait status.
func TestFate(t *testing.T) {
	dir := t.TempDir()
	l := &lab{dir: dir, env: os.Environ()}
	for name, c := range map[string]struct {
		script string
		want   Fate
	}{
		"killed": {"kill -BUS $$", Fate{Outcome: Killed, Signal: "SIGBUS", Running: Nothing}},
		"exited": {"echo no symbol >&2; exit 127", Fate{Outcome: Exited, Status: 127, Running: Nothing, Said: "no symbol"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(dir, name)
			script := "#!/bin/sh\nulimit -c 0\necho ready\nread line\n" + c.script + "\n"
			// by a shell, so that no descriptor of ours makes it "text file busy"
			if err := exec.Command("sh", "-c", `printf %s "$1" > "$2"; chmod +x "$2"`, "sh", script, path).Run(); err != nil {
				t.Fatal(err)
			}
			p, err := l.start(context.Background(), path)
			if err != nil {
				t.Fatal(err)
			}
			defer p.end()
			if answer, err := p.ask(t.Context(), "ask"); err == nil {
				t.Fatalf("it answers %q, want its end", answer)
			}
			if got := p.fate(); got != c.want {
				t.Errorf("fate %+v, want %+v", got, c.want)
			}
		})
	}
}

// A victim's space is deleted, kept or overwritten, by link count and use.
func TestHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(path, "old")
	v, err := openVictim(path)
	if err != nil {
		t.Fatal(err)
	}
	defer v.close()
	if got := v.held(path, os.Getpid()); got != (Held{}) || !v.untouched(path) {
		t.Errorf("untouched: held %+v, untouched %v, want nothing and true", got, v.untouched(path))
	}
	write(path, "new")
	if v.untouched(path) {
		t.Error("other bytes in the same inode are untouched, want not")
	}
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	var stat unix.Stat_t
	if err := unix.Stat(path+".old", &stat); err != nil {
		t.Fatal(err)
	}
	if got, want := v.held(path, os.Getpid()), (Held{Kept: stat.Blocks * 512}); got != want {
		t.Errorf("moved aside: held %+v, want %+v", got, want)
	}
	if err := os.Remove(path + ".old"); err != nil {
		t.Fatal(err)
	}
	if got := v.held(path, os.Getpid()); got != (Held{}) {
		t.Errorf("deleted and mapped by nobody: held %+v, want nothing", got)
	}
	mapped, err := unix.Mmap(int(v.file.Fd()), 0, 3, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mapped)
	if got, want := v.held(path, os.Getpid()), (Held{Deleted: stat.Blocks * 512}); got != want {
		t.Errorf("deleted and mapped: held %+v, want %+v", got, want)
	}
}

// Every method of the table can be named, and no two alike.
func TestMethods(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range methods {
		if seen[m.name] || seen[m.title] {
			t.Errorf("%s or %s is there twice", m.name, m.title)
		}
		seen[m.name], seen[m.title] = true, true
		for _, name := range []string{m.name, m.title} {
			if got := find(name); got == nil || !reflect.DeepEqual(*got, m) {
				t.Errorf("find(%q) = %+v, want %s", name, got, m.name)
			}
		}
		if (m.one == "") != (m.layout != "") {
			t.Errorf("%s: a method takes files, or it takes trees and has a layout", m.name)
		}
	}
}
