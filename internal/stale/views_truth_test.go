package stale

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

// view starts a shell script in a mount namespace of its own; $1 is the scene.
// It has to end by executing something that says "ready".
func (s *scene) view(script string, flags ...string) *exec.Cmd {
	args := append([]string{"--mount", "--propagation", "private"}, flags...)
	return exec.Command("unshare", append(args, "sh", "-ec", script, "sh", s.dir)...)
}

// jail makes a root directory for a dynamic program.
func (s *scene) jail(name string) {
	s.t.Helper()
	s.put("hold", name+"/bin/hold")
	s.put("part1.so", name+"/lib/plugin.so")
	out, err := exec.Command("ldd", filepath.Join(programs, "hold")).Output()
	s.must(err)
	for _, word := range strings.Fields(string(out)) {
		if strings.HasPrefix(word, "/") {
			to := filepath.Join(name, word)
			mkdir(s.t, filepath.Dir(s.in(to)))
			copyFile(s.t, word, s.in(to))
		}
	}
}

// Processes whose paths do not lead where ours do.
func TestTruthOfViews(t *testing.T) {
	testneed.Root(t)
	testneed.Tool(t, "unshare")
	testneed.Tool(t, "nsenter")
	hold := filepath.Join(programs, "hold")
	jailed := func(s *scene) *exec.Cmd {
		s.jail("jail")
		return exec.Command("chroot", s.in("jail"), "/bin/hold", "dlopen", "/lib/plugin.so")
	}
	compareTruth(t, []situation{
		{name: "chroot", begin: jailed},
		{name: "chroot, replaced in it", want: Stale, begin: jailed, after: func(s *scene) { s.replace("part2.so", "jail/lib/plugin.so") }},
		{name: "chroot, unlinked in it", want: Gone, begin: jailed, after: func(s *scene) { s.must(os.Remove(s.in("jail/lib/plugin.so"))) }},
		{name: "chroot, program replaced in it", want: Stale, begin: jailed, after: func(s *scene) { s.replace("hold2", "jail/bin/hold") }},
		{name: "chroot, directory renamed", begin: jailed, after: func(s *scene) { s.rename("jail", "jail2") }},
		{name: "chroot, overwritten in it", want: Corrupt, begin: jailed, after: func(s *scene) { s.overwrite("part2.so", "jail/lib/plugin.so", true) }},
		{name: "chroot by itself", begin: func(s *scene) *exec.Cmd {
			mkdir(s.t, s.in("empty"))
			return exec.Command(hold, "dlopen", s.put("part1.so", "lib.so"), "chroot", s.in("empty"))
		}},
		{name: "chroot by itself, replaced outside", want: Stale,
			begin: func(s *scene) *exec.Cmd {
				mkdir(s.t, s.in("empty"))
				return exec.Command(hold, "dlopen", s.put("part1.so", "lib.so"), "chroot", s.in("empty"))
			},
			after: func(s *scene) { s.replace("part2.so", "lib.so") }},

		{name: "container", begin: inContainer},
		{name: "container, replaced in it", want: Stale, begin: inContainer, after: func(s *scene) { s.replace("part2.so", "jail/lib/plugin.so") }},
		{name: "container, unlinked in it", want: Gone, begin: inContainer, after: func(s *scene) { s.must(os.Remove(s.in("jail/lib/plugin.so"))) }},
		{name: "container, moved aside in it", want: Stale, begin: inContainer, after: func(s *scene) {
			s.rename("jail/lib/plugin.so", "jail/lib/plugin.bak")
			s.put("part2.so", "jail/lib/plugin.so")
		}},
		{name: "container, the same bytes", same: true, begin: inContainer, after: func(s *scene) { s.replace("part1.so", "jail/lib/plugin.so") }},
		{name: "container, overwritten", want: Corrupt, begin: inContainer, after: func(s *scene) { s.overwrite("part2.so", "jail/lib/plugin.so", true) }},

		{name: "changed into another namespace's root", begin: inOthersRoot},
		{name: "changed into another namespace's root, replaced there", want: Stale, begin: inOthersRoot, after: func(s *scene) { s.replace("part2.so", "jail/lib/plugin.so") }},

		{name: "own mounts", begin: func(s *scene) *exec.Cmd {
			s.put("part1.so", "a/lib.so")
			mkdir(s.t, s.in("b"))
			return s.view(`mount --bind $1/a $1/b; exec ` + hold + ` dlopen $1/b/lib.so`)
		}},
		{name: "own mounts, ours replaced", begin: func(s *scene) *exec.Cmd {
			s.put("part1.so", "a/lib.so")
			s.put("part1.so", "b/lib.so")
			return s.view(`mount --bind $1/a $1/b; exec ` + hold + ` dlopen $1/b/lib.so`)
		}, after: func(s *scene) { s.replace("part2.so", "b/lib.so") }},
		{name: "own mounts, its own replaced", want: Stale, begin: func(s *scene) *exec.Cmd {
			s.put("part1.so", "a/lib.so")
			s.put("part1.so", "b/lib.so")
			return s.view(`mount --bind $1/a $1/b; exec ` + hold + ` dlopen $1/b/lib.so`)
		}, after: func(s *scene) { s.replace("part2.so", "a/lib.so") }},
		{name: "file mounted over", want: Stale, begin: func(s *scene) *exec.Cmd {
			s.put("part2.so", "other.so")
			return s.view(`exec ` + hold + ` dlopen ` + s.put("part1.so", "lib.so"))
		}, after: func(s *scene) { s.inside(`mount --bind $1/other.so $1/lib.so`) }},
		{name: "file mounted over with the same bytes", same: true, begin: func(s *scene) *exec.Cmd {
			s.put("part1.so", "other.so")
			return s.view(`exec ` + hold + ` dlopen ` + s.put("part1.so", "lib.so"))
		}, after: func(s *scene) { s.inside(`mount --bind $1/other.so $1/lib.so`) }},
		{name: "file mounted over itself", begin: func(s *scene) *exec.Cmd {
			return s.view(`exec ` + hold + ` dlopen ` + s.put("part1.so", "lib.so"))
		}, after: func(s *scene) { s.inside(`mount --bind $1/lib.so $1/lib.so`) }},
		{name: "directory mounted over", want: Gone, begin: func(s *scene) *exec.Cmd {
			mkdir(s.t, s.in("none"))
			return s.view(`exec ` + hold + ` dlopen ` + s.put("part1.so", "d/lib.so"))
		}, after: func(s *scene) { s.inside(`mount --bind $1/none $1/d`) }},
		{name: "lazily unmounted", want: Gone, begin: func(s *scene) *exec.Cmd {
			s.put("part1.so", "a/lib.so")
			mkdir(s.t, s.in("b"))
			return s.view(`mount --bind $1/a $1/b; exec ` + hold + ` dlopen $1/b/lib.so`)
		}, after: func(s *scene) { s.inside(`umount -l $1/b`) }},
		{name: "lazily unmounted, another below", want: Stale, begin: func(s *scene) *exec.Cmd {
			s.put("part1.so", "a/lib.so")
			s.put("part2.so", "b/lib.so")
			return s.view(`mount --bind $1/a $1/b; exec ` + hold + ` dlopen $1/b/lib.so`)
		}, after: func(s *scene) { s.inside(`umount -l $1/b`) }},
		{name: "a mount point in its view renamed over in ours", want: Stale, begin: func(s *scene) *exec.Cmd {
			s.put("part1.so", "a.so")
			s.put("part1.so", "lib.so")
			return s.view(`mount --bind $1/a.so $1/lib.so; exec ` + hold + ` dlopen $1/lib.so`)
		}, after: func(s *scene) { s.replace("part2.so", "lib.so") }},
		{name: "tmpfs, replaced", want: Stale, begin: func(s *scene) *exec.Cmd {
			s.put("part1.so", "one.so")
			s.put("part2.so", "two.so")
			mkdir(s.t, s.in("tmp"))
			return s.view(`mount -t tmpfs none $1/tmp; cp $1/one.so $1/tmp/lib.so; exec ` + hold + ` dlopen $1/tmp/lib.so`)
		}, after: func(s *scene) { s.inside(`cp $1/two.so $1/tmp/new; mv $1/tmp/new $1/tmp/lib.so`) }},
		{name: "tmpfs, overwritten", want: Corrupt, begin: func(s *scene) *exec.Cmd {
			s.put("part1.so", "one.so")
			s.put("part2.so", "two.so")
			mkdir(s.t, s.in("tmp"))
			return s.view(`mount -t tmpfs none $1/tmp; cp $1/one.so $1/tmp/lib.so; exec ` + hold + ` dlopen $1/tmp/lib.so`)
		}, after: func(s *scene) { s.inside(`cp $1/two.so $1/tmp/lib.so`) }},
	})
}

