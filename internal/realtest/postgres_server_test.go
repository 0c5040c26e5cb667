package realtest

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"moult.example/internal/testneed"
)

// server is a PostgreSQL server of the test's own, in a directory of its own,
// which listens on a socket there and nowhere else.
type server struct {
	testing.TB
	bin, dir string
	as       *syscall.SysProcAttr // as whom all of its programs run
	postgres *exec.Cmd
}

// postgresBin is the directory of PostgreSQL's programs. Debian keeps the
// server out of PATH.
func postgresBin(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		return filepath.Dir(testneed.Tool(t, "postgres"))
	}
	slices.SortFunc(found, func(a, b string) int { return strings.Compare(fmt.Sprintf("%30s", a), fmt.Sprintf("%30s", b)) })
	return filepath.Dir(found[len(found)-1])
}

func startServer(t testing.TB) *server {
	t.Helper()
	s := &server{TB: t, bin: postgresBin(t)}
	// The path of a socket may not be long, so it is not t.TempDir.
	dir, err := os.MkdirTemp("", "moult-pg-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s.dir = dir
	if os.Geteuid() == 0 { // as root it refuses to run
		u, err := user.Lookup("postgres")
		if err != nil {
			testneed.Skip(t, "needs the user postgres")
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		must(t, os.Chown(dir, uid, gid))
		s.as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	if got := finish(t, s.command("initdb", "--no-sync", "--auth=trust", "--username=test", "--locale=C", "--encoding=UTF8", dir+"/data")); got.status != 0 {
		t.Fatal(got)
	}
	log, err := os.Create(dir + "/log")
	must(t, err)
	defer log.Close()
	s.postgres = s.command("postgres", "-D", dir+"/data", "-k", dir, "-h", "", "-F", "-c", "max_connections=40",
		"-c", "shared_buffers=16MB", "-c", "autovacuum=off", "-c", "lc_messages=C")
	s.postgres.Stdout, s.postgres.Stderr = log, log
	must(t, s.postgres.Start())
	t.Cleanup(func() {
		s.postgres.Process.Signal(syscall.SIGINT) // a fast shutdown
		s.postgres.Wait()
		if t.Failed() {
			t.Log(read(t, dir+"/log"))
		}
	})
	s.ready()
	return s
}

// ready waits until the server takes connections.
func (s *server) ready() {
	s.Helper()
	eventually(s, "PostgreSQL is ready", func() bool {
		return finish(s, s.command("pg_isready", "-q")).status == 0
	})
}

// command is one of PostgreSQL's programs, which finds this server.
func (s *server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir, cmd.SysProcAttr = s.dir, s.as
	cmd.Env = append(os.Environ(), "PGHOST="+s.dir, "PGUSER=test", "PGDATABASE=postgres", "LC_ALL=C")
	return cmd
}

// query runs SQL and returns what it yields, without any decoration.
func (s *server) query(sql string) string {
	s.Helper()
	got := finish(s, s.command("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql))
	if got.status != 0 {
		s.Fatal(got)
	}
	return strings.TrimSpace(got.stdout)
}

// bench starts pgbench with a script, which is a file in the server's directory.
func (s *server) bench(script string, args ...string) (wait func() ended) {
	s.Helper()
	cmd := s.command("pgbench", append([]string{"-n", "-f", filepath.Join(s.dir, script)}, args...)...)
	done := make(chan ended, 1)
	go func() { done <- finish(s, cmd) }()
	return func() ended { return <-done }
}

// extensions compiles two versions of the extension, and a second version that
// is much shorter.
func extensions(t testing.TB, s *server) (one, two, short string) {
	t.Helper()
	config := filepath.Join(s.bin, "pg_config")
	if _, err := os.Stat(config); err != nil {
		config = testneed.Tool(t, "pg_config")
	}
	include := strings.TrimSpace(run(t, config, "--includedir-server"))
	if _, err := os.Stat(include + "/postgres.h"); err != nil {
		testneed.Skip(t, "needs PostgreSQL's server headers")
	}
	build := func(output string, defines ...string) string {
		return compile(t, output, "pgext.c", append(defines, "-I"+include, "-shared", "-fPIC")...)
	}
	return build("pgext1.so", "-DVERSION=1", "-DFIRST=0", "-DPAGES=64"),
		build("pgext2.so", "-DVERSION=2", "-DFIRST=1", "-DPAGES=64"),
		build("pgext-short.so", "-DVERSION=2", "-DFIRST=0", "-DPAGES=8")
}
