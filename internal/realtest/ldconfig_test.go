package realtest

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

// setUpSystem makes a mount namespace look like a host of its own: an /etc with
// little but the loader's configuration, an empty /usr/local, a systemd that
// seems to run, and a /usr that cannot be written to. $0 is a directory for it.
const setUpSystem = `set -e
mkdir -p "$0/etc/ld.so.conf.d"
cp /etc/passwd /etc/group "$0/etc"
cp -r /etc/ld.so.conf /etc/ld.so.conf.d "$0/etc"
printf '/usr/local/lib\n/usr/local/app/lib\n' > "$0/etc/ld.so.conf.d/moult-test.conf"
mount --bind "$0/etc" /etc
mount --bind /usr /usr
mount -o remount,bind,ro /usr
mount -t tmpfs -o mode=755 none /usr/local
mount -t tmpfs -o mode=755 none /run
mkdir -p /run/systemd/system
test ! -d /var/cache/ldconfig || mount -t tmpfs none /var/cache/ldconfig
ldconfig
echo ready
exec cat`

// ownSystem is a host in a mount namespace as setUpSystem makes it. ldconfig
// and systemctl write down how they are called.
type ownSystem struct {
	*host
	log string
}

func newOwnSystem(t testing.TB) *ownSystem {
	t.Helper()
	testneed.Root(t)
	testneed.Tool(t, "unshare")
	testneed.Tool(t, "nsenter")
	testneed.Tool(t, "ldconfig")
	s := &ownSystem{host: newHost(t)}
	s.log = s.path("log")
	writeFile(t, s.log, "", 0o644)
	tree{
		"fake/ldconfig":  "#!/bin/sh\necho ldconfig \"$@\" >> " + s.log + "\nexec " + testneed.Tool(t, "ldconfig") + " \"$@\"\n",
		"fake/systemctl": "#!/bin/sh\necho systemctl \"$@\" >> " + s.log + "\ntest ! -e " + s.path("systemctl-fails") + "\n",
	}.write(t, s.dir)
	p := startHolder(t, exec.Command("unshare", "-m", "sh", "-c", setUpSystem, s.path("own")))
	s.via = []string{"nsenter", "-t", itoa(p.pid()), "-m", "--"}
	s.env = []string{"PATH=" + s.path("fake") + ":" + os.Getenv("PATH")}
	return s
}

// inside is a command in the namespace.
func (s *ownSystem) inside(name string, args ...string) *exec.Cmd {
	all := append(append([]string{}, s.via...), name)
	return exec.Command(all[0], append(all[1:], args...)...)
}

// ran returns what was run since the last time.
func (s *ownSystem) ran() string {
	s.Helper()
	text := strings.TrimSpace(read(s, s.log))
	must(s, os.Truncate(s.log, 0))
	return text
}

func (s *ownSystem) wantRan(what, want string) {
	s.Helper()
	if got := s.ran(); got != want {
		s.Errorf("%s: ran %q, want %q", what, got, want)
	}
}

// library makes a release of a library whose file has its minor version in its
// name.
func (s *ownSystem) library(minor byte) (release string) {
	s.Helper()
	lib := compile(s, "libmoultx.so.1", "part.c", "-shared", "-fPIC", "-nostdlib", "-DNAME=moultx", "-Wl,-soname,libmoultx.so.1")
	release = s.path("lib-" + itoa(int(minor)))
	file := "libmoultx.so.1." + itoa(int(minor))
	stamp(s, lib, release+"/lib/"+file, minor)
	return tree{"lib/libmoultx.so.1": "->" + file, "share/same": "same"}.write(s, release)
}

// wantLoads wants a program that finds the library by the loader's cache to get
// this version, before and after a plain ldconfig, as anybody may run it.
func (s *ownSystem) wantLoads(what, dir, version string) {
	s.Helper()
	uses := compile(s, "uses", "uses.c", compile(s, "libmoultx.so.1", "part.c"))
	link := finish(s, s.inside("stat", "-c", "%i %N", dir+"/libmoultx.so.1")).stdout
	if got := finish(s, s.inside(uses)); got.stdout != version+"\n" {
		s.Errorf("%s: a program gets %v, want library version %s", what, got, version)
	}
	if got := finish(s, s.inside("ldconfig")); got.status != 0 {
		s.Fatal(got)
	}
	if got := finish(s, s.inside(uses)); got.stdout != version+"\n" {
		s.Errorf("%s, then ldconfig: a program gets %v, want library version %s", what, got, version)
	}
	if got := finish(s, s.inside("stat", "-c", "%i %N", dir+"/libmoultx.so.1")).stdout; got != link {
		s.Errorf("%s: ldconfig had something to do: the link was %q and is %q", what, link, got)
	}
}

