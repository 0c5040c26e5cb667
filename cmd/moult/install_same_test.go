package main

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk/disktest"
	"moult.example/internal/testneed"
)

var installSeed = flag.Uint64("install-seed", 0, "run TestInstallSame with this one seed")

// TestInstallSame gives random command lines to install(1) and to moult install,
// in two equal directories. Where install(1) succeeds, moult must, and both
// leave the same tree and say the same. Where it fails, moult must fail too, and
// leave the tree as it was, which install(1) does not.
func TestInstallSame(t *testing.T) {
	real := gnuInstall(t)
	seeds, first := uint64(400), uint64(1)
	if testing.Short() {
		seeds = 60
	}
	if *installSeed != 0 {
		seeds, first = 1, *installSeed
	}
	base := disktest.TempDir(t)
	theirs, ours := filepath.Join(base, "theirs"), filepath.Join(base, "ours")
	t.Chdir(base)
	succeeded := 0
	for seed := first; seed < first+seeds; seed++ {
		rng := rand.New(rand.NewPCG(seed, 7))
		maskNumber := []int{0o022, 0o077, 0, 0o27}[rng.IntN(4)]
		withACL := rng.IntN(4) == 0
		args := randomInstall(rng)
		if seed <= uint64(len(onceDifferent)) {
			args = onceDifferent[seed-1]
		}
		before := makeInstallTree(t, theirs, withACL)
		makeInstallTree(t, ours, withACL)

		old := unix.Umask(maskNumber)
		cmd := exec.Command(real, args...)
		cmd.Dir = theirs
		cmd.Env = []string{"LC_ALL=C.UTF-8", "PATH=" + os.Getenv("PATH")}
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, io.Discard
		failed := cmd.Run() != nil
		if err := os.Chdir(ours); err != nil {
			t.Fatal(err)
		}
		status, stdout, stderr := runMoult(append([]string{"install"}, args...)...)
		unix.Umask(old)

		told := fmt.Sprintf("seed %d: umask %03o; install %q: status %d, %s", seed, maskNumber, args, status, stderr)
		if failed != (status != 0) {
			t.Errorf("%s; but install(1) failed: %v", told, failed)
			continue
		}
		want := before
		if !failed {
			succeeded++
			want = captureTree(t, theirs)
			if got := stdout; got != sayAsMoult(said.String()) {
				t.Errorf("%s:\nprints %q\nwant   %q", told, got, sayAsMoult(said.String()))
			}
		}
		if diff := want.Diff(captureTree(t, ours)); diff != "" {
			t.Errorf("%s: another tree than wanted:\n%s", told, diff)
		}
		if diff := want.DiffTimes(captureTree(t, ours)); !failed && diff != "" && hasFlag(args, "p") {
			t.Errorf("%s: other times than wanted:\n%s", told, diff)
		}
	}
	if *installSeed == 0 && (succeeded < int(seeds)/4 || succeeded > int(seeds)*9/10) {
		t.Errorf("%d of %d command lines succeeded, want a good mixture", succeeded, seeds)
	}
}

// onceDifferent are what moult has done in another way than install(1).
var onceDifferent = [][]string{
	{"-v", "-C", "D/prog", "prog", "D"},
	{"link", "--backup=t", "-S~~", "--backup", "D"},
	{"--backup=zz", "--backup", "s", "x"},
	{"-v", "s", "circle"},
	{"-b", "-v", "s", "circle"},
	{"-o", "4294967296", "s", "x"},
	{"-g", "-4294967296", "-d", "n"},
	{"-v", "-C", "s", "D/prog", "prog", "D/prog", "D"},
}

// gnuInstall is the install(1) to compare with; busybox has another one.
func gnuInstall(t testing.TB) string {
	t.Helper()
	path := testneed.Tool(t, "install")
	if out, err := exec.Command(path, "--version").Output(); err != nil || !bytes.Contains(out, []byte("GNU coreutils")) {
		testneed.Skip(t, "needs GNU install")
	}
	return path
}

var theirName = regexp.MustCompile(`(?m)^\S*install: creating`)

func sayAsMoult(text string) string {
	return theirName.ReplaceAllString(text, "moult install: creating")
}

func hasFlag(args []string, letter string) bool {
	for _, a := range args {
		if strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "--") && strings.Contains(a, letter) {
			return true
		}
	}
	return false
}