// inContainer runs a program as container engines do: in a root of its own,
// with mounts and process numbers of its own. A static helper would be needed
// to unmount the old root; the program stands in the new one all the same.
func inContainer(s *scene) *exec.Cmd {
	s.jail("jail")
	s.put("static", "jail/bin/static")
	return s.view(`mount --bind $1/jail $1/jail; mkdir -p $1/jail/old; cd $1/jail; pivot_root . old; exec /bin/static exec /bin/hold dlopen /lib/plugin.so`)
}

// inOthersRoot runs a program as "chroot /proc/PID/root" does: with our mounts, in
// a root that is none of them, and that the kernel prints as it does ours.
func inOthersRoot(s *scene) *exec.Cmd {
	s.jail("jail")
	return s.view(fmt.Sprintf(`mount --bind $1/jail $1/jail; exec nsenter --mount=/proc/%d/ns/mnt --root=$1/jail --wd=/ /bin/hold dlopen /lib/plugin.so`, os.Getpid()))
}

// Overlay: the kernel's numbers for lower files and their copies are the same.
func TestTruthOfOverlay(t *testing.T) {
	testneed.Root(t)
	testneed.Tool(t, "unshare")
	testneed.Tool(t, "nsenter")
	hold := filepath.Join(programs, "hold")
	over := func(s *scene) *exec.Cmd {
		s.put("part1.so", "low/lib.so")
		s.put("part2.so", "two.so")
		s.put("part1p.so", "patched.so")
		s.put("part1.so", "one.so")
		for _, d := range []string{"up", "work", "at"} {
			mkdir(s.t, s.in(d))
		}
		s.put("part1.so", "up/upper.so")
		return s.view(`mount -t overlay -o lowerdir=$1/low,upperdir=$1/up,workdir=$1/work none $1/at
			exec ` + hold + ` dlopen $1/at/lib.so dlopen $1/at/upper.so`)
	}
	scenes := compareTruth(t, []situation{
		{name: "overlay", begin: over},
		{name: "lower replaced", want: Stale, begin: over, after: func(s *scene) { s.inside(`cp $1/two.so $1/at/new; mv $1/at/new $1/at/lib.so`) }},
		{name: "lower unlinked", want: Gone, begin: over, after: func(s *scene) { s.inside(`rm $1/at/lib.so`) }},
		{name: "upper replaced", want: Stale, begin: over, after: func(s *scene) { s.inside(`cp $1/two.so $1/at/new; mv $1/at/new $1/at/upper.so`) }},
		{name: "upper unlinked", want: Gone, begin: over, after: func(s *scene) { s.inside(`rm $1/at/upper.so`) }},
		{name: "lower replaced by the same bytes", same: true, begin: over, after: func(s *scene) { s.inside(`cp $1/one.so $1/at/new; mv $1/at/new $1/at/lib.so`) }},
		// The process keeps the lower file, and the path leads to a copy.
		{name: "lower overwritten", want: Stale, begin: over, after: func(s *scene) { s.inside(`cp $1/two.so $1/at/lib.so`) }},
		{name: "lower's mode changed", begin: over, after: func(s *scene) { s.inside(`chmod 700 $1/at/lib.so`) }},
		{name: "upper overwritten", want: Corrupt, begin: over, after: func(s *scene) { s.inside(`cp $1/two.so $1/at/upper.so`) }},
		{name: "upper's mode changed", begin: over, after: func(s *scene) { s.inside(`chmod 700 $1/at/upper.so`) }},
	})
	// Whether a lower file is deleted the kernel does not say.
	s := scenes["lower unlinked"]
	rep, err := Find(t.Context(), Options{PIDs: []int{s.pid}})
	if err != nil || len(rep.Held) != 1 || !rep.Held[0].Unknown || rep.HeldBytes != 0 {
		t.Errorf("Held = %+v, %d in all, %v, want one that is not known", rep.Held, rep.HeldBytes, err)
	}
}

