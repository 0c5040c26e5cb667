package realtest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// call notes which backend, when it was started, which version its function
// has, and when that was.
const call = `INSERT INTO seen SELECT pg_backend_pid(), a.backend_start, moult_version(), clock_timestamp()
	FROM pg_stat_get_activity(pg_backend_pid()) a;`

// An extension's library is replaced back and forth under a PostgreSQL server:
// no transaction fails, a backend goes on with the code that it has, and a new
// one gets the new code.
func TestPostgres(t *testing.T) {
	s := startServer(t)
	one, two, short := extensions(t, s)
	writeFile(t, s.dir+"/call.sql", call, 0o644)
	s.query(`CREATE UNLOGGED TABLE seen(pid int, started timestamptz, version int, at timestamptz);
		CREATE UNLOGGED TABLE switched(version int, done timestamptz, next timestamptz)`)

	t.Run("install", func(t *testing.T) {
		h := newHost(t)
		lib := h.path("lib/ext.so")
		h.ok("install", "-D", one, lib)
		benchWhile(t, s, lib, func(version int) {
			h.ok("install", []string{one, two}[version-1], lib)
		})
	})
	for _, layout := range []string{"owned", "shared"} {
		t.Run("apply "+layout, func(t *testing.T) {
			h := newHost(t)
			for name, lib := range map[string]string{"v1": one, "v2": two} {
				run(t, "install", "-D", lib, h.path(name+"/lib/ext.so"))
			}
			target := h.path("app")
			h.ok("apply", "--layout", layout, h.path("v1"), target)
			benchWhile(t, s, target+"/lib/ext.so", func(version int) {
				h.ok("apply", h.path(fmt.Sprintf("v%d", version)), target)
			})
		})
	}
	t.Run("cp", func(t *testing.T) { copyKills(t, s, one, short) })
}

// benchWhile replaces the library again and again while pgbench calls its
// function from many short connections and from a few long ones: once more, and
// for longer, where the machine was too busy for that to show anything.
func benchWhile(t *testing.T, s *server, lib string, replace func(version int)) {
	for seconds := 3; ; seconds *= 3 {
		switches := benchFor(t, s, lib, seconds, replace)
		t.Logf("%d replacements in %d s; %s calls, %s backends", switches, seconds, s.query("SELECT count(*) FROM seen"),
			s.query("SELECT count(*) FROM (SELECT DISTINCT pid, started FROM seen) b"))
		judge(t, s)
		missing := shown(s)
		if missing == "" || t.Failed() {
			return
		}
		if seconds > 60 {
			t.Fatal(missing)
		}
		t.Log(missing)
	}
}

// benchFor is one run, which begins and ends with the first version. It returns
// how often the library was replaced.
func benchFor(t *testing.T, s *server, lib string, seconds int, replace func(version int)) (switches int) {
	create(s, lib)
	length := fmt.Sprint(seconds)
	long := s.bench("call.sql", "-c", "4", "-j", "1", "-T", length)
	shortLived := s.bench("call.sql", "-c", "4", "-j", "1", "-T", length, "-C")
	eventually(t, "backends have loaded the first version", func() bool {
		return s.query("SELECT count(DISTINCT pid) >= 8 FROM seen") == "t"
	})
	ends := make(chan []ended)
	go func() { ends <- []ended{long(), shortLived()} }()
	version := 1
	var both []ended
	for both == nil || version == 2 {
		version = 3 - version
		begun := time.Now()
		replace(version)
		switches++
		if got := s.query("SELECT moult_version()"); got != fmt.Sprint(version) {
			t.Errorf("a new backend: got version %s, want %d", got, version)
		}
		s.query(fmt.Sprintf(`UPDATE switched SET next = '%s' WHERE next IS NULL;
			INSERT INTO switched VALUES (%d, clock_timestamp(), NULL)`, begun.Format(time.RFC3339Nano), version))
		if both != nil {
			continue
		}
		select {
		case both = <-ends:
		case <-time.After(50 * time.Millisecond):
		}
	}
	for _, got := range both {
		if got.status != 0 || !strings.Contains(got.stdout, "number of failed transactions: 0 ") {
			t.Errorf("pgbench: %v", got)
		}
	}
	return switches
}

// create starts anew with the function of this library.
func create(s *server, lib string) {
	s.Helper()
	s.query(fmt.Sprintf(`TRUNCATE seen, switched;
		CREATE OR REPLACE FUNCTION moult_version() RETURNS int LANGUAGE c AS '%s'`, lib))
}

// settled is who was started when a version was in place and asked before the next.
const settled = `FROM seen JOIN switched ON started >= done AND at < coalesce(next, 'infinity')`

// judge looks for what no backend may have seen.
func judge(t *testing.T, s *server) {
	t.Helper()
	if got := s.query(`SELECT count(*) FROM (SELECT 1 FROM seen GROUP BY pid, started HAVING count(DISTINCT version) > 1) b`); got != "0" {
		t.Errorf("%s backends have changed their code, want none", got)
	}
	if got := s.query("SELECT count(*) " + settled + " WHERE seen.version <> switched.version"); got != "0" {
		t.Errorf("%s new backends got old code, want none", got)
	}
}

// shown looks for what some must have seen, or else the run has shown nothing. It
// says what is missing.
func shown(s *server) string {
	s.Helper()
	// It went on with the old code: so it is from the second time on that the new
	// version was there.
	if got := s.query(`SELECT count(*) >= 4, count(*) FROM (SELECT 1 FROM seen WHERE version = 1 GROUP BY pid, started
		HAVING min(at) < (SELECT min(done) FROM switched)
		AND max(at) > (SELECT done FROM switched WHERE version = 2 ORDER BY done OFFSET 1 LIMIT 1)) b`); !strings.HasPrefix(got, "t") {
		return "went on with the old code, and how many backends did: got " + got + ", want at least 4"
	}
	if got := s.query("SELECT count(DISTINCT seen.version) " + settled); got != "2" {
		return "new backends got " + got + " versions, want both"
	}
	return ""
}

// cp writes into the file that the backends have mapped.
func copyKills(t *testing.T, s *server, one, short string) {
	lib := filepath.Join(t.TempDir(), "ext.so")
	must(t, os.Chmod(filepath.Dir(filepath.Dir(lib)), 0o755))
	run(t, "cp", one, lib)
	create(s, lib)
	wait := s.bench("call.sql", "-c", "4", "-T", "300") // it does not come to that
	eventually(t, "backends have loaded the library", func() bool {
		return s.query("SELECT count(DISTINCT pid) >= 4 FROM seen") == "t"
	})
	run(t, "cp", short, lib)
	if got := wait(); got.status == 0 {
		t.Errorf("pgbench went on under cp: %v", got)
	}
	s.ready()
	killed := regexp.MustCompile(`server process .* was terminated by signal \d+: .*`).FindString(read(t, s.dir+"/log"))
	if killed == "" {
		t.Error("cp has killed no backend, so this test proves nothing")
	}
	t.Log(killed)
}
