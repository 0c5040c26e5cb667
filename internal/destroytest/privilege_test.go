package destroytest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/testneed"
)

// TestPrivilegeOrder watches the system calls: a file must never have set-id
// bits before it has its owner, nor capabilities before both, not even for a
// moment, under whatever name.
func TestPrivilegeOrder(t *testing.T) {
	testneed.Root(t)
	strace := testneed.Tool(t, "strace")
	for name, args := range map[string][]string{
		"owned":   {"apply", "--layout", "owned", "r", "app"},
		"shared":  {"apply", "--packaged", "--layout", "shared", "r", "app"},
		"packed":  {"apply", "--layout", "owned", "r.moult", "app"},
		"tar":     {"apply", "--layout", "owned", "r.tar", "app"},
		"install": {"install", "-m", "6755", "-o", "daemon", "-g", "daemon", "r/plain", "app/su"},
		"keep":    {"install", "--keep-caps", "r/plain", "app/old"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			files{"su": "program", "plain": "plain", "moult.toml": `
				[[file]]
				match = "su"
				owner = "daemon"
				group = "daemon"
				mode = "6755"
				caps = "cap_net_raw=ep"`}.write(t, h.path("r"))
			h.ok("pack", "r", "-o", "r.moult")
			tar(t, h.path("r"), h.path("r.tar"))
			files{"old": "old"}.write(t, h.path("app"))
			uid, gid := daemonIDs(t)
			must(t, os.Chown(h.path("app/old"), uid, gid))
			must(t, unix.Chmod(h.path("app/old"), 0o6755))

			calls := "openat,fchown,fchownat,?lchown,?chown,?chmod,fchmod,fchmodat,?fchmodat2,fsetxattr,setxattr,lsetxattr,?setxattrat"
			cmd := h.command(args...)
			cmd.Path, cmd.Args = strace, append([]string{"strace", "-f", "-y", "-o", h.path("calls"), "-e", "trace=" + calls}, cmd.Args...)
			if got := h.finish(cmd); strings.Contains(got.stderr, "ptrace") {
				testneed.Skip(t, "may not trace: "+got.stderr)
			} else if got.status != 0 {
				t.Fatal(got)
			}
			text, err := os.ReadFile(h.path("calls"))
			must(t, err)
			checkOrder(t, string(text), fmt.Sprintf("%d, %d", uid, gid))
		})
	}
}

var (
	tracedCall = regexp.MustCompile(`^\d+ +(\w+)\((.*)\) += (\d+)`)
	tracedFile = regexp.MustCompile(`^\d+<([^>]*)>, (.*)$`)
)

// checkOrder reads what strace has written.
func checkOrder(t testing.TB, calls, owner string) {
	t.Helper()
	owned, set := map[string]bool{}, map[string]bool{}
	for line := range strings.Lines(calls) {
		call := tracedCall.FindStringSubmatch(line)
		if call == nil {
			continue
		}
		if call[1] == "openat" {
			if mode := lastNumber(call[2]); strings.Contains(call[2], "O_EXCL") && mode&0o6077 != 0 {
				t.Errorf("made with mode %04o, want nothing for others and no set-id bits: %s", mode, line)
			}
			continue
		}
		file := tracedFile.FindStringSubmatch(call[2])
		if file == nil {
			continue // by name: directories, and symbolic links
		}
		switch call[1] {
		case "fchown":
			owned[file[1]] = file[2] == owner
			if set[file[1]] {
				t.Errorf("a new owner after the set-id bits: %s", line)
			}
		case "fchmod":
			if lastNumber(file[2])&0o6000 != 0 {
				set[file[1]] = true
				if !owned[file[1]] {
					t.Errorf("set-id bits before the owner: %s", line)
				}
			}
		case "fsetxattr":
			if strings.Contains(file[2], "security.capability") && !set[file[1]] {
				t.Errorf("capabilities before owner and mode: %s", line)
			}
		}
	}
	if len(set) == 0 {
		t.Errorf("no file has got set-id bits:\n%s", calls)
	}
}

// lastNumber is the octal number at the end of a call's arguments.
func lastNumber(args string) uint64 {
	n, err := strconv.ParseUint(args[strings.LastIndexByte(args, ' ')+1:], 8, 32)
	if err != nil {
		return 0
	}
	return n
}

// TestSetIDNeedsOwner: a release that brings set-id bits, but does not say whose
// they are to be, is refused whole.
func TestSetIDNeedsOwner(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"owned", "shared"} {
		for _, mode := range []string{"4755", "2755"} {
			h := newHost(t)
			files{"bin/su": mode + ":program", "VERSION": "1"}.write(t, h.path("r"))
			must(t, os.Mkdir(h.path("app"), 0o755))
			args := []string{"apply", "--packaged", "--layout", layout, "r", "app"}
			h.unchanged(func() { h.refused([]string{"bin/su", mode, "does not say whose"}, args...) })
			h.unchanged(func() { h.refused([]string{"bin/su", mode, "does not say whose"}, append(args, "--dry-run")...) })
			h.ok(append(args, "--owners", "names")...)
		}
	}
}

// TestRetiredIsClosed: an old set-user-id program must not stay there for
// everybody to start.
func TestRetiredIsClosed(t *testing.T) {
	testneed.Root(t)
	t.Parallel()
	h := newHost(t)
	release1.write(t, h.path("r1"))
	release2.write(t, h.path("r2"))
	h.ok("apply", "r1", "app")
	h.ok("apply", "r2", "app")
	ageHistory(t, h.path("app"))
	h.ok("gc", "app")
	for n, want := range map[string]os.FileMode{"1": 0o700, "2": 0o755} {
		st, err := os.Stat(h.path("app/.moult/generations/" + n))
		must(t, err)
		if got := st.Mode().Perm(); got != want {
			t.Errorf("generation %s has mode %04o, want %04o", n, got, want)
		}
	}
	h.ok("rollback", "app")
	view(t, h.path("app")) // others can look into what is live
}

// TestWithoutRoot applies as a user who may not give files away: what he may not
// do is refused, by the file's name, and nothing has changed.
func TestWithoutRoot(t *testing.T) {
	testneed.Root(t)
	uid, gid := daemonIDs(t)
	for name, toml := range map[string]string{
		"another's": "owner = \"root\"",
		"caps":      "caps = \"cap_net_raw=ep\"",
		"his own":   "owner = \"daemon\"\nmode = \"4755\"",
	} {
		for _, layout := range []string{"owned", "shared"} {
			t.Run(layout+" "+name, func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				files{"bin/tool": "0755:tool", "moult.toml": "[[file]]\nmatch = \"bin/tool\"\n" + toml}.write(t, h.path("r"))
				for _, dir := range []string{"app", "state"} {
					must(t, os.Mkdir(h.path(dir), 0o755))
					must(t, os.Chown(h.path(dir), uid, gid))
				}
				must(t, os.Chmod(filepath.Dir(h.dir), 0o755))
				before := view(t, h.path("app"))
				cmd := h.command("apply", "--packaged", "--layout", layout, "r", "app")
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
				got := h.finish(cmd)
				if name == "his own" {
					if got.status != 0 {
						t.Fatal(got)
					}
					return
				}
				if got.status != 1 {
					t.Fatalf("want status 1, got %v", got)
				}
				h.tells(got, "bin/tool")
				if diff := before.Diff(view(t, h.path("app"))); diff != "" {
					t.Error(diff)
				}
				must(t, leftovers(h.path("app")))
			})
		}
	}
}