// btrfs: subvolumes share a device in maps, and snapshots the inode numbers.
func TestTruthOfBtrfs(t *testing.T) {
	testneed.Root(t)
	for _, tool := range []string{"mkfs.btrfs", "btrfs", "mount", "unshare", "nsenter"} {
		testneed.Tool(t, tool)
	}
	if err := compileParts(); err != nil {
		t.Fatal(err)
	}
	at := btrfs(t)
	run(t, "btrfs", "-q", "subvolume", "create", at+"/a")
	copyFile(t, filepath.Join(programs, "part1.so"), at+"/a/lib.so")
	copyFile(t, filepath.Join(programs, "part1.so"), at+"/a/same.so")
	run(t, "btrfs", "-q", "subvolume", "snapshot", at+"/a", at+"/b")
	// The snapshot's file has the same number, the same size and other bytes.
	if err := os.WriteFile(at+"/b/lib.so", readFile(t, filepath.Join(programs, "part1p.so")), 0o755); err != nil {
		t.Fatal(err)
	}
	hold := filepath.Join(programs, "hold")
	mounted := func(name string) func(s *scene) *exec.Cmd {
		return func(s *scene) *exec.Cmd {
			mkdir(s.t, s.in("at"))
			return s.view(`mount --bind ` + at + `/a $1/at; exec ` + hold + ` dlopen $1/at/` + name)
		}
	}
	compareTruth(t, []situation{
		{name: "subvolume", begin: mounted("lib.so")},
		{name: "switched to a snapshot with other bytes", want: Stale, begin: mounted("lib.so"),
			after: func(s *scene) { s.inside(`umount -l $1/at; mount --bind ` + at + `/b $1/at`) }},
		{name: "switched to a snapshot with the same bytes", same: true, begin: mounted("same.so"),
			after: func(s *scene) { s.inside(`umount -l $1/at; mount --bind ` + at + `/b $1/at`) }},
		{name: "the snapshot", begin: func(s *scene) *exec.Cmd { return exec.Command(hold, "dlopen", at+"/b/lib.so") }},
		{name: "replaced in the snapshot", want: Stale,
			begin: func(s *scene) *exec.Cmd {
				copyFile(s.t, filepath.Join(programs, "part1.so"), at+"/b/new.so")
				return exec.Command(hold, "dlopen", at+"/b/new.so")
			},
			after: func(s *scene) {
				copyFile(s.t, filepath.Join(programs, "part2.so"), at+"/b/newer.so")
				s.must(os.Rename(at+"/b/newer.so", at+"/b/new.so"))
			}},
	})
}

func readFile(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// btrfs mounts a new file system.
func btrfs(t *testing.T) string {
	t.Helper()
	base, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	image, at := filepath.Join(base, "image"), filepath.Join(base, "at")
	mkdir(t, at)
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 256<<20); err != nil {
		t.Fatal(err)
	}
	run(t, "mkfs.btrfs", "-q", image)
	run(t, "mount", "-o", "loop", image, at)
	t.Cleanup(func() { run(t, "umount", "-l", at) })
	return at
}
