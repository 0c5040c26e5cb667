package stale

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Each way of using a file, by a real process, counts for the one of two
// hard-linked trees that it was reached through.
func TestEachWay(t *testing.T) {
	dir, trees := generations(t)
	in := func(name string) string { return filepath.Join(dir, "gen", name) }
	outside := filepath.Join(programs, "hold")
	tests := map[string]struct {
		cmd  *exec.Cmd
		want []string
	}{
		"nothing": {exec.Command(outside), nil},
		"executable of the older": {exec.Command(in("41/bin/hold")),
			[]string{"0 exe gen/41/bin/hold", "0 map gen/41/bin/hold"}},
		"executable of the newer": {exec.Command(in("42/bin/hold")),
			[]string{"1 exe gen/42/bin/hold", "1 map gen/42/bin/hold"}},
		"late library": {exec.Command(outside, "dlopen", in("41/lib/libx.so")),
			[]string{"0 map gen/41/lib/libx.so"}},
		"library of the other": {exec.Command(in("42/bin/static"), "map", in("41/lib/deep/one")),
			[]string{"0 map gen/41/lib/deep/one", "1 exe gen/42/bin/static", "1 map gen/42/bin/static"}},
		"mapped and split": {exec.Command(outside, "split", in("42/etc/big")),
			[]string{"1 map gen/42/etc/big"}},
		"open file": {exec.Command(outside, "open", in("42/etc/big")),
			[]string{"1 fd gen/42/etc/big"}},
		"open directory": {exec.Command(outside, "open", in("41/lib/deep")),
			[]string{"0 fd gen/41/lib/deep"}},
		"open root of the tree": {exec.Command(outside, "open", in("41")),
			[]string{"0 fd gen/41"}},
		"working directory": {exec.Command(outside, "chdir", in("42/etc")),
			[]string{"1 cwd gen/42/etc"}},
		"directory above": {exec.Command(outside, "chdir", in("")), nil},
		"thread with its own directory": {exec.Command(outside, "thread", in("41/lib")),
			[]string{"0 cwd gen/41/lib"}},
		"thread with its own descriptors": {exec.Command(outside, "files", in("41/etc/big")),
			[]string{"0 fd gen/41/etc/big"}},
		"first thread ended": {exec.Command(in("41/bin/hold"), "dlopen", in("42/lib/libx.so"), "quit"),
			[]string{"0 exe gen/41/bin/hold", "0 map gen/41/bin/hold", "1 map gen/42/lib/libx.so"}},
	}
	pids := map[string]int{}
	for name, tt := range tests {
		pids[name] = start(t, tt.cmd)
	}
	rep, err := Users(t.Context(), Options{}, trees)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) { wantUses(t, usesOf(rep, dir, pids[name]), tt.want...) })
	}
	if !rep.InUse(0) || !rep.InUse(1) {
		t.Errorf("InUse = %v, %v, want both true", rep.InUse(0), rep.InUse(1))
	}
}

func TestUserIsDescribed(t *testing.T) {
	dir, trees := generations(t)
	before := time.Now()
	pid := start(t, exec.Command(filepath.Join(dir, "gen/41/bin/hold")))
	after := time.Now()
	rep, err := Users(t.Context(), Options{}, trees)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(rep.Users, func(u User) bool { return u.PID == pid })
	if i < 0 {
		t.Fatalf("%d is not among %+v", pid, rep.Users)
	}
	u := rep.Users[i]
	if exe := trees[0].Dir + "/bin/hold"; u.Comm != "hold" || u.Exe != exe || u.Ticks == 0 {
		t.Errorf("got %+v, want comm hold and exe %s", u, exe)
	}
	if u.Start.Before(before.Add(-time.Second)) || u.Start.After(after.Add(time.Second)) {
		t.Errorf("Start is %v, want it between %v and %v", u.Start, before, after)
	}
}

// What the kernel calls deleted, and what only looks so.
func TestDeletedAndOddNames(t *testing.T) {
	dir, trees := generations(t)
	in := func(name string) string { return filepath.Join(dir, "gen", name) }
	for _, name := range []string{"41/lib/a\nb", "41/lib/a (deleted)", `41/lib/a\012b`, "42/lib/deep/gone"} {
		copyFile(t, filepath.Join(programs, "libx.so"), in(name))
	}
	hold := filepath.Join(programs, "hold")
	odd := start(t, exec.Command(hold, "dlopen", in("41/lib/a\nb"), "dlopen", in("41/lib/a (deleted)"),
		"dlopen", in(`41/lib/a\012b`)))
	replaced := start(t, exec.Command(in("41/bin/hold"), "dlopen", in("42/lib/deep/gone")))
	// The executable is unlinked from its own tree, and a library from the
	// only one that held it, with its directory.
	for _, name := range []string{"41/bin/hold", "42/lib/deep"} {
		if err := os.RemoveAll(in(name)); err != nil {
			t.Fatal(err)
		}
	}
	wantUses(t, users(t, dir, trees, odd),
		"0 map gen/41/lib/a\nb", "0 map gen/41/lib/a (deleted)", `0 map gen/41/lib/a\012b`)
	// The other tree holds the executable's inode, this one its directory.
	wantUses(t, users(t, dir, trees, replaced),
		"0 exe gen/41/bin/hold (deleted)", "0 map gen/41/bin/hold (deleted)",
		"1 exe gen/41/bin/hold (deleted)", "1 map gen/41/bin/hold (deleted)",
		"1 map gen/42/lib/deep/gone (deleted)")

	// A whole tree is renamed: the kernel prints the new path.
	if err := os.Rename(in("42"), in("43")); err != nil {
		t.Fatal(err)
	}
	late := start(t, exec.Command(hold, "dlopen", in("43/lib/libx.so")))
	wantUses(t, users(t, dir, []Tree{{Dir: in("43")}, trees[0]}, late), "0 map gen/43/lib/libx.so")
	wantUses(t, users(t, dir, trees[:1], late))
}

