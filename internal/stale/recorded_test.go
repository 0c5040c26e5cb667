package stale

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fakeProcess is a process in a /proc of plain files and links.
type fakeProcess struct {
	links map[string]string // exe, cwd, root, fd/3, map_files/…; root and cwd are "/" if not given
	maps  string
	stat  string // what follows "pid (comm) "; "" is an ordinary one
}

const (
	ordinaryStat = "S 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0"
	kernelStat   = "S 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 20 0 1 0 17 0 0"
	zombieStat   = "Z 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 4711 0 0"
	undeadStat   = "Z 1 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 2 0 4711 0 0"
)

func fakeProc(t *testing.T, processes map[string]fakeProcess) string {
	t.Helper()
	proc := t.TempDir()
	write := func(path, text string) {
		mkdir(t, filepath.Dir(path))
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for pid, p := range processes {
		dir := filepath.Join(proc, pid)
		mkdir(t, dir+"/fd")
		if p.stat == "" {
			p.stat = ordinaryStat
		}
		write(dir+"/stat", fmt.Sprintf("%s (odd ) name) %s\n", pid, p.stat))
		write(dir+"/maps", p.maps)
		if p.stat == ordinaryStat {
			for _, name := range []string{"cwd", "root"} {
				if p.links[name] == "" {
					p.links[name] = "/"
				}
			}
			mkdir(t, dir+"/task/"+pid)
		}
		for name, to := range p.links {
			mkdir(t, filepath.Dir(filepath.Join(dir, name)))
			if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write(proc+"/version", "not a process\n")
	return proc
}

// A recorded tree: what /proc says is followed, and nothing that a process
// could write there makes us trip.
func TestRecorded(t *testing.T) {
	dir, trees := generations(t)
	in := func(name string) string { return filepath.Join(dir, "gen", name) }
	if err := os.Symlink("gen/41", dir+"/link"); err != nil {
		t.Fatal(err)
	}
	lib := inode(t, in("41/lib/libx.so"))
	// A line of maps with a device that stat(2) would not give.
	line := func(where, path string) string {
		return fmt.Sprintf("%s r-xp 00000000 00:29 %d                    %s\n", where, lib.Ino, path)
	}
	proc := fakeProc(t, map[string]fakeProcess{
		"1": {links: map[string]string{"exe": "/bin/sh"}},
		"2": {stat: kernelStat},
		"3": {links: map[string]string{"exe": in("41/bin/hold"), "cwd": in("41/etc"), "fd/7": in("42/etc/big")}},
		"4": {stat: zombieStat},
		"5": { // a padded address, as map_files does not have it
			links: map[string]string{"exe": "/bin/sh", "map_files/400000-401000": in("42/lib/libx.so")},
			maps:  line("00400000-00401000", "/not/what/it/says"),
		},
		"6": { // its mapping cannot be followed, only the path is known
			links: map[string]string{"exe": "/bin/sh"},
			maps:  line("7f0000400000-7f0000401000", in("41/lib/libx.so")),
		},
		"7": { // nor does the path lead there
			links: map[string]string{"exe": "/bin/sh"},
			maps:  line("7f0000400000-7f0000401000", "/gone/libx.so"),
		},
		"8": { // the same number, another file
			links: map[string]string{"exe": "/bin/sh", "map_files/7f0000400000-7f0000401000": "/bin/sh"},
			maps:  line("7f0000400000-7f0000401000", "/bin/sh"),
		},
		"9":  {links: map[string]string{"exe": "/bin/sh"}, maps: "nonsense\n"},
		"10": {links: map[string]string{"exe": "/bin/sh"}, maps: line("1-2", in("41/lib/libx.so"))[:40]},
		"11": {links: map[string]string{}, stat: "nonsense"},
		"12": { // ended, but for a thread that has ended since
			stat: undeadStat, links: map[string]string{"task/12/x": "x", "task/99/x": "x"},
		},
		"13": { // the path leads elsewhere by now
			links: map[string]string{"exe": "/bin/sh"},
			maps:  line("7f0000400000-7f0000401000", filepath.Join(programs, "libx.so")),
		},
		"14":  {stat: zombieStat, links: map[string]string{"exe": in("41/bin/hold")}}, // just ended
		"16":  {links: map[string]string{"exe": dir + "/link/bin/hold"}},              // not a path that the kernel would print now
		"015": {links: map[string]string{"exe": in("41/bin/hold")}},                   // no PID at all
	})
	rep, err := Users(t.Context(), Options{Proc: proc}, trees)
	if err != nil {
		t.Fatal(err)
	}
	for pid, want := range map[int][]string{
		1: nil, 2: nil, 4: nil, 8: nil, 12: nil, 14: nil, 15: nil,
		3:  {"0 cwd gen/41/etc", "0 exe gen/41/bin/hold", "1 fd gen/42/etc/big"},
		5:  {"1 map gen/42/lib/libx.so"},
		6:  {"0 map gen/41/lib/libx.so"},
		7:  {"0 map /gone/libx.so", "1 map /gone/libx.so"},
		13: {"0 map " + programs + "/libx.so", "1 map " + programs + "/libx.so"},
		16: {"0 exe link/bin/hold", "1 exe link/bin/hold"},
	} {
		t.Run(fmt.Sprint(pid), func(t *testing.T) { wantUses(t, usesOf(rep, dir, pid), want...) })
	}
	if want := []int{9, 10, 11}; !slices.Equal(rep.Unreadable, want) {
		t.Errorf("Unreadable = %v, want %v", rep.Unreadable, want)
	}
	if u := rep.Users[0]; u.PID != 3 || u.Comm != "odd ) name" || u.Ticks != 4711 || u.Exe != in("41/bin/hold") {
		t.Errorf("got %+v, want PID 3, comm %q, ticks 4711", u, "odd ) name")
	}
	if of := rep.Of(1); len(of) != 5 || of[0].PID != 3 || len(rep.Of(2)) > 0 {
		t.Errorf("Of(1) = %+v, want those of 3, 5, 7, 13 and 16; Of(2) = %+v, want none", of, rep.Of(2))
	}
	if rep.Hidden {
		t.Error("Hidden = true, but process 1 is there")
	}
}

// patience with one process is enough for all but one that hangs.
const patience = 6 * time.Second

// A process whose memory map cannot be read to its end, because its reader
// hangs, is unreadable; all others are found.
func TestPatience(t *testing.T) {
	t.Parallel()
	dir, trees := generations(t)
	exe := filepath.Join(dir, "gen/42/bin/hold")
	proc := fakeProc(t, map[string]fakeProcess{
		"7": {links: map[string]string{"exe": exe}},
		"8": {links: map[string]string{"exe": exe}},
	})
	fifo := filepath.Join(proc, "7/maps") // to open one waits for a writer
	if err := os.Remove(fifo); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if fd, err := unix.Open(fifo, unix.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
			unix.Close(fd)
		}
	})
	rep, err := Users(t.Context(), Options{Proc: proc, Patience: patience}, trees)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(rep.Unreadable, []int{7}) {
		t.Errorf("Unreadable = %v, want [7]", rep.Unreadable)
	}
	wantUses(t, usesOf(rep, dir, 8), "1 exe gen/42/bin/hold")
	if !rep.Hidden {
		t.Error("Hidden = false, but process 1 is not there")
	}
	if !rep.InUse(0) {
		t.Error("InUse(0) = false, but an unreadable process may use it")
	}
}
