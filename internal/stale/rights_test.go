package stale

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"moult.example/internal/testneed"
)

// printReport is what this test binary does as another user: look for the
// users of the trees that it is given.
func printReport(args []string) {
	trees := make([]Tree, len(args))
	for i, dir := range args {
		trees[i].Dir = dir
	}
	rep, err := Users(context.Background(), Options{}, trees)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(rep)
}

// Without rights map_files cannot be followed and other users' processes
// cannot be read: what is our own is found all the same, the rest is named.
func TestWithoutRights(t *testing.T) {
	testneed.Root(t)
	dir, trees := generations(t)
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
		if filepath.Dir(d) == os.TempDir() {
			break
		}
	}
	in := func(name string) string { return filepath.Join(dir, "gen", name) }
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}

	theirs := start(t, exec.Command(in("41/bin/hold")))
	cmd := exec.Command(in("42/bin/hold"), "dlopen", in("41/lib/libx.so"), "split", in("42/lib/deep/one"), "open", in("41/etc/big"))
	cmd.SysProcAttr = nobody
	own := start(t, cmd)
	copyFile(t, filepath.Join(programs, "libx.so"), in("41/lib/one"))
	if err := os.Link(in("41/lib/one"), in("42/lib/two")); err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command(in("42/bin/static"), "map", in("41/lib/one"))
	cmd.SysProcAttr = nobody
	lost := start(t, cmd)
	if err := os.Remove(in("41/lib/one")); err != nil {
		t.Fatal(err)
	}

	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "test")
	if err := os.WriteFile(binary, exe, 0o755); err != nil {
		t.Fatal(err)
	}
	look := exec.Command(binary, "report", trees[0].Dir, trees[1].Dir)
	look.SysProcAttr = nobody
	look.Stderr = os.Stderr
	out, err := look.Output()
	if err != nil {
		t.Fatal(err)
	}
	var rep Usage
	if err := json.Unmarshal(out, &rep); err != nil {
		t.Fatal(err)
	}
	wantUses(t, usesOf(rep, dir, own), "0 fd gen/41/etc/big", "0 map gen/41/lib/libx.so",
		"1 exe gen/42/bin/hold", "1 map gen/42/bin/hold", "1 map gen/42/lib/deep/one")
	wantUses(t, usesOf(rep, dir, lost), "0 map gen/41/lib/one (deleted)",
		"1 exe gen/42/bin/static", "1 map gen/41/lib/one (deleted)", "1 map gen/42/bin/static")
	wantUses(t, usesOf(rep, dir, theirs))
	if !slices.Contains(rep.Unreadable, theirs) || !rep.InUse(0) {
		t.Errorf("Unreadable = %v, want %d in it", rep.Unreadable, theirs)
	}
	if slices.Contains(rep.Unreadable, own) || slices.Contains(rep.Unreadable, 2) {
		t.Errorf("Unreadable = %v, want neither %d, our own, nor 2, the kernel's", rep.Unreadable, own)
	}

	// The same as root: all can be read, but for what a host keeps even from
	// its root, and for who comes, goes or becomes another program meanwhile.
	before := readable()
	full, err := Users(t.Context(), Options{}, trees)
	if err != nil {
		t.Fatal(err)
	}
	wantUses(t, usesOf(full, dir, theirs), "0 exe gen/41/bin/hold", "0 map gen/41/bin/hold")
	after := readable()
	for _, pid := range full.Unreadable {
		if who := after[pid]; who != "" && who == before[pid] {
			t.Errorf("as root Unreadable = %v, but %d can be read", full.Unreadable, pid)
		}
	}
	if full.Hidden {
		t.Errorf("as root Hidden = true, want false")
	}
}

// readable are the processes whose working directory we may see, with when each
// was started and what it executes.
func readable() map[int]string {
	all := map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		exe, err := os.Readlink(dir + "/exe")
		if err != nil {
			continue
		}
		if _, err := os.Readlink(dir + "/cwd"); err != nil {
			continue
		}
		if st, ok := parseStatus(stat); ok {
			all[pid] = fmt.Sprint(st.ticks, exe)
		}
	}
	return all
}
