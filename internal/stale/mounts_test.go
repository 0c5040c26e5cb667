package stale

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"moult.example/internal/testneed"
)

// shell runs a script in a mount namespace of its own, with the directory as
// $1; it has to end by executing something that prints "ready".
func shell(t *testing.T, dir, script string) (pid int) {
	t.Helper()
	testneed.Tool(t, "unshare")
	return start(t, exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh", dir))
}

// Where paths do not lead where they seem to: the process has another root, or
// other mounts, or the path is covered. $1/gen/41 and 42 are linked trees.
func TestOtherViews(t *testing.T) {
	testneed.Root(t)
	tests := map[string]struct{ script, want string }{
		"chroot into a tree": {
			`exec chroot $1/gen/42 /bin/static`,
			"1 cwd gen/42; 1 exe gen/42/bin/static; 1 map gen/42/bin/static; 1 root gen/42",
		},
		"chroot above the trees, in other mounts": { // the path is ours
			`cd $1; exec chroot $1 /gen/42/bin/static`,
			"1 exe gen/42/bin/static; 1 map gen/42/bin/static",
		},
		"a tree mounted at another place": {
			`mount --bind $1/gen/41 $1/at; exec $1/at/bin/hold dlopen $1/at/lib/libx.so`,
			"0 exe at/bin/hold; 0 map at/bin/hold; 0 map at/lib/libx.so",
		},
		// The path names the newer tree and in our view leads to the same
		// inode there; in the process's own it is the older one.
		"the older tree mounted over the newer": {
			`mount --bind $1/gen/41 $1/gen/42; exec $1/gen/42/bin/hold dlopen $1/gen/42/lib/libx.so`,
			"0 exe gen/42/bin/hold; 0 map gen/42/bin/hold; 0 map gen/42/lib/libx.so",
		},
		"one file mounted elsewhere": { // its directory is no tree's
			`touch $1/at/prog; mount --bind $1/gen/41/bin/hold $1/at/prog; exec $1/at/prog`,
			"",
		},
		"unmounted under the process": {
			`mount --bind $1/gen/41 $1/at; cd $1/at; umount -l $1/at; exec ./bin/static map ./lib/libx.so`,
			"0 cwd /; 0 exe /bin/static; 0 map /bin/static; 0 map /lib/libx.so; " +
				"1 exe /bin/static; 1 map /bin/static; 1 map /lib/libx.so",
		},
		"chroot into a tree that only its namespace has there": {
			`mount --bind $1/gen $1/at; exec chroot $1/at/41 /bin/static chdir /lib`,
			"0 cwd at/41/lib; 0 exe at/41/bin/static; 0 map at/41/bin/static; 0 root at/41",
		},
		"outside of its own root": { // no way leads to the path: both hold the inode
			`exec $1/gen/41/bin/hold chroot $1/at`,
			"0 exe gen/41/bin/hold; 0 map gen/41/bin/hold; 1 exe gen/41/bin/hold; 1 map gen/41/bin/hold",
		},
		"pivoted into a container": {
			`mkdir -p $1/at; mount -t tmpfs none $1/at; mkdir -p $1/at/app $1/at/old; mount --bind $1/gen/42 $1/at/app
			cd $1/at; pivot_root . old; exec /app/bin/static map /app/lib/deep/one`,
			"1 exe /app/bin/static; 1 map /app/bin/static; 1 map /app/lib/deep/one",
		},
		"another program at the same path in a container": {
			`p=$1; mount -t tmpfs none $1/at; mkdir -p $1/at$p/gen/41/bin $1/at/old; cp $1/gen/41/bin/static $1/at$p/gen/41/bin
			cd $1/at; pivot_root . old; exec $p/gen/41/bin/static`,
			"",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir, trees := generations(t)
			mkdir(t, filepath.Join(dir, "at"))
			pid := shell(t, dir, tt.script)
			var want []string
			if tt.want != "" {
				want = strings.Split(tt.want, "; ")
			}
			wantUses(t, users(t, dir, trees, pid), want...)
		})
	}
}

