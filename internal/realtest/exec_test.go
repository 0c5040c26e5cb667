package realtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"moult.example/internal/testneed"
)

// heldReleases makes releases whose programs walk by absolute paths: bin/wrap is
// a shell script that reads share/version, waits for a line, reads it again and
// becomes bin/abs. Only the first has old/notes.
func heldReleases(t *testing.T, target string, n int) []string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.Chmod(filepath.Dir(dir), 0o755))
	plugin := compile(t, "plugin.so", "part.c", "-shared", "-fPIC", "-nostdlib", "-DNAME=plugin")
	abs := compile(t, "abs", "abs.c", "-ldl")
	var all []string
	for v := 1; v <= n; v++ {
		r := filepath.Join(dir, "v"+itoa(v))
		stamp(t, plugin, r+"/lib/plugin.so", byte(v))
		all = append(all, tree{
			"share/version": itoa(v) + "\n",
			"bin/wrap": "#!/bin/sh\n" +
				"echo $(cat " + target + "/share/version)\nread line\necho $(cat " + target + "/share/version)\n" +
				"exec " + target + "/bin/abs\n",
		}.write(t, r))
		writeFile(t, r+"/bin/abs", read(t, abs), 0o755)
		if v == 1 {
			tree{"old/notes": "of the first\n"}.write(t, r)
		}
	}
	return all
}

// asUser runs a command as a user other than root.
func asUser(cmd *exec.Cmd) *exec.Cmd {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1000, Gid: 1000}}
	return cmd
}

// A held program sees its generation by absolute paths for its whole life:
// through a shell script that walks twice, in a plugin that it loads late, with
// commits, a collection and a rollback in between, as root and as a user who
// may have namespaces.
func TestExecHolds(t *testing.T) {
	testneed.Root(t)
	testneed.Tool(t, "unshare")
	for _, who := range []string{"root", "user"} {
		t.Run(who, func(t *testing.T) {
			h := newHost(t)
			target := h.path("app")
			releases := heldReleases(t, target, 4)
			h.ok("apply", releases[0], target)
			must(t, os.Mkdir(target+"/etc", 0o777))
			must(t, os.Chmod(target+"/etc", 0o777))
			writeFile(t, target+"/etc/conf", "before\n", 0o644)
			cmd := h.command("exec", "--by", "mount", target, "wrap")
			if who == "user" {
				if out, err := asUser(exec.Command("unshare", "--user", "--map-current-user", "--keep-caps", "--mount", "true")).CombinedOutput(); err != nil {
					testneed.Skip(t, "users may have no namespaces here: "+string(out))
				}
				cmd = asUser(cmd)
			}
			p := startHolder(t, cmd)
			wantAnswer(t, "the script's first look", p.first, "1")
			for _, r := range releases[1:3] {
				h.ok("apply", r, target)
			}
			wantAnswer(t, "its second look", p.ask(""), "1")
			wantAnswer(t, "the program", p.line(), "ready")
			wantAnswer(t, "the process", p.ask("pid"), itoa(p.pid()))
			h.ok("apply", releases[3], target)
			h.ok("rollback", target, "3")
			wantKeptFor(t, h, target, 1, p.pid())

			wantAnswer(t, "a plugin loaded late", p.ask("load "+target+"/lib/plugin.so"), "1")
			wantAnswer(t, "a directory that later releases lack", p.ask("read "+target+"/old/notes"), "of the first")
			writeFile(t, target+"/etc/conf", "after\n", 0o644)
			wantAnswer(t, "what is not moult's", p.ask("read "+target+"/etc/conf"), "after")
			wantAnswer(t, "a file that it makes there", p.ask("make "+target+"/etc/made"), "made")
			if _, err := os.Stat(target + "/etc/made"); err != nil {
				t.Errorf("seen from outside: %v, want the file", err)
			}
			wantAnswer(t, "a file right in the target", p.ask("make "+target+"/made"), "errno "+itoa(int(syscall.EROFS)))

			// Nobody else sees any of it.
			got := startHolder(t, exec.Command(target+"/bin/wrap"))
			wantAnswer(t, "a launch beside it", got.first, "3")
			got.end()
			p.end()
			eventually(t, "generation 1 is collected", func() bool {
				return slices.Contains(collect(t, target, h.path("state"), time.Nanosecond).Collected, 1)
			})
		})
	}
}

