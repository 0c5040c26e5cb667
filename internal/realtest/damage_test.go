package realtest

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// verification is what moult verify --json says, as far as it is looked at.
type verification struct {
	Targets []struct {
		Damage []struct{ Path, Why string }
	}
}

// damaged wants verify to find this file, and no other, not as released.
func damaged(h *host, target, path string) {
	h.Helper()
	var v verification
	h.document(&v, 3, "verify", target)
	if d := v.Targets[0].Damage; len(d) != 1 || d[0].Path != path {
		h.Errorf("verify: got %+v, want %s alone", d, path)
	}
}

// mended wants apply --checksum to put this file right, and verify to agree.
func mended(h *host, release, target, path string) {
	h.Helper()
	var r struct{ Mended []string }
	h.document(&r, 0, "apply", "--checksum", release, target)
	if len(r.Mended) != 1 || r.Mended[0] != path {
		h.Errorf("apply --checksum: mended %q, want %s alone", r.Mended, path)
	}
	h.ok("verify", target)
	want(h, target+"/"+path, read(h, release+"/"+path))
}

// Damage that leaves size and time as they were is found and mended.
func TestDamage(t *testing.T) {
	for _, layout := range []string{"owned", "shared"} {
		t.Run(layout, func(t *testing.T) {
			h := newHost(t)
			releases := programs(t, h.dir, 2)
			for _, r := range releases {
				tree{"lib/same": strings.Repeat("same", 10000)}.write(t, r)
			}
			target := h.path("app")
			for _, r := range releases {
				h.ok("apply", "--layout", layout, r, target)
			}
			// In place, a few bytes, and the time put back. In the owned layout
			// both generations hold this file.
			path := target + "/lib/same"
			before, err := os.Stat(path)
			must(t, err)
			cmd := exec.Command("sh", "-c", `cp -p "$1" "$2" && printf XXXX | dd of="$1" bs=1 seek=20000 conv=notrunc status=none && touch -r "$2" "$1"`,
				"sh", path, h.path("reference"))
			if got := finish(t, cmd); got.status != 0 {
				t.Fatal(got)
			}
			after, err := os.Stat(path)
			must(t, err)
			if !os.SameFile(before, after) || before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime()) {
				t.Fatalf("size or time have changed: got %v, want %v", after, before)
			}
			damaged(h, target, "lib/same")
			mended(h, releases[1], target, "lib/same")
			if layout == "owned" {
				// The damage is in the first generation as well.
				got := h.status(1, "rollback", target, "1")
				if !strings.Contains(got.stderr, "lib/same") {
					t.Errorf("a damaged generation: %v, want it to name lib/same", got)
				}
				wantVersion(t, target+"/lib/plugin.so", 2)
			}
		})
	}
}

// A program that writes through a mapping of the file leaves even the change
// time as it was, as a power cut may. No cache of stat(2) can see that; verify
// and apply --checksum do without one.
//
// The kernel may write the page back at any moment, because of another program's
// sync: then the next write moves the times, and apply sees it. So it may take a
// few attempts.
func TestDamageUnseen(t *testing.T) {
	h := newHost(t)
	release := tree{"bin/tool": strings.Repeat("tool", 2000)}.write(t, h.path("v1"))
	target := h.path("app")
	h.ok("apply", release, target)
	for attempt := 0; attempt < 20 && !t.Failed(); attempt++ {
		if damageUnseen(t, h, release, target) {
			return
		}
	}
	t.Log("the page was written back each time: only that apply sees it then was shown")
}

// damageUnseen says whether the damage was unseen by stat(2).
func damageUnseen(t *testing.T, h *host, release, target string) bool {
	path := target + "/bin/tool"
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	page, err := syscall.Mmap(int(f.Fd()), 0, 4096, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	must(t, err)
	defer syscall.Munmap(page)
	copy(page[100:], "tool") // the same bytes: from now on the page is writable, without a fault
	dirtied := stat(t, path)
	eventually(t, "the change is old enough for a cache", func() bool {
		return time.Since(time.Unix(dirtied.Ctim.Unix())) > 200*time.Millisecond
	})
	h.ok("apply", release, target) // nothing to do, but something to learn
	page[100] = 'X'
	now := stat(t, path)
	unseen := now.Ctim == dirtied.Ctim && now.Size == dirtied.Size && now.Mtim == dirtied.Mtim
	var r struct{ Unchanged bool }
	h.document(&r, 0, "apply", release, target)
	t.Logf("the damage is unseen by stat(2): %v, and by apply: %v", unseen, r.Unchanged)
	if r.Unchanged {
		damaged(h, target, "bin/tool")
		mended(h, release, target, "bin/tool")
	}
	if r.Unchanged != unseen {
		t.Error("apply and stat(2) do not agree")
	}
	page[101] = 'X'
	h.ok("verify", target) // it writes into the file that it has, not into the new one
	return unseen
}

func stat(t testing.TB, path string) (st syscall.Stat_t) {
	t.Helper()
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st
}

// A changed file of equal size and time, as a reproducible build makes it, is
// installed, also if it changes right after it was read.
func TestEqualSizeAndTime(t *testing.T) {
	h := newHost(t)
	release := tree{"bin/tool": "#!/bin/sh\n# 00000\n", "lib/x": "x", "reference": "r"}.write(t, h.path("release"))
	fixed := time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, layout := range []string{"owned", "shared"} {
		h.ok("apply", "--layout", layout, release, h.path(layout))
	}
	// Two hundred times, or fewer where the disk is busy.
	begun := time.Now()
	for i := 1; i <= 200 && time.Since(begun) < 20*time.Second; i++ {
		text := fmt.Sprintf("#!/bin/sh\n# %05d\n", i)
		name := release + "/bin/tool"
		if i%4 == 0 { // as a linker does, which makes a new file
			must(t, os.Remove(name))
		}
		writeFile(t, name, text, 0o755)
		must(t, os.Chtimes(name, fixed, fixed))
		target := h.path([]string{"owned", "shared"}[i%2])
		h.ok("apply", release, target)
		if got := read(t, target+"/bin/tool"); got != text {
			t.Fatalf("%s: got %q, want %q", target, got, text)
		}
	}
}