// A path that is longer than the kernel prints decides nothing.
func TestLongPath(t *testing.T) {
	dir, trees := generations(t)
	fd, err := unix.Open(trees[1].Dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		name := strings.Repeat("long", 60)
		if err := unix.Mkdirat(fd, name, 0o755); err != nil {
			t.Fatal(err)
		}
		sub, err := unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd = sub
	}
	deep := os.NewFile(uintptr(fd), "deep")
	defer deep.Close()
	cmd := exec.Command(filepath.Join(programs, "hold"))
	cmd.ExtraFiles = []*os.File{deep}
	wantUses(t, users(t, dir, trees, start(t, cmd)), "1 fd ")
}

// A tree that is given as a list of inodes, through a symbolic link, and one
// that has got a file since it was listed.
func TestGivenInodes(t *testing.T) {
	dir, trees := generations(t)
	given := make([]Tree, len(trees))
	for i, tree := range trees {
		link := filepath.Join(dir, "link"+filepath.Base(tree.Dir))
		if err := os.Symlink(tree.Dir, link); err != nil {
			t.Fatal(err)
		}
		var list []Inode
		err := filepath.WalkDir(tree.Dir, func(path string, _ fs.DirEntry, err error) error {
			list = append(list, inode(t, path))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		given[i] = Tree{Dir: link, Inodes: slices.Values(list)}
	}
	copyFile(t, filepath.Join(programs, "hold"), filepath.Join(trees[1].Dir, "bin/new"))
	pid := start(t, exec.Command(filepath.Join(trees[1].Dir, "bin/new"), "dlopen", filepath.Join(trees[0].Dir, "lib/libx.so")))
	want := []string{"0 map gen/41/lib/libx.so", "1 exe gen/42/bin/new", "1 map gen/42/bin/new"}
	wantUses(t, users(t, dir, given, pid), want...)
	wantUses(t, users(t, dir, trees, pid), want...)
}

func inode(t *testing.T, path string) Inode {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return Inode{uint64(st.Dev), st.Ino}
}

// UsersOf goes by inode alone, and by execution and mapping alone.
func TestUsersOf(t *testing.T) {
	dir, trees := generations(t)
	in := func(name string) string { return filepath.Join(dir, "gen", name) }
	pid := start(t, exec.Command(in("42/bin/hold"), "dlopen", in("42/lib/deep/one"), "open", in("41/etc/big"), "chdir", in("41")))
	files := []Inode{
		inode(t, in("41/etc/big")), inode(t, in("41/bin/hold")),
		inode(t, in("41/lib/deep/one")), inode(t, in("41")),
	}
	if err := os.RemoveAll(trees[1].Dir); err != nil {
		t.Fatal(err)
	}
	rep, err := UsersOf(t.Context(), Options{}, files)
	if err != nil {
		t.Fatal(err)
	}
	wantUses(t, usesOf(rep, dir, pid), "1 exe gen/42/bin/hold (deleted)", "1 map gen/42/bin/hold (deleted)",
		"2 map gen/42/lib/deep/one (deleted)")
}

// Processes come and go while we look: none of that is an error, and what has
// ended is no user.
func TestEndedIsNoUser(t *testing.T) {
	dir, trees := generations(t)
	zombie := exec.Command(filepath.Join(dir, "gen/41/bin/hold"), "map")
	if err := zombie.Start(); err != nil {
		t.Fatal(err)
	}
	defer zombie.Wait()
	// Ended, and nobody has asked for its status yet.
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, zombie.Process.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		short := exec.Command("true")
		if err := short.Start(); err != nil {
			t.Fatal(err)
		}
		rep, err := Users(t.Context(), Options{}, trees)
		if err != nil {
			t.Fatal(err)
		}
		wantUses(t, usesOf(rep, dir, zombie.Process.Pid))
		if slices.Contains(rep.Unreadable, zombie.Process.Pid) || slices.Contains(rep.Unreadable, short.Process.Pid) {
			t.Errorf("Unreadable = %v holds %d or %d, which have ended", rep.Unreadable, zombie.Process.Pid, short.Process.Pid)
		}
		short.Wait()
	}
}

// Our own descriptors are our caller's business, our directory is not.
func TestOurselves(t *testing.T) {
	dir, trees := generations(t)
	f, err := os.Open(filepath.Join(dir, "gen/41/etc/big"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	wantUses(t, users(t, dir, trees, os.Getpid()))
	t.Chdir(filepath.Join(dir, "gen/42/etc"))
	wantUses(t, users(t, dir, trees, os.Getpid()), "1 cwd gen/42/etc")
}

func TestErrors(t *testing.T) {
	dir := t.TempDir()
	_, err := Users(t.Context(), Options{}, []Tree{{Dir: filepath.Join(dir, "none")}})
	var pe *fs.PathError
	if !errors.As(err, &pe) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing tree: got %v, want a PathError with ENOENT", err)
	}
	_, err = Users(t.Context(), Options{Proc: filepath.Join(dir, "proc")}, []Tree{{Dir: dir}})
	if !errors.As(err, &pe) || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no /proc: got %v, want a PathError with ENOENT", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = Users(ctx, Options{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want %v", err, context.Canceled)
	}
}
