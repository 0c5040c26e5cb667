package stale

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"moult.example/internal/testneed"
)

// Whoever runs code from a file system that a program serves is looked into if
// that answers, and counts as not seen if it does not.
func TestServedFileSystem(t *testing.T) {
	testneed.Root(t)
	dir, _ := generations(t)
	pid := shell(t, dir, `mkdir -p $1/at; mount -t tmpfs none $1/at; cp $1/gen/41/bin/static $1/at/prog; exec $1/at/prog`)
	for _, answers := range []bool{true, false} {
		t.Run(fmt.Sprint(answers), func(t *testing.T) {
			var asked atomic.Int32
			o := Options{PIDs: []int{pid}, asFUSE: "tmpfs", Answers: func(path string, within time.Duration) bool {
				if asked.Add(1); !strings.HasPrefix(path, fmt.Sprintf("/proc/%d/map_files/", pid)) || within <= 0 {
					t.Errorf("asked for %q and %v, want a mapping of process %d and some time", path, within, pid)
				}
				return answers
			}}
			for _, o.textOnly = range []bool{false, true} {
				asked.Store(0)
				rep, err := Find(t.Context(), o)
				if err != nil || rep.Scanned != 1 || slices.Contains(rep.Unreadable, pid) == answers || asked.Load() != 1 {
					t.Fatalf("asked %d times, process %d, not seen %v, %v; want one, and the process seen: %v", asked.Load(), pid, rep.Unreadable, err, answers)
				}
			}
			o.asFUSE = ""
			if rep, err := Find(t.Context(), o); err != nil || len(rep.Unreadable) != 0 || asked.Load() != 1 {
				t.Errorf("process %d: not seen %v, %v, asked %d times, want the process seen and a file system of the kernel not asked", pid, rep.Unreadable, err, asked.Load())
			}
		})
	}
}

func TestParseMount(t *testing.T) {
	for line, want := range map[string]string{
		"36 35 0:51 / /mnt/a\\040-\\040b rw,noatime shared:7 master:1 - fuse.sshfs host:/ rw\n": "0:51 fuse.sshfs",
		"36 35 98:0 /mnt1 /mnt2 rw - ext3 /dev/root rw,errors=continue\n":                       "98:0 ext3",
		"36 35 0:51 / /x rw":      "0:0 ",
		"- fuse":                  "0:0 ",
		"36 35 -1:x / / rw - f g": "0:0 f",
		"":                        "0:0 ",
	} {
		dev, kind := parseMount([]byte(line))
		if got := fmt.Sprintf("%d:%d %s", unix.Major(dev), unix.Minor(dev), kind); got != want {
			t.Errorf("parseMount(%q): got %q, want %q", line, got, want)
		}
	}
}