// A file that no tree holds any more, of a process that had it by a path which
// only its own namespace has.
func TestDeletedInOtherView(t *testing.T) {
	testneed.Root(t)
	dir, trees := generations(t)
	mkdir(t, filepath.Join(dir, "at"))
	pid := shell(t, dir, `mount --bind $1/gen/41 $1/at; exec $1/at/bin/hold dlopen $1/at/lib/libx.so`)
	for _, name := range []string{"gen/41/lib/libx.so", "gen/42/lib/libx.so"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	wantUses(t, users(t, dir, trees, pid),
		"0 exe at/bin/hold", "0 map at/bin/hold", "0 map at/lib/libx.so (deleted)")
}

// In our own mount namespace: something is mounted over the tree, or over its
// file, after the process was started.
func TestMountedOver(t *testing.T) {
	testneed.Root(t)
	dir, trees := generations(t)
	in := func(name string) string { return filepath.Join(dir, "gen", name) }
	pid := start(t, exec.Command(in("41/bin/hold"), "dlopen", in("41/lib/libx.so"), "open", in("41/etc")))
	mount(t, in("42/lib/deep/one"), in("41/bin/hold"), "", unix.MS_BIND)
	mount(t, "none", in("41/lib"), "tmpfs", 0)
	// By that name another file is found now: both trees hold this inode.
	// Of the library the walk finds only what is not covered.
	wantUses(t, users(t, dir, trees, pid), "0 fd gen/41/etc",
		"1 exe gen/41/bin/hold", "1 map gen/41/bin/hold", "1 map gen/41/lib/libx.so")

	// What is mounted in a tree is no part of it.
	copyFile(t, filepath.Join(programs, "hold"), in("41/lib/hold"))
	pid = start(t, exec.Command(in("41/lib/hold"), "chdir", in("41/lib")))
	wantUses(t, users(t, dir, trees, pid))
}

func mount(t *testing.T, from, to, kind string, flags uintptr) {
	t.Helper()
	if err := unix.Mount(from, to, kind, flags, ""); err != nil {
		t.Fatalf("mount %s at %s: %v", from, to, err)
	}
	t.Cleanup(func() { unix.Unmount(to, unix.MNT_DETACH) })
}

// A snapshot of a btrfs subvolume has the same inode numbers, and maps prints
// the same device for both; an overlay's files have yet another device.
func TestBtrfsAndOverlay(t *testing.T) {
	testneed.Root(t)
	for _, tool := range []string{"mkfs.btrfs", "btrfs", "mount"} {
		testneed.Tool(t, tool)
	}
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
	t.Cleanup(func() { run(t, "umount", at) })
	run(t, "btrfs", "-q", "subvolume", "create", at+"/a")
	generationsIn(t, at+"/a")
	run(t, "btrfs", "-q", "subvolume", "snapshot", at+"/a", at+"/b")

	trees := []Tree{{Dir: at + "/a/gen/41"}, {Dir: at + "/b/gen/41"}, {Dir: at + "/b/gen/42"}}
	pid := start(t, exec.Command(at+"/b/gen/42/bin/hold", "dlopen", at+"/a/gen/41/lib/libx.so", "dlopen", at+"/b/gen/41/lib/libx.so"))
	want := []string{"0 map a/gen/41/lib/libx.so", "1 map b/gen/41/lib/libx.so", "2 exe b/gen/42/bin/hold", "2 map b/gen/42/bin/hold"}
	wantUses(t, users(t, at, trees, pid), want...)
	// A tree of which a subvolume is a part.
	wantUses(t, users(t, at, []Tree{{Dir: at}}, pid), replaceOf(want, "0")...)

	over := filepath.Join(base, "over")
	for _, d := range []string{at + "/upper", at + "/work", over} {
		mkdir(t, d)
	}
	run(t, "mount", "-t", "overlay", "-o", fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", at+"/b", at+"/upper", at+"/work"), "none", over)
	t.Cleanup(func() { run(t, "umount", "-l", over) })
	copyFile(t, filepath.Join(programs, "libx.so"), over+"/gen/42/lib/upper.so")
	pid = start(t, exec.Command(over+"/gen/41/bin/hold", "dlopen", over+"/gen/42/lib/upper.so"))
	trees = []Tree{{Dir: over + "/gen/41"}, {Dir: over + "/gen/42"}, {Dir: at + "/b/gen/41"}}
	wantUses(t, users(t, over, trees, pid),
		"0 exe gen/41/bin/hold", "0 map gen/41/bin/hold", "1 map gen/42/lib/upper.so")
}

func replaceOf(uses []string, of string) []string {
	out := make([]string, len(uses))
	for i, u := range uses {
		out[i] = of + u[1:]
	}
	slices.Sort(out)
	return out
}
