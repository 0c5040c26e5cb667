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
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moult.example/internal/testneed"
)

// printFound is what this test binary does as another user.
func printFound() {
	rep, err := Find(context.Background(), Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(rep)
}

// openTo lets others enter a directory of the test.
func openTo(t *testing.T, dir string) {
	t.Helper()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// Without root the caller's own processes are judged as well as can be: the
// mapped inode cannot be looked at, only its numbers.
func TestFindWithoutRights(t *testing.T) {
	testneed.Root(t)
	if text, err := os.ReadFile("/proc/sys/kernel/yama/ptrace_scope"); err == nil && strings.TrimSpace(string(text)) != "0" {
		t.Skip("nobody may read the memory of another process here, not even of its own user (kernel.yama.ptrace_scope)")
	}
	if err := compileParts(); err != nil {
		t.Fatal(err)
	}
	openTo(t, programs)
	nobody := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	var all []situation
	for _, c := range changes {
		plugin := situation{name: "plugin " + c.name, want: c.want, note: c.note,
			begin: func(s *scene) *exec.Cmd {
				openTo(s.t, s.dir)
				return exec.Command(filepath.Join(programs, "hold"), "dlopen", s.put("part1.so", "d/plugin.so"))
			},
			after: func(s *scene) { c.do(s, "d/plugin.so", "part1.so", "part2.so") }}
		program := situation{name: "program " + c.name, want: c.want, note: c.note,
			begin: func(s *scene) *exec.Cmd { openTo(s.t, s.dir); return exec.Command(s.put("hold", "d/prog")) },
			after: func(s *scene) { c.do(s, "d/prog", "hold", "hold2") }}
		if c.name == "mode changed" { // it cannot be read by nobody then
			continue
		}
		// What was overwritten and has lost its name can be read by no way.
		switch c.name {
		case "overwritten, then renamed over":
			// the build id in memory is the new one's
			plugin.want = None
		case "overwritten and moved aside":
			plugin.want = Gone
		}
		if plugin.want == Gone { // when the file was made cannot be seen, and the test is in a temporary directory
			plugin.want, plugin.note = None, strings.HasPrefix(os.TempDir()+"/", "/tmp/")
			if !plugin.note {
				plugin.want = Gone
			}
		}
		all = append(all, plugin)
		if c.exe {
			all = append(all, program)
		}
	}
	for i := range all {
		begin := all[i].begin
		all[i].begin = func(s *scene) *exec.Cmd {
			cmd := begin(s)
			cmd.SysProcAttr = nobody
			return cmd
		}
	}
	scenes := play(t, all)
	self := filepath.Join(programs, "test")
	copyFile(t, "/proc/self/exe", self)
	cmd := exec.Command(self, "find")
	cmd.SysProcAttr = nobody
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var rep Report
	if err := json.Unmarshal(out, &rep); err != nil {
		t.Fatal(err)
	}
	for _, x := range all {
		got, note, text := judged(&rep, scenes[x.name].pid)
		if got != x.want || note != x.note {
			t.Errorf("%s: verdict %q, note %v, want %q, %v: %s", x.name, got, note, x.want, x.note, text)
		}
	}
	if !slices.Contains(rep.Unreadable, os.Getpid()) {
		t.Errorf("Unreadable = %v, want %d (of root) among them", rep.Unreadable, os.Getpid())
	}
}

// Who the process is, what it holds, and the filters.
func TestFindDescribes(t *testing.T) {
	if err := compileParts(); err != nil {
		t.Fatal(err)
	}
	all := []situation{
		{name: "one", want: Stale, begin: loads("lib.so"), after: func(s *scene) { s.replace("part2.so", "lib.so") }},
		{name: "two", want: Stale, begin: loads("lib.so"), after: func(s *scene) { s.replace("part2.so", "lib.so") }},
		{name: "open", begin: func(s *scene) *exec.Cmd {
			s.must(os.WriteFile(s.in("log"), make([]byte, 100<<10), 0o644))
			return exec.Command(filepath.Join(programs, "hold"), "open", s.in("log"))
		}, after: func(s *scene) { s.must(os.Remove(s.in("log"))) }},
		{name: "shm", begin: begins("code", "shm")}, // memory, not on a disk
	}
	began := time.Now()
	scenes := play(t, all)
	played := time.Now()
	one, two := scenes["one"], scenes["two"]
	rep, err := Find(t.Context(), Options{PIDs: []int{one.pid, scenes["open"].pid, scenes["shm"].pid}, Open: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Processes) != 1 || rep.Processes[0].PID != one.pid || rep.Scanned != 3 {
		t.Fatalf("got %+v, want process %d of 3 alone", rep.Processes, one.pid)
	}
	p := rep.Processes[0]
	if p.Comm != "hold" || p.UID != os.Geteuid() || p.User == "" || p.Exe != filepath.Join(programs, "hold") || p.Ticks == 0 {
		t.Errorf("got %+v", p)
	}
	if want := []string{filepath.Join(programs, "hold"), "dlopen", one.in("lib.so")}; !slices.Equal(p.Command, want) {
		t.Errorf("Command = %q, want %q", p.Command, want)
	}
	if p.Start.Before(began.Add(-time.Second)) || p.Start.After(played.Add(time.Second)) {
		t.Errorf("Start is %v, want it between %v and %v", p.Start, began, played)
	}
	f := p.Files[0]
	if f.Kind != KindLibrary || f.Path != one.in("lib.so") || f.Mapped != one.in("lib.so")+" (deleted)" ||
		len(f.RunsBuildID) != 40 || len(f.GetsBuildID) != 40 || f.RunsBuildID == f.GetsBuildID {
		t.Errorf("got %+v", f)
	}
	if !f.Since.After(p.Start) || f.Since.After(played.Add(time.Second)) {
		t.Errorf("it is old since %v, want that to be after its start %v and not after %v", f.Since, p.Start, played)
	}
	if len(rep.Held) != 2 || rep.Held[0].Path != scenes["open"].in("log")+" (deleted)" || rep.Held[0].Bytes != 100<<10 || rep.HeldBytes != rep.Held[0].Bytes+rep.Held[1].Bytes {
		t.Errorf("Held = %+v, %d in all, want the log and the library", rep.Held, rep.HeldBytes)
	}
	rep, err = Find(t.Context(), Options{PIDs: []int{one.pid, two.pid}, UIDs: []int{54321}})
	if err != nil || len(rep.Processes) != 0 || rep.Scanned != 0 {
		t.Errorf("of another user: got %+v, %v, want nothing", rep, err)
	}
}

// A program that can replace itself says so; what a child has inherited says
// nothing about the child.
func TestFindReexec(t *testing.T) {
	testneed.Tool(t, "cc")
	dir := t.TempDir()
	src := `#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
__attribute__((section(".note.moult"), used, aligned(4)))
static const struct { int n, d, t; char name[8]; char desc[4]; } note = {6, 4, 1, "moult", "x"};
int main(int n, char **args) {
	if (n > 1 && seteuid(atoi(args[1]))) return 1;
	int fd = memfd_create("moult-reexec", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (n > 2 && (seteuid(0) || setuid(atoi(args[2])))) return 1;
	dprintf(fd, "moult-reexec 1\npid %d\ngeneration 3\nsignal 12\n", getpid());
	fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL);
	int child = fork();
	if (child) { printf("%d\n", child); fflush(stdout); }
	for (;;) pause();
}
`
	if err := os.WriteFile(dir+"/p.c", []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	cases := map[string]bool{"": true}
	if os.Geteuid() == 0 { // who has made the file, and who holds it
		cases["0 65534"], cases["4711 65534"], cases["65534 65534"], cases["65534"] = true, false, true, true
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	run(t, "cc", "-o", dir+"/cc", dir+"/p.c", "-w")
	for args, believed := range cases {
		t.Run(args, func(t *testing.T) {
			run(t, "cp", dir+"/cc", dir+"/p")
			cmd := exec.Command(dir+"/p", strings.Fields(args)...)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var child int
			fmt.Fscan(out, &child)
			t.Cleanup(func() { unix.Kill(child, unix.SIGKILL); cmd.Process.Kill(); cmd.Wait() })
			if err := os.Remove(dir + "/p"); err != nil {
				t.Fatal(err)
			}
			rep, err := Find(t.Context(), Options{PIDs: []int{cmd.Process.Pid, child}})
			if err != nil || len(rep.Processes) != 2 {
				t.Fatalf("got %+v, %v, want two processes", rep, err)
			}
			user := os.Geteuid()
			if f := strings.Fields(args); len(f) > 0 {
				user, _ = strconv.Atoi(f[len(f)-1])
			}
			for _, p := range rep.Processes {
				if p.UID != user { // whether or not it may be dumped
					t.Errorf("process %d: got user %d, want %d", p.PID, p.UID, user)
				}
				switch {
				case (p.PID == child || !believed) && p.Reexec != nil:
					t.Errorf("process %d: got %+v, want nothing", p.PID, *p.Reexec)
				case p.PID != child && believed && (p.Reexec == nil || *p.Reexec != Reexec{1, 12, 3, true, 0, false}):
					t.Errorf("got %+v, want version 1, signal 12, generation 3, sealed", p.Reexec)
				}
			}
			if x := ReexecOf(cmd.Process.Pid); (x != nil) != believed {
				t.Errorf("ReexecOf: got %+v, want %v", x, believed)
			}
		})
	}
}

// Without the loader's lists, and on a kernel that cannot be asked, what the
// kernel prints is enough for the commonest cases.
func TestFindOtherWays(t *testing.T) {
	var all []situation
	for _, c := range changes {
		if strings.HasPrefix(c.name, "exchanged") || strings.Contains(c.name, "backup") || strings.Contains(c.name, "moved aside") || strings.Contains(c.name, "directory re") {
			continue // the kernel's name follows the file
		}
		all = append(all, situation{name: c.name, want: c.want, note: c.note, begin: loads("d/f.so"),
			after: func(s *scene) { c.do(s, "d/f.so", "part1.so", "part2.so") }})
	}
	scenes := play(t, all)
	for name, o := range map[string]Options{"maps only": {MapsOnly: true}, "text": {textOnly: true}, "text only": {textOnly: true, MapsOnly: true}} {
		rep, err := Find(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range all {
			if o.MapsOnly && (x.name == "overwritten by text" || x.name == "cut to nothing" || x.name == "overwritten, not cut") {
				continue // only the lists tell where the file was loaded
			}
			if got, note, text := judged(rep, scenes[x.name].pid); got != x.want || note != x.note {
				t.Errorf("%s, %s: verdict %q, note %v, want %q, %v: %s", name, x.name, got, note, x.want, x.note, text)
			}
		}
	}
}

// A recorded tree without root: what it says is followed, and a process that
// hangs does not hang the others.
func TestFindRecorded(t *testing.T) {
	t.Parallel()
	if err := compileParts(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, from := range map[string]string{"lib.so": "part1.so", "old.so": "part1.so", "new.so": "part2.so"} {
		copyFile(t, filepath.Join(programs, from), filepath.Join(dir, name))
	}
	line := func(path string, ino uint64) string {
		return fmt.Sprintf("7f0000001000-7f0000002000 r-xp 00001000 00:29 %d                    %s\n", ino, path)
	}
	lib, old := inode(t, dir+"/lib.so"), inode(t, dir+"/old.so")
	const link = "map_files/7f0000001000-7f0000002000"
	proc := fakeProc(t, map[string]fakeProcess{
		"1": {links: map[string]string{link: dir + "/lib.so"}, maps: line(dir+"/lib.so", lib.Ino)},
		"2": {stat: kernelStat},
		"3": {links: map[string]string{link: dir + "/old.so"}, maps: line(dir+"/new.so (deleted)", old.Ino)},
		"4": {links: map[string]string{link: dir + "/old.so"}, maps: line("/nowhere/none.so (deleted)", old.Ino)},
		"5": {links: map[string]string{}, maps: line("/memfd:jit (deleted)", 99)},
		"6": {links: map[string]string{}, maps: "nonsense\n" + line("/SYSV00000000 (deleted)", 98)},
		"7": {links: map[string]string{}},
	})
	fifo := filepath.Join(proc, "7/maps")
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
	rep, err := Find(t.Context(), Options{Proc: proc, Patience: patience})
	if err != nil {
		t.Fatal(err)
	}
	for pid, want := range map[int]Verdict{1: None, 2: None, 3: Stale, 4: Gone, 5: None, 6: None, 7: None} {
		if got, _, text := judged(rep, pid); got != want {
			t.Errorf("%d: verdict %q, want %q: %s", pid, got, want, text)
		}
	}
	if !slices.Equal(rep.Unreadable, []int{7}) {
		t.Errorf("Unreadable = %v, want [7]", rep.Unreadable)
	}
}
