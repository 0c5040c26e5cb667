package deploy_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
	"moult.example/internal/testneed"
)

// TestInstallSources: what is no plain file can be installed too, as with
// install(1): a FIFO, a device, what /proc and /sys make up when it is read.
func TestInstallSources(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	if err := unix.Mkfifo(src+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("from a fifo\n", 100_000)
	done := make(chan error, 1)
	go func() { done <- os.WriteFile(src+"/fifo", []byte(big), 0) }()
	install(t, deploy.InstallOptions{Sources: []string{src + "/fifo"}, Dest: dir + "/x"})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	holds(t, dir+"/x", big, 0o755)

	install(t, deploy.InstallOptions{Sources: []string{"/dev/null"}, Dest: dir + "/x"})
	holds(t, dir+"/x", "", 0o755)

	for _, made := range []string{"/proc/version", "/proc/filesystems", "/sys/kernel/mm/transparent_hugepage/enabled"} {
		want, err := os.ReadFile(made)
		if err != nil {
			t.Logf("%s: %v", made, err)
			continue
		}
		install(t, deploy.InstallOptions{Sources: []string{made}, Dest: dir + "/x"})
		holds(t, dir+"/x", string(want), 0o755)
	}
}

// TestInstallSparse: holes stay holes.
func TestInstallSparse(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	const size = 64 << 20
	put(t, src+"/sparse", "begin", 0o600)
	if err := os.Truncate(src+"/sparse", size); err != nil {
		t.Fatal(err)
	}
	install(t, deploy.InstallOptions{Sources: []string{src + "/sparse"}, Dest: dir})
	var st unix.Stat_t
	if err := unix.Stat(dir+"/sparse", &st); err != nil {
		t.Fatal(err)
	}
	if st.Size != size || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes in %d blocks, want %d bytes and next to none", st.Size, st.Blocks, size)
	}
}

// TestInstallChangedSource: a source that is written to while it is read is
// refused, whether it grows, shrinks or just changes; a link that a build makes
// to it meanwhile is no reason.
func TestInstallChangedSource(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	put(t, dir+"/x", "old", 0o644)
	during := func(change func() error) func(string) (disk.FS, error) {
		return func(path string) (disk.FS, error) {
			root, err := disk.Open(path)
			if err != nil {
				return nil, err
			}
			return disktest.Wrap(root, func(op *disktest.Op, do func() error) error {
				err := do()
				if op.Kind == disktest.OpCopyFrom && err == nil {
					if err := change(); err != nil {
						t.Error(err)
					}
				}
				return err
			}), nil
		}
	}
	for why, change := range map[string]func() error{
		"grows":   func() error { return os.Truncate(src+"/a", 1000) },
		"shrinks": func() error { return os.Truncate(src+"/a", 2) },
		"changes": func() error { return os.WriteFile(src+"/a", []byte("NEW"), 0) },
	} {
		put(t, src+"/a", "new", 0o600)
		past := []unix.Timespec{{Sec: 1}, {Sec: 1}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, src+"/a", past, 0); err != nil {
			t.Fatal(err)
		}
		t.Run(why, func(t *testing.T) {
			refused(t, dir, "changed while it was read",
				deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: dir + "/x", Disk: during(change)})
		})
	}
	put(t, src+"/a", "new", 0o600)
	install(t, deploy.InstallOptions{
		Sources: []string{src + "/a"}, Dest: dir + "/x",
		Disk: during(func() error { return os.Link(src+"/a", src+"/another name") }),
	})
	holds(t, dir+"/x", "new", 0o755)
}

