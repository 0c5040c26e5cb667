package destroytest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk/disktest"
	"moult.example/internal/testneed"
)

// fill makes a file that takes all the room of a file system but some kilobytes.
func fill(t testing.TB, name string, butKB int) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	must(t, err)
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) >= 1024; {
		var st unix.Statfs_t
		must(t, unix.Statfs(name, &st))
		if int64(st.Bavail)*st.Bsize > int64(butKB)<<10+int64(len(block)) {
			if _, err := f.Write(block); err == nil {
				continue
			}
		}
		block = block[:len(block)/2]
	}
}

// TestNoSpace: what does not fit is refused before anything is written, with how
// much is missing.
func TestNoSpace(t *testing.T) {
	testneed.Root(t)
	forLayouts(t, func(t *testing.T, layout string) {
		h := newHostIn(t, disktest.Tmpfs(t, 16<<10))
		src := newHost(t)
		files{"VERSION": "1"}.write(t, src.path("r1"))
		files{"bin/big": strings.Repeat("big ", 5<<20)}.write(t, src.path("r2"))
		must(t, os.Mkdir(h.path("app"), 0o755))
		args := []string{"apply", "--packaged", "--layout", layout}
		h.unchanged(func() { h.refused([]string{"24 MB needed", "app", "MB free"}, append(args, src.path("r2"), "app")...) })
		h.ok(append(args, src.path("r1"), "app")...)
		h.unchanged(func() {
			h.refused([]string{"24 MB needed", "app", "MB free", "moult gc"}, append(args, src.path("r2"), "app")...)
		})
		h.unchanged(func() {
			h.refused([]string{"24 MB needed"}, append(args, "--dry-run", src.path("r2"), "app")...)
		})
	})
}

// TestNoInodes: the same of the number of files.
func TestNoInodes(t *testing.T) {
	testneed.Root(t)
	forLayouts(t, func(t *testing.T, layout string) {
		dir := disktest.Tmpfs(t, 64<<10)
		must(t, unix.Mount("", dir, "", unix.MS_REMOUNT, "size=64m,nr_inodes=200"))
		h := newHostIn(t, dir)
		src, f := newHost(t), files{}
		for i := range 300 {
			f[fmt.Sprintf("f%d", i)] = "x"
		}
		f.write(t, src.path("r"))
		must(t, os.Mkdir(h.path("app"), 0o755))
		h.unchanged(func() {
			h.refused([]string{"316 inodes needed", "app"}, "apply", "--packaged", "--layout", layout, src.path("r"), "app")
		})
	})
}

// TestFullDisk: somebody else fills the disk. A command that has no room says so
// and has changed nothing, or it works; recovery of a commit that was decided
// needs no room for what people see, and ends when there is room for the books.
func TestFullDisk(t *testing.T) {
	testneed.Root(t)
	forLayouts(t, func(t *testing.T, layout string) {
		h := newHostIn(t, disktest.Tmpfs(t, 16<<10))
		release1.write(t, h.path("r1"))
		release2.write(t, h.path("r2"))
		must(t, os.Mkdir(h.path("app"), 0o755))
		h.ok("apply", "--packaged", "--layout", layout, "r1", "app")
		h.ok("apply", "--packaged", "r2", "app")
		old, new := view(t, h.path("app")), atHome(t, h.path("r1"))
		fill(t, h.path("fill"), 0)
		got := h.moult("apply", "--packaged", "r1", "app")
		if got.status != 1 {
			t.Errorf("on a full disk: %v", got)
		}
		statuses := map[int]int{}
		for _, kb := range []int{0, 4, 8, 12, 16, 24, 32, 64} {
			must(t, os.Remove(h.path("fill")))
			fill(t, h.path("fill"), kb)
			got := h.moult("rollback", "app", "1")
			statuses[got.status]++
			h.judgeFull(fmt.Sprintf("%d KB free", kb), got, old, new)
			must(t, os.Remove(h.path("fill")))
			h.ok("recover", "app")
			h.ok("rollback", "app", "2")
			fill(t, h.path("fill"), 0)
		}
		t.Logf("rollbacks: exit statuses %v", statuses)
		must(t, os.Remove(h.path("fill")))
		if got := h.finish(h.faulty([]string{"MOULT_FAULT=kill-after:1:rename:journal"}, "rollback", "app", "1")); !got.killed {
			t.Fatal(got)
		}
		fill(t, h.path("fill"), 0)
		got = h.moult("recover", "app")
		t.Logf("recover: exit status %d", got.status)
		if got.status != 0 && got.status != 4 {
			t.Errorf("recover on a full disk: %v", got)
		}
		if diff := new.Diff(view(t, h.path("app"))); diff != "" {
			t.Errorf("recover on a full disk:\n%s%v", diff, got)
		}
		must(t, os.Remove(h.path("fill")))
		h.ok("recover", "app")
		h.ok("verify", "app")
		must(t, leftovers(h.path("app")))
	})
}

// judgeFull holds a command to its exit status.
func (h *host) judgeFull(when string, got ended, old, new *disktest.Tree) {
	h.Helper()
	want := map[int]*disktest.Tree{0: new, 1: old, 4: new}[got.status]
	if want == nil {
		h.Errorf("%s: %v", when, got)
		return
	}
	if diff := want.Diff(view(h, h.path("app"))); diff != "" {
		h.Errorf("%s:\n%s%v", when, diff, got)
	}
	if got.status != 0 && !strings.Contains(got.stderr, unix.ENOSPC.Error()) && !strings.Contains(got.stderr, "needed") {
		h.Errorf("%s: the message does not say why: %v", when, got)
	}
}

// TestNoSpaceToUnpack: a tar on standard input is laid down somewhere before it
// is a release. Where there is no room, nothing is left there.
func TestNoSpaceToUnpack(t *testing.T) {
	testneed.Root(t)
	h := newHost(t)
	must(t, os.MkdirAll(h.path("r/bin"), 0o755))
	must(t, os.WriteFile(h.path("r/bin/big"), bytes.Repeat([]byte("big "), 2<<20), 0o644))
	tar(t, h.path("r"), h.path("r.tar"))
	spool := disktest.Tmpfs(t, 4<<10)
	h.unchanged(func() {
		in, err := os.Open(h.path("r.tar"))
		must(t, err)
		defer in.Close()
		cmd := h.command("apply", "-", "app")
		cmd.Stdin, cmd.Env = in, append(cmd.Env, "TMPDIR="+spool)
		got := h.finish(cmd)
		if got.status != 1 {
			t.Errorf("want status 1, got %v", got)
		}
		h.tells(got, "bin/big", unix.ENOSPC.Error(), spool)
	})
	if left, err := os.ReadDir(spool); err != nil || len(left) > 0 {
		t.Errorf("left in the spool: %v %v", left, err)
	}
}

// TestNoSpaceForPack: a packed release that does not fit leaves no part of it.
func TestNoSpaceForPack(t *testing.T) {
	testneed.Root(t)
	h := newHostIn(t, disktest.Tmpfs(t, 8<<10))
	src := newHost(t)
	f := files{}
	for i := range 40 {
		f[fmt.Sprintf("f%d", i)] = string(noise(i, 400<<10))
	}
	f.write(t, src.path("r"))
	h.unchanged(func() { h.refused([]string{"r.moult", unix.ENOSPC.Error()}, "pack", src.path("r"), "-o", "r.moult") })
}

// noise is what cannot be compressed.
func noise(seed, size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(seed)}).Read(b)
	return b
}
