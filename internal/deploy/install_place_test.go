package deploy_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
	"moult.example/internal/disk/disktest"
	"moult.example/internal/testneed"
)

// TestInstallFull: where the new file does not fit, the old one stays, and the
// space that was taken is given back.
func TestInstallFull(t *testing.T) {
	src, dir := t.TempDir(), disktest.Tmpfs(t, 256)
	put(t, src+"/big", strings.Repeat("b", 1<<20), 0o600)
	put(t, src+"/small", "new", 0o600)
	put(t, dir+"/big", "old", 0o644)
	err := refused(t, dir, "no space left on device", deploy.InstallOptions{Sources: []string{src + "/big"}, Dest: dir})
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("error %v is not ENOSPC", err)
	}
	refused(t, dir, "no space left on device", deploy.InstallOptions{Sources: []string{src + "/small", src + "/big"}, TargetDir: dir})
	install(t, deploy.InstallOptions{Sources: []string{src + "/small"}, Dest: dir + "/big"})
	holds(t, dir+"/big", "new", 0o755)
}

// TestInstallMounts: a name that is a mount point is refused before anything is
// written, and never written into; so is a mount that may only be read.
func TestInstallMounts(t *testing.T) {
	testneed.Root(t)
	src, dir := t.TempDir(), t.TempDir()
	put(t, src+"/x", "new", 0o600)
	put(t, src+"/inside", "mounted", 0o644)
	put(t, dir+"/x", "old", 0o644)
	mount := func(from, to string, flags uintptr) {
		t.Helper()
		if err := unix.Mount(from, to, "", unix.MS_BIND, ""); err != nil {
			testneed.Skip(t, "needs to mount: "+err.Error())
		}
		t.Cleanup(func() {
			if err := unix.Unmount(to, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		if err := unix.Mount("", to, "", unix.MS_REMOUNT|unix.MS_BIND|flags, ""); err != nil {
			t.Fatal(err)
		}
	}
	mount(src+"/inside", dir+"/x", 0)
	err := refused(t, dir, "mount point", deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: dir})
	if !errors.Is(err, deploy.ErrInstallMount) {
		t.Errorf("error %v is not ErrInstallMount", err)
	}
	holds(t, src+"/inside", "mounted", 0o644)

	if err := os.Mkdir(dir+"/ro", 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, dir+"/ro/x", "old", 0o644)
	mount(dir+"/ro", dir+"/ro", unix.MS_RDONLY)
	refused(t, dir, "read-only file system", deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: dir + "/ro"})
}

// TestInstallImmutable: the attribute is named, for the file and its directory.
func TestInstallImmutable(t *testing.T) {
	testneed.Root(t)
	chattr := testneed.Tool(t, "chattr")
	src, dir := t.TempDir(), t.TempDir()
	put(t, src+"/x", "new", 0o600)
	put(t, dir+"/x", "old", 0o644)
	t.Cleanup(func() { _ = exec.Command(chattr, "-R", "-ia", dir).Run() })
	for _, path := range []string{dir + "/x", dir} {
		for _, attribute := range []string{"i", "a"} {
			if out, err := exec.Command(chattr, "+"+attribute, path).CombinedOutput(); err != nil {
				testneed.Skip(t, "needs chattr to work here: "+string(out))
			}
			err := refused(t, dir, "immutable", deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: dir})
			if out, err := exec.Command(chattr, "-"+attribute, path).CombinedOutput(); err != nil {
				t.Fatalf("chattr: %v: %s", err, out)
			}
			if !errors.Is(err, deploy.ErrInstallImmutable) {
				t.Errorf("%s with +%s: error %v is not ErrInstallImmutable", path, attribute, err)
			}
		}
	}
	install(t, deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: dir})
	holds(t, dir+"/x", "new", 0o755)
}

// TestInstallOverlay replaces a file of an overlay's lower layer, which stays as
// it is.
func TestInstallOverlay(t *testing.T) {
	testneed.Root(t)
	src, lower := t.TempDir(), t.TempDir()
	put(t, src+"/x", "new", 0o600)
	put(t, lower+"/x", "old", 0o4644)
	dir := disktest.Overlay(t, lower)
	install(t, deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: dir, Keep: true})
	holds(t, dir+"/x", "new", 0o4644)
	holds(t, lower+"/x", "old", 0o4644)
	install(t, deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: dir + "/n/x", MakeLeading: true, Backup: deploy.BackupSimple})
	holds(t, dir+"/n/x", "new", 0o755)
	noLeftovers(t, dir)
}

// TestInstallPowerCut: on real file systems, what was installed is on the disk
// when Install returns.
func TestInstallPowerCut(t *testing.T) {
	testneed.Root(t)
	for fsType, size := range map[string]int{"ext4": 32, "xfs": 300, "btrfs": 110} {
		t.Run(fsType, func(t *testing.T) {
			loop := disktest.LoopFS(t, fsType, size)
			src := t.TempDir()
			put(t, src+"/x", strings.Repeat("n", 50_000), 0o600)
			put(t, loop.Dir+"/x", "old", 0o644)
			install(t, deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: loop.Dir + "/x", Mode: "4711"})
			install(t, deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: loop.Dir + "/n/o/x", MakeLeading: true})
			cut := loop.Snapshot(t)
			loop.Unmount(t)
			cut.Mount(t)
			holds(t, cut.Dir+"/x", strings.Repeat("n", 50_000), 0o4711)
			holds(t, cut.Dir+"/n/o/x", strings.Repeat("n", 50_000), 0o755)
			noLeftovers(t, cut.Dir)
			cut.Remove(t)
		})
	}
}
