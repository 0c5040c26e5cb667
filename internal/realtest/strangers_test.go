package realtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"moult.example/internal/testneed"
)

// everything that a target goes through; what is not the release's stays.
func everything(h *host, target string, releases []string) {
	h.Helper()
	h.ok("apply", releases[1], target)
	h.ok("apply", releases[2], target)
	h.ok("rollback", target)
	h.ok("apply", releases[3], target)
	h.ok("gc", "--generations", "0", target)
	collect(h, target, h.path("state"), time.Nanosecond)
}

// What others put into a target stays what and where it is, also after moult
// has left.
func TestStrangersStay(t *testing.T) {
	for _, layout := range []string{"owned", "shared"} {
		t.Run(layout, func(t *testing.T) {
			h := newHost(t)
			releases := programs(t, h.dir, 4)
			target := h.path("app")
			h.ok("apply", "--layout", layout, releases[0], target)
			theirs := tree{"etc/app.conf": "conf", "var/log/app.log": "log", "README": "read me", "current": "->etc"}
			if layout == "shared" {
				theirs["lib/other.so"] = "other"
				theirs["bin/tool"] = "#!/bin/sh\n"
			}
			theirs.write(t, target)
			inodes := map[string]uint64{}
			for name := range theirs {
				inodes[name] = inode(t, filepath.Join(target, name))
			}
			everything(h, target, releases)
			if layout == "owned" {
				// The way that a program takes from its own directory.
				want(t, target+"/bin/../etc/app.conf", "conf")
				h.ok("verify", target)
			}
			h.ok("forget", target)
			for name := range theirs {
				if got := inode(t, filepath.Join(target, name)); got != inodes[name] {
					t.Errorf("%s: got another inode", name)
				}
			}
			want(t, target+"/var/log/app.log", "log")
			wantLink(t, target+"/current", "etc")
			wantGone(t, target+"/.moult")
			wantVersion(t, target+"/lib/plugin.so", 4)
		})
	}
}

// What somebody put among the files of a generation is not deleted with it.
func TestStrangerInGeneration(t *testing.T) {
	testneed.Root(t)
	h := newHost(t)
	releases := programs(t, h.dir, 4)
	target := h.path("app")
	h.ok("apply", releases[0], target)
	writeFile(t, target+"/lib/theirs.so", "theirs", 0o644)
	everything(h, target, releases)
	c := collect(t, target, h.path("state"), time.Nanosecond)
	if slices.Contains(c.Collected, 1) {
		t.Errorf("got %+v, want 1 kept", c)
	}
	want(t, target+"/.moult/generations/1/lib/theirs.so", "theirs")
}

// A directory that the administrator has made a symbolic link stays one, and
// the files go to where it leads.
func TestLinkStays(t *testing.T) {
	h := newHost(t)
	releases := programs(t, h.dir, 4)
	target := h.path("local")
	tree{"lib64/other.so": "other", "lib": "->lib64", "bin/tool": "tool"}.write(t, target)
	link, err := os.Lstat(target + "/lib")
	must(t, err)
	h.ok("apply", releases[0], target)
	wantVersion(t, target+"/lib64/plugin.so", 1)
	everything(h, target, releases)
	wantVersion(t, target+"/lib64/plugin.so", 4)
	h.ok("rollback", target, "0")
	wantGone(t, target+"/lib64/plugin.so")
	wantLink(t, target+"/lib", "lib64")
	if now, err := os.Lstat(target + "/lib"); err != nil || !os.SameFile(link, now) {
		t.Errorf("lib is not the link that it was (%v)", err)
	}
	want(t, target+"/lib/other.so", "other")
}

// A link that leads out of the target, or to which the release has a name of
// its own in an owned target, refuses the release. Nothing changes.
func TestLinkRefuses(t *testing.T) {
	h := newHost(t)
	release := program(t, h.path("v1"), 1)
	for name, layout := range map[string]string{"out": "shared", "taken": "owned"} {
		t.Run(name, func(t *testing.T) {
			h := &host{TB: t, dir: h.dir}
			target := h.path(name)
			tree{"lib": "->" + h.path("elsewhere"), "bin/tool": "tool"}.write(t, target)
			must(t, os.MkdirAll(h.path("elsewhere"), 0o755))
			h.status(1, "apply", "--layout", layout, release, target)
			wantLink(t, target+"/lib", h.path("elsewhere"))
			for _, dir := range []string{target, h.path("elsewhere")} {
				if left := digests(t, dir, "lib"); len(left) > 2 || dir != target && len(left) > 0 {
					t.Errorf("%s: got %v, want what was there", dir, left)
				}
			}
		})
	}
}

// A process that stands in a directory of the target keeps it when the target
// is adopted, and finds there what it found before.
func TestAdoptUnderProcess(t *testing.T) {
	h := newHost(t)
	releases := programs(t, h.dir, 2)
	target := h.path("app")
	run(t, "cp", "-a", releases[0], target)
	tree{"etc/app.conf": "conf"}.write(t, target)
	stands := exec.Command(compileHold(t))
	stands.Dir = target + "/lib"
	p := startHolder(t, stands)
	before, bin := inode(t, target+"/lib"), inode(t, target+"/bin")

	h.ok("apply", "--adopt", releases[1], target)
	if got := inode(t, p.proc("cwd")); got != before {
		t.Error("the process stands in another directory")
	}
	wantVersion(t, p.proc("cwd/plugin.so"), 1)
	wantVersion(t, target+"/lib/plugin.so", 2)
	want(t, target+"/etc/app.conf", "conf")
	want(t, p.proc("cwd/../etc/app.conf"), "conf")

	h.ok("rollback", target)
	if inode(t, target+"/lib") != before || inode(t, target+"/bin") != bin {
		t.Error("rollback: the target has other directories than before")
	}
	if got := inode(t, p.proc("cwd")); got != before {
		t.Error("rollback: the process stands in another directory")
	}
	wantVersion(t, target+"/lib/plugin.so", 1)
}

// In a shared target a directory stays the directory that it is.
func TestSharedUnderProcess(t *testing.T) {
	h := newHost(t)
	releases := programs(t, h.dir, 2)
	target := h.path("local")
	tree{"lib/other.so": "other"}.write(t, target)
	h.ok("apply", releases[0], target)
	stands := exec.Command(compileHold(t))
	stands.Dir = target + "/lib"
	p := startHolder(t, stands)
	before := inode(t, target+"/lib")
	h.ok("apply", releases[1], target)
	if got := inode(t, p.proc("cwd")); got != before || inode(t, target+"/lib") != before {
		t.Error("the process stands in another directory")
	}
	wantVersion(t, p.proc("cwd/plugin.so"), 2)
}
