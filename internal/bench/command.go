package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what one run of a job has taken.
type usage struct {
	wall, user, system time.Duration
	rss                int64 // bytes; the greatest of its processes
}

func (u usage) plus(v usage) usage {
	return usage{u.wall + v.wall, u.user + v.user, u.system + v.system, max(u.rss, v.rss)}
}

// environment is that of every program which is run: messages in English, and
// no trace of the targets in the state directory of whoever runs this.
func environment(dir string) []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if !strings.HasPrefix(name, "LC_") && name != "LANG" && name != "PATH" && name != "MOULT_STATE_DIR" {
			env = append(env, v)
		}
	}
	return append(env, "LC_ALL=C", "MOULT_STATE_DIR="+filepath.Join(dir, "state"),
		"PATH="+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin") // dpkg wants ldconfig
}

// command is a process to be, that is killed if ctx ends.
func (b *bench) command(ctx context.Context, argv ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = b.env
	cmd.Dir = b.dir
	return cmd
}

// run runs programs one after the other and says what they took together. Of
// the time between them, which is ours, nothing counts.
//
// The kernel counts to the resident memory of a process the most that its parent
// had ever had when it was started (setmax_mm_hiwater_rss in begin_new_exec): this
// program reads and writes in small pieces, and becomes small before each start.
func (b *bench) run(ctx context.Context, commands ...[]string) (usage, error) {
	var all usage
	for _, argv := range commands {
		var stderr bytes.Buffer
		cmd := b.command(ctx, argv...)
		cmd.Stderr = &stderr
		becomeSmall()
		began := time.Now()
		err := cmd.Run()
		wall := time.Since(began)
		if err != nil {
			return all, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(stderr.String()))
		}
		r := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		all = all.plus(usage{wall, cmd.ProcessState.UserTime(), cmd.ProcessState.SystemTime(), r.Maxrss << 10})
	}
	return all, nil
}

// becomeSmall gives what is free back to the kernel, if that is worth the page
// faults that follow, and has it forget the peak (proc_pid_clear_refs(5)).
func becomeSmall() {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	if m.HeapSys-m.HeapReleased > 8<<20 {
		debug.FreeOSMemory()
	}
	os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // it only makes figures better
}

// missing says which of some programs are not here; "" is none.
func missing(programs ...string) string {
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			return "no " + name + " here"
		}
	}
	return ""
}

// versions are the first lines of what each program says that it is.
func (b *bench) versions(ctx context.Context) map[string]string {
	versions := map[string]string{}
	for name, argv := range map[string][]string{
		"moult":  {b.moult, "version"},
		"rsync":  {"rsync", "--version"},
		"cp":     {"cp", "--version"},
		"ostree": {"ostree", "--version"},
		"dpkg":   {"dpkg", "--version"},
		"cc":     {"cc", "--version"},
	} {
		out, err := b.command(ctx, argv...).Output()
		if err != nil {
			continue
		}
		text := strings.TrimSpace(string(out))
		if i := strings.Index(text, "Version: "); i >= 0 {
			text = text[i:] // ostree prints YAML
		}
		versions[name], _, _ = strings.Cut(text, "\n")
	}
	return versions
}

// without runs a function on a thread, and so the processes that it starts, that
// keeps off one processor.
func without(cpu int, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	others := before
	others.Clear(cpu)
	if err := unix.SchedSetaffinity(0, &others); err != nil {
		return err
	}
	defer unix.SchedSetaffinity(0, &before)
	return f()
}

// lastCPU is the processor that an onlooker takes for itself, or why there is
// none to spare.
func lastCPU() (cpu int, why string) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0, err.Error()
	}
	if set.Count() < 2 {
		return 0, "it takes two processors"
	}
	for n, seen := 0, 0; seen < set.Count(); n++ {
		if set.IsSet(n) {
			cpu = n
			seen++
		}
	}
	return cpu, ""
}
