package destroytest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestChangesWhileRead writes into a file of the source each time that moult
// reads from it: what would arrive is neither what it was nor what it is.
func TestChangesWhileRead(t *testing.T) {
	for name, change := range map[string]func(f *os.File, n int) error{
		"a byte": func(f *os.File, n int) error {
			_, err := f.WriteAt([]byte{byte(n)}, int64(n))
			return err
		},
		"grows":   func(f *os.File, n int) error { return f.Truncate(16<<20 + int64(n)) },
		"shrinks": func(f *os.File, n int) error { return f.Truncate(16<<20 - int64(n)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			files{"bin/tool": "tool"}.write(t, h.path("r"))
			must(t, os.WriteFile(h.path("r/bin/big"), bytes.Repeat([]byte("data"), 4<<20), 0o644))
			f, err := os.OpenFile(h.path("r/bin/big"), os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			stop := whenRead(t, f, func(n int) error { return change(f, n) })
			release1.write(t, h.path("good"))
			h.ok("apply", "good", "owned")
			before := view(t, h.path("owned"))
			for _, target := range []string{"new", "owned"} {
				got := h.moult("apply", "r", target)
				if got.status != 1 || !strings.Contains(got.stderr, "bin/big") || !strings.Contains(got.stderr, "changed while it was read") {
					t.Errorf("%s: want a refusal that names bin/big, got %v", target, got)
				}
			}
			if got := h.moult("pack", "r", "-o", "r.moult"); got.status != 1 || !strings.Contains(got.stderr, "bin/big") {
				t.Errorf("pack: want a refusal that names bin/big, got %v", got)
			}
			if _, err := os.Lstat(h.path("r.moult")); err == nil {
				t.Error("pack has left a file")
			}
			must(t, stop())
			if diff := before.Diff(view(t, h.path("owned"))); diff != "" {
				t.Error(diff)
			}
			must(t, leftovers(h.path("owned")))
			if len(view(t, h.path("new")).Entries) > 0 {
				t.Error("something has arrived in the new target")
			}
			h.ok("apply", "r", "new")
		})
	}
}

// whenRead changes a file whenever somebody is about to read from it, who has to
// wait for that: the kernel asks us (fanotify(7), FAN_ACCESS_PERM). Where it does
// not, the file is changed all the time.
func whenRead(t *testing.T, f *os.File, change func(n int) error) (stop func() error) {
	t.Helper()
	changed := make(chan error, 1)
	group, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_LARGEFILE)
	if err == nil {
		err = unix.FanotifyMark(group, unix.FAN_MARK_ADD, unix.FAN_ACCESS_PERM, unix.AT_FDCWD, f.Name())
		if err != nil {
			unix.Close(group)
		}
	}
	if err != nil {
		t.Logf("fanotify: %v", err)
		over := make(chan bool)
		go func() { changed <- changeOften(over, change) }()
		return func() error { close(over); return <-changed }
	}
	events := os.NewFile(uintptr(group), "fanotify")
	go func() { changed <- answer(events, change) }()
	// Who still waits is let through.
	return func() error { events.Close(); return <-changed }
}

// answer changes the file before each of the first reads of a process, and lets
// that happen: who reads to the end would never come there of a file that grows.
func answer(events *os.File, change func(n int) error) error {
	b, reads := make([]byte, 4096), map[uint32]int{}
	for n := 1; ; {
		size, err := events.Read(b)
		if errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		for e := b[:size]; len(e) >= unix.FAN_EVENT_METADATA_LEN; e = e[binary.NativeEndian.Uint32(e):] {
			fd, pid := binary.NativeEndian.Uint32(e[16:]), binary.NativeEndian.Uint32(e[20:])
			if reads[pid]++; reads[pid] <= 3 {
				if err := change(n); err != nil {
					return err
				}
				n++
			}
			answer := binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, fd), unix.FAN_ALLOW)
			_, err := events.Write(answer)
			unix.Close(int(fd))
			if err != nil && !errors.Is(err, os.ErrClosed) {
				return err
			}
		}
	}
}

func changeOften(over <-chan bool, change func(n int) error) error {
	for n := 1; ; n++ {
		select {
		case <-over:
			return nil
		case <-time.After(100 * time.Microsecond):
			if err := change(n % 100_000); err != nil {
				return err
			}
		}
	}
}