// The loader's cache is made anew where a library of a directory changed that
// it knows, and a later ldconfig does not undo a rollback.
func TestLdconfig(t *testing.T) {
	for layout, target := range map[string]string{"shared": "/usr/local", "owned": "/usr/local/app"} {
		t.Run(layout, func(t *testing.T) {
			s := newOwnSystem(t)
			one, two := s.library(1), s.library(2)
			dir := target + "/lib"
			for i, release := range []string{one, two} {
				s.ok("apply", "--layout", layout, release, target)
				s.wantRan("apply", "ldconfig -X")
				s.wantLoads("apply", dir, itoa(i+1))
			}
			s.ok("rollback", target)
			s.wantRan("rollback", "ldconfig -X")
			s.wantLoads("rollback", dir, "1")

			// What is none of the loader's business does not concern it.
			other := tree{"share/same": "other", "bin/tool": "tool"}.write(t, s.path("other"))
			run(t, "cp", "-a", one+"/lib", other+"/lib")
			s.ok("apply", other, target)
			s.wantRan("apply of other files", "")
			s.ok("apply", "--no-hooks", two, target)
			s.wantRan("apply --no-hooks", "")
		})
	}
}

// A process that still maps the newer library does not make a rollback one that
// ldconfig undoes: ldconfig links the newest file that it sees.
func TestLdconfigWhileMapped(t *testing.T) {
	for layout, target := range map[string]string{"shared": "/usr/local", "owned": "/usr/local/app"} {
		t.Run(layout, func(t *testing.T) {
			s := newOwnSystem(t)
			one, two := s.library(1), s.library(2)
			s.ok("apply", "--layout", layout, one, target)
			s.ok("apply", two, target)
			uses := compile(s, "uses", "uses.c", compile(s, "libmoultx.so.1", "part.c"))
			p := startHolder(t, s.inside(uses, "wait"))
			if p.first != "2" {
				t.Fatalf("got version %s, want 2", p.first)
			}
			s.ok("rollback", target)
			s.wantLoads("rollback while in use", target+"/lib", "1")
		})
	}
}

// systemd reads its units again where they have changed.
func TestSystemctl(t *testing.T) {
	s := newOwnSystem(t)
	unit := func(version string, files tree) string {
		files["lib/systemd/system/moultx.service"] = "[Service]\nExecStart=/usr/local/bin/moultx\n# " + version + "\n"
		return files.write(t, s.path(version))
	}
	const target = "/usr/local"
	s.ok("apply", "--layout", "shared", unit("one", tree{"bin/moultx": "one"}), target)
	if got := s.ran(); !strings.HasSuffix(got, "systemctl daemon-reload") { // lib is new, so ldconfig may look at it
		t.Errorf("first apply: ran %q, want systemctl daemon-reload", got)
	}
	two := unit("two", tree{"bin/moultx": "one"})
	s.ok("apply", two, target)
	s.wantRan("another unit", "systemctl daemon-reload")
	writeFile(t, two+"/bin/moultx", "two", 0o644)
	s.ok("apply", two, target)
	s.wantRan("another program", "")
	s.ok("rollback", target, "1")
	s.wantRan("rollback", "systemctl daemon-reload")

	writeFile(t, s.path("systemctl-fails"), "", 0o644)
	got := s.status(4, "apply", two, target)
	if !strings.Contains(got.stderr, "systemctl daemon-reload") {
		t.Errorf("%v, want it to name what failed", got)
	}
	if got := finish(t, s.inside("cat", target+"/bin/moultx")); got.stdout != "two" {
		t.Errorf("%v, want the release to be live", got)
	}
	s.ran()

	if got := finish(t, s.inside("rm", "-r", "/run/systemd")); got.status != 0 {
		t.Fatal(got)
	}
	s.ok("rollback", target)
	s.wantRan("where systemd does not run", "")
}