func captureTree(t testing.TB, dir string) *disktest.Tree {
	t.Helper()
	tree, err := disktest.Capture(dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// makeInstallTree fills an empty directory with what an installation can meet.
func makeInstallTree(t testing.TB, dir string, withACL bool) *disktest.Tree {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.RemoveAll(dir))
	for _, d := range []string{"", "D", "D/sub", "D/s", "G", "e", "priv"} {
		must(os.Mkdir(filepath.Join(dir, d), 0o755))
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	stamp := unix.NsecToTimespec(1_000_000_000_123_456_789)
	for name, mode := range map[string]uint32{
		"s": 0o640, "prog": 0o755, "empty": 0o600, "suid": 0o4755, "y": 0o644, "D/y": 0o600, "D/prog": 0o755,
		"same": 0o755, "e/s": 0o644, "y~": 0o644, "D/y.~3~": 0o600, "it's": 0o644, "new\nline": 0o644,
	} {
		text := name
		switch name {
		case "empty":
			text = ""
		case "same":
			text = "prog" // for -C
		}
		must(os.WriteFile(at(name), []byte(text), 0o600))
		must(unix.Chmod(at(name), mode))
		must(unix.UtimesNanoAt(unix.AT_FDCWD, at(name), []unix.Timespec{stamp, stamp}, 0))
	}
	for text, name := range map[string]string{
		"s": "link", "y": "ylink", "nowhere": "dangling", "D": "Dlink", "../y": "D/link", "circle": "circle",
	} {
		must(os.Symlink(text, at(name)))
	}
	must(os.Link(at("s"), at("s2")))
	must(os.Link(at("y"), at("y2")))
	must(unix.Mkfifo(at("fifo"), 0o644))
	must(unix.Chmod(at("G"), 0o2775))
	must(unix.Chmod(at("priv"), 0o700))
	if withACL {
		// user::rwx user:1:rwx group::r-x mask::rwx other::r-x, as default
		acl := "\x02\x00\x00\x00" +
			"\x01\x00\x07\x00\xff\xff\xff\xff" + "\x02\x00\x07\x00\x01\x00\x00\x00" +
			"\x04\x00\x05\x00\xff\xff\xff\xff" + "\x10\x00\x07\x00\xff\xff\xff\xff" + "\x20\x00\x05\x00\xff\xff\xff\xff"
		for _, d := range []string{"D", "G"} {
			if err := unix.Setxattr(at(d), "system.posix_acl_default", []byte(acl), 0); err != nil {
				testneed.Skip(t, "needs a file system with ACLs")
			}
		}
	}
	return captureTree(t, dir)
}

// randomInstall makes a command line, often one that can succeed.
func randomInstall(rng *rand.Rand) []string {
	pick := func(from ...string) string { return from[rng.IntN(len(from))] }
	chance := func(percent int) bool { return rng.IntN(100) < percent }
	var flags []string
	flag := func(percent int, f ...string) {
		if chance(percent) {
			flags = append(flags, f...)
		}
	}
	modes := []string{
		"0755", "4755", "02711", "00750", "u=rwx,go=rx", "u=rwX,go=X", "8", "u=rwx,", "=755", "1777",
		"644", "a+rX", "u+rw,g=u,o=g-w", "+x", "=rw", "g+s", "u=,+r", "g-s", "7", "a=rx,u+w", "go=u-w", "ugo+rwxst", "600",
	}
	if os.Geteuid() != 0 {
		modes = modes[:10] // with the others it could not be read or entered
	}
	mode := pick(modes...)
	switch rng.IntN(5) {
	case 0:
		flags = append(flags, "-m", mode)
	case 1:
		flags = append(flags, "-m"+strings.TrimPrefix(mode, "="))
	case 2:
		flags = append(flags, "--mode="+mode)
	}
	if os.Geteuid() == 0 {
		flag(15, "-o", pick("1", "daemon", "0x2", "nosuchuser"))
		flag(15, "-g"+pick("2", "daemon", "010", "0"))
	}
	flag(60, "-v")
	flag(5, "-c")
	sources := []string{"s", "prog", "empty", "suid", "link", "s2", "y", "fifo2", "missing", "D", "same", "D/prog", "./s", "it's", "new\nline", "y~", "ylink"}
	some := func(n int) (list []string) {
		for range n {
			list = append(list, pick(sources[:7]...))
		}
		if chance(25) {
			list[rng.IntN(n)] = pick(sources...)
		}
		return list
	}
	if chance(25) {
		flag(20, "-D")
		return shuffle(rng, append(flags, "-d"), dirOperands(rng))
	}
	flag(30, "-D")
	flag(15, "-C")
	flag(25, "-p")
	// Not --backup=simple: install(1) 9.1 keeps the old file in another directory.
	flag(12, pick("-b", "--backup", "--backup=numbered", "--backup=t", "--backup=existing", "--backup=none", "--backup=nu", "--backup=zz"))
	flag(4, pick("--backup", "--back"))
	flag(6, pick("-S", "--suffix"), pick(".bak", "~", ".orig", "a/b"))
	flag(2, "--no-such-flag")
	switch rng.IntN(5) {
	case 0:
		return shuffle(rng, flags, append(some(1+rng.IntN(3)), pick("D", "Dlink", "G", "D/", "e/.", "y", "nodir", ".")))
	case 1:
		return shuffle(rng, append(flags, "-t", pick("D", "Dlink", "G", "circle", "new", "new/er", "e/", "y", "dangling")), some(1+rng.IntN(3)))
	case 2:
		flags = append(flags, "-T")
	}
	dest := pick("x", "y", "ylink", "dangling", "D", "D/sub", "D/new", "Dlink/new", "new/x", "new//er/x", "y/x", "fifo", "D/y", "suid", "s", "s2",
		"link", "G/x", "x/", "D/link", "e/../x", "new/../x", "circle", "circle/x", "D/s", "./x", "", "it's", "e/new\nline")
	return shuffle(rng, flags, append(some(1), dest))
}

func dirOperands(rng *rand.Rand) (dirs []string) {
	all := []string{"n", "n/o/p", "G", "G/n/o", "D/n", "y", "Dlink", "Dlink/n", "dangling", "q//r/", "./t/../u", "e", "priv", "y/z", "new/."}
	for range 1 + rng.IntN(3) {
		dirs = append(dirs, all[rng.IntN(len(all))])
	}
	return dirs
}

// shuffle puts the flags before, behind or around the operands, whose order
// counts.
func shuffle(rng *rand.Rand, flags, operands []string) []string {
	switch rng.IntN(4) {
	case 0:
		return append(operands, flags...)
	case 1:
		return append(append([]string{operands[0]}, flags...), operands[1:]...)
	case 2:
		return append(append(flags, "--"), operands...)
	}
	return append(flags, operands...)
}
