package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

// limit is how long a test waits for what must come.
const limit = 5 * time.Minute

var update = flag.Bool("update", false, "write what the tests print as what they want")

// TestMain makes two programs of the test binary: moult, and faulty-moult, whose
// disk fails or kills it where MOULT_FAULT says (see [disktest.FromEnv]).
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"moult": main,
		"faulty-moult": func() {
			a := newApp(os.Stdin, os.Stdout, os.Stderr, os.Environ())
			a.disk = func(path string) (disk.FS, error) {
				fsys, err := disk.Open(path)
				if err != nil {
					return nil, err
				}
				return disktest.FromEnv(fsys)
			}
			os.Exit(a.run(untilSignal(), os.Args[1:]))
		},
	})
}

// TestScript runs testdata/script/*.txtar. Each is called after the command
// that it is about.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("MOULT_STATE_DIR", filepath.Join(env.WorkDir, "state"))
			env.Setenv("TZ", "UTC")
			env.Setenv("TERM", "dumb")
			env.Setenv("PATH", enterable(env.Getenv("PATH")+":/usr/sbin:/sbin"))
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":    exitsCommand,
			"json":     jsonCommand,
			"mode":     modeCommand,
			"samefile": sameFileCommand,
			"tree":     treeCommand,
			"damage":   damageCommand,
		},
	})
}

// enterable leaves out of a search path what this user may not enter: with it,
// what is not found there is a denial.
func enterable(path string) string {
	dirs := slices.DeleteFunc(filepath.SplitList(path), func(dir string) bool {
		_, err := os.Stat(dir + "/.")
		return errors.Is(err, fs.ErrPermission)
	})
	return strings.Join(dirs, string(filepath.ListSeparator))
}

// exits STATUS PROGRAM ARG... runs a program and wants that exit status.
func exitsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		if got = exit.ExitCode(); got < 0 { // killed: as a shell says it
			got = 128 + int(exit.Sys().(interface{ Signal() unix.Signal }).Signal())
		}
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// json KEY VALUE wants a value in the document on standard output: KEY is a path
// such as targets.0.live; VALUE is JSON, or text for a string. ! json KEY wants
// that there is none.
func jsonCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg && len(args) != 1 || !neg && len(args) != 2 {
		ts.Fatalf("usage: json KEY VALUE | ! json KEY")
	}
	var v any
	if err := json.Unmarshal([]byte(ts.ReadFile("stdout")), &v); err != nil {
		ts.Fatalf("standard output is no JSON document: %v", err)
	}
	for _, key := range strings.Split(args[0], ".") {
		v = member(v, key)
	}
	switch {
	case neg && v != nil:
		ts.Fatalf("%s is %v, want none", args[0], v)
	case neg:
		return
	}
	got, err := json.Marshal(v)
	ts.Check(err)
	if text, isText := v.(string); isText && text == args[1] {
		return
	}
	if string(got) != args[1] {
		ts.Fatalf("%s is %s, want %s", args[0], got, args[1])
	}
}

func member(v any, key string) any {
	switch v := v.(type) {
	case map[string]any:
		return v[key]
	case []any:
		if i, err := strconv.Atoi(key); err == nil && i < len(v) {
			return v[i]
		}
		if key == "length" {
			return float64(len(v))
		}
	}
	return nil
}

// mode FILE MODE wants the permission and set-id bits, in octal.
func modeCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: mode FILE MODE")
	}
	var st unix.Stat_t
	ts.Check(unix.Stat(ts.MkAbs(args[0]), &st))
	if got := fmt.Sprintf("%04o", st.Mode&0o7777); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// samefile A B wants two names of one inode, ! samefile two inodes.
func sameFileCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] samefile A B")
	}
	a, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if same := os.SameFile(a, b); same == neg {
		ts.Fatalf("%s and %s: the same file is %v", args[0], args[1], same)
	}
}

// tree DIR prints every name below DIR with its type, mode and the text of
// links, for cmp; moult's own .moult is left out.
func treeCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: tree DIR")
	}
	root := ts.MkAbs(args[0])
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		if d.IsDir() && d.Name() == ".moult" {
			return filepath.SkipDir
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		line := fmt.Sprintf("%s %s", info.Mode(), name)
		if d.Type() == os.ModeSymlink {
			text, err := os.Readlink(path)
			if err != nil {
				return err
			}
			line = fmt.Sprintf("link %s -> %s", name, text)
		}
		_, err = fmt.Fprintln(ts.Stdout(), line)
		return err
	})
	ts.Check(err)
}

// damage FILE changes a byte in place and puts size and time back, as a power
// cut under another tool can.
func damageCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: damage FILE")
	}
	path := ts.MkAbs(args[0])
	st, err := os.Stat(path)
	ts.Check(err)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	ts.Check(err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, 0)
	ts.Check(err)
	b[0] ^= 0xff
	_, err = f.WriteAt(b, 0)
	ts.Check(err)
	ts.Check(os.Chtimes(path, st.ModTime(), st.ModTime()))
}