// TestInstallCompare: what is as it should be is not touched, not even its
// inode; with other bytes, another mode or with capabilities it is replaced.
func TestInstallCompare(t *testing.T) {
	src, dir := t.TempDir(), t.TempDir()
	put(t, src+"/a", strings.Repeat("same", 100_000), 0o600)
	o := deploy.InstallOptions{Sources: []string{src + "/a"}, Dest: dir + "/x", Compare: true}
	isSame := func(why string, want bool) {
		t.Helper()
		before, _ := os.Stat(dir + "/x")
		r := install(t, o)
		after, err := os.Stat(dir + "/x")
		if err != nil {
			t.Fatal(err)
		}
		if same := before != nil && os.SameFile(before, after); same != want || r.Files[0].Unchanged != want || r.Changed == want {
			t.Errorf("%s: the same inode is %v, want %v; result %+v", why, same, want, r)
		}
	}
	isSame("nothing there", false)
	isSame("as it should be", true)
	put(t, src+"/a", strings.Repeat("same", 100_000-1)+"Same", 0o600)
	isSame("other bytes", false)
	isSame("as it should be", true)
	if err := os.Chmod(dir+"/x", 0o700); err != nil {
		t.Fatal(err)
	}
	isSame("another mode", false)
	if os.Geteuid() == 0 {
		if err := unix.Setxattr(dir+"/x", "security.capability", []byte(someCaps), 0); err != nil {
			t.Fatal(err)
		}
		isSame("capabilities", false)
		if err := os.Chown(dir+"/x", 1, -1); err != nil {
			t.Fatal(err)
		}
		isSame("another owner", false)
	}
}

// TestInstallStrip strips a real program: not the source, and without traces.
func TestInstallStrip(t *testing.T) {
	gcc := testneed.Tool(t, "gcc")
	testneed.Tool(t, "strip")
	src, dir := t.TempDir(), t.TempDir()
	put(t, src+"/main.c", "int main(void) { return 42; }\n", 0o600)
	if out, err := exec.Command(gcc, "-g", "-o", src+"/prog", src+"/main.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v: %s", err, out)
	}
	before, err := os.ReadFile(src + "/prog")
	if err != nil {
		t.Fatal(err)
	}
	install(t, deploy.InstallOptions{Sources: []string{src + "/prog"}, Dest: dir, Strip: true, Mode: "4711"})
	var st unix.Stat_t
	if err := unix.Stat(dir+"/prog", &st); err != nil || st.Size >= int64(len(before)) || st.Mode&0o7777 != 0o4711 {
		t.Errorf("stripped to %d of %d bytes with mode %04o (%v), want less, with 4711", st.Size, len(before), st.Mode&0o7777, err)
	}
	if err := exec.Command(dir + "/prog").Run(); err == nil || err.Error() != "exit status 42" {
		t.Errorf("the stripped program says %v, want exit status 42", err)
	}
	if after, _ := os.ReadFile(src + "/prog"); !bytes.Equal(before, after) {
		t.Error("the source was stripped")
	}
	noLeftovers(t, dir)

	// A program that leaves something behind, beside the file.
	put(t, src+"/sloppy", "#!/bin/sh\necho beside > \"$1.tmp\"; echo stripped > \"$1\"; echo careful\n", 0o755)
	r := install(t, deploy.InstallOptions{Sources: []string{src + "/prog"}, Dest: dir, Strip: true, StripProgram: src + "/sloppy"})
	holds(t, dir+"/prog", "stripped\n", 0o755)
	if len(r.Warnings) != 1 || !strings.HasSuffix(r.Warnings[0], "careful") {
		t.Errorf("warnings %q, want what the program said", r.Warnings)
	}
	noLeftovers(t, dir)

	put(t, src+"/fails", "#!/bin/sh\necho broken \"$1\" >&2; rm \"$1\"; exit 3\n", 0o755)
	refused(t, dir, "strip failed: "+src+"/fails "+src+"/prog: exit status 3: broken "+dir+"/prog",
		deploy.InstallOptions{Sources: []string{src + "/prog"}, Dest: dir, Strip: true, StripProgram: src + "/fails"})
	put(t, src+"/removes", "#!/bin/sh\nrm \"$1\"\n", 0o755)
	refused(t, dir, "no such file",
		deploy.InstallOptions{Sources: []string{src + "/prog"}, Dest: dir, Strip: true, StripProgram: src + "/removes"})
	refused(t, dir, "strip failed: no-such-strip",
		deploy.InstallOptions{Sources: []string{src + "/prog"}, Dest: dir, Strip: true, StripProgram: "no-such-strip"})
}