func wantAnswer(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// wantKeptFor wants a collection to keep a generation for a process.
func wantKeptFor(t *testing.T, h *host, target string, n, pid int) {
	t.Helper()
	c := collect(t, target, h.path("state"), time.Nanosecond)
	if k := kept(c, n); k.Why != "in use" || !slices.Contains(k.PIDs, pid) {
		t.Errorf("generation %d: got %+v, want it in use by %d", n, k, pid)
	}
}

// A program that has nothing of its generation open, mapped or executed keeps
// it all the same, by each way: by the descriptor that it has inherited, and
// with mounts also after it has closed that.
func TestExecKeepsUnopened(t *testing.T) {
	testneed.Root(t)
	for way, shut := range map[string]bool{"mount": false, "environment": false, "mount, descriptors closed": true} {
		t.Run(way, func(t *testing.T) {
			h := newHost(t)
			target := h.path("app")
			releases := heldReleases(t, target, 4)
			h.ok("apply", releases[0], target)
			by, _, _ := strings.Cut(way, ",")
			p := startHolder(t, h.command("exec", "--by", by, target, compile(t, "abs", "abs.c", "-ldl")))
			if shut {
				wantAnswer(t, "close", p.ask("shut"), "shut")
			}
			for _, r := range releases[1:] {
				h.ok("apply", r, target)
			}
			wantKeptFor(t, h, target, 1, p.pid())
			if by == "mount" {
				wantAnswer(t, "its first look", p.ask("read "+target+"/share/version"), "1")
			}
			p.end()
			eventually(t, "generation 1 is collected", func() bool {
				return slices.Contains(collect(t, target, h.path("state"), time.Nanosecond).Collected, 1)
			})
		})
	}
}

// Without mounts the program, its libraries and what it finds by PATH are the
// generation's; what it opens by an absolute path is not.
func TestExecByEnvironment(t *testing.T) {
	testneed.Root(t)
	h := newHost(t)
	target := h.path("app")
	releases := heldReleases(t, target, 2)
	h.ok("apply", releases[0], target)
	h.ok("apply", releases[1], target)
	h.env = []string{"PATH=" + target + "/bin:" + os.Getenv("PATH"), "LD_LIBRARY_PATH=/nowhere:" + target + "/lib"}
	gen := target + "/.moult/generations/1"
	got := h.ok("exec", "--by", "environment", "-g", "1", target, "sh", "-c", `command -v abs; echo $LD_LIBRARY_PATH; cd "$0"; pwd -P`, target+"/lib")
	wantAnswer(t, "PATH, LD_LIBRARY_PATH and a path", strings.TrimSpace(got.stdout),
		gen+"/bin/abs\n"+gen+"/lib:/nowhere\n"+target+"/.moult/generations/2/lib")
	cmd := h.command("exec", "--by", "environment", "-g", "1", target, target+"/bin/abs")
	cmd.Dir = target + "/lib" // of generation 2
	p := startHolder(t, cmd)
	exe, err := os.Readlink("/proc/" + itoa(p.pid()) + "/exe")
	must(t, err)
	wantAnswer(t, "the program", exe, gen+"/bin/abs")
	wantAnswer(t, "a plugin beside it", p.ask("load ./plugin.so"), "1")
}

// moult becomes the program: its process id, standard input, exit status, and
// the signal that ends it are the program's.
func TestExecBecomesProgram(t *testing.T) {
	testneed.Root(t)
	h := newHost(t)
	target := h.path("app")
	h.ok("apply", heldReleases(t, target, 1)[0], target)
	cmd := h.command("exec", target, "sh", "-c", "read x; echo $$ $x; exit 42")
	cmd.Stdin = strings.NewReader("from stdin\n")
	got := finish(t, cmd)
	wantAnswer(t, "output", got.stdout, itoa(cmd.Process.Pid)+" from stdin\n")
	if got.status != 42 {
		t.Errorf("got status %d, want 42", got.status)
	}
	p := startHolder(t, h.command("exec", target, "abs"))
	must(t, p.cmd.Process.Signal(syscall.SIGUSR1))
	p.cmd.Wait()
	p.over = true
	if ws := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !ws.Signaled() || ws.Signal() != syscall.SIGUSR1 {
		t.Errorf("after SIGUSR1: got %v, want an end by it", p.cmd.ProcessState)
	}
}

// A generation that is staged and tried is not dropped by the next stage as
// long as something runs from it.
func TestExecOfStaged(t *testing.T) {
	testneed.Root(t)
	h := newHost(t)
	target := h.path("app")
	releases := heldReleases(t, target, 3)
	h.ok("apply", releases[0], target)
	h.ok("stage", releases[1], target)
	p := startHolder(t, h.command("exec", "-g", "2", target, "wrap"))
	wantAnswer(t, "the staged version", p.first, "2")
	if got := h.status(1, "stage", releases[2], target); !strings.Contains(got.stderr, "runs from it") {
		t.Errorf("got %v, want it refused because a process runs from it", got)
	}
	h.ok("commit", target) // the mounts of a held program are in nobody's way
	wantAnswer(t, "after the commit", p.ask(""), "2")
	p.end()
	h.ok("stage", releases[2], target)
}
