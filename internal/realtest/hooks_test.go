package realtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// hooked makes a release with a moult.toml of these lines.
func hooked(h *host, name, lines string) (release string) {
	h.Helper()
	return tree{"bin/tool": name, "moult.toml": "version = \"" + name + "\"\n[hooks]\n" + lines}.write(h, h.path(name))
}

// A hook before the commit that fails refuses it; one after it that fails is
// reported, and the release is live; --no-hooks runs none. They know what is
// done to which target.
func TestHooks(t *testing.T) {
	for _, layout := range []string{"owned", "shared"} {
		t.Run(layout, func(t *testing.T) {
			h := newHost(t)
			target := h.path("app")
			h.ok("apply", "--layout", layout, hooked(h, "one", ""), target)

			got := h.status(1, "apply", hooked(h, "refuses", `before = "echo not today >&2; exit 3"`), target)
			if !strings.Contains(got.stderr, "not today") {
				t.Errorf("%v, want it to say what the hook has said", got)
			}
			want(t, target+"/bin/tool", "one")

			note := h.path("note")
			line := `"echo $MOULT_TARGET $MOULT_VERSION $MOULT_FROM $MOULT_GENERATION $(pwd) $(cat bin/tool) >> ` + note + `"`
			h.ok("apply", hooked(h, "both", "before = "+line+"\nafter = "+line), target)
			told := strings.Fields(read(t, note))
			// The number that a refused release had is not used again.
			if len(told) != 12 || told[0] != target || told[1] != "both" || told[2] != "1" || told[3] != told[9] ||
				told[4] != target || told[5] != "one" || told[11] != "both" {
				t.Errorf("the hooks were told %q", told)
			}

			h.ok("rollback", target)
			want(t, target+"/bin/tool", "one")

			fails := hooked(h, "fails", `after = "echo no service >&2; exit 1"`)
			got = h.status(4, "apply", fails, target)
			if !strings.Contains(got.stderr, "no service") {
				t.Errorf("%v, want it to say what the hook has said", got)
			}
			want(t, target+"/bin/tool", "fails")
			h.ok("status", target)
			if got := h.ok("history", target); !strings.Contains(got.stdout, "after-failed") {
				t.Errorf("%v, want the last record to say after-failed", got)
			}

			h.ok("apply", "--no-hooks", hooked(h, "none", "before = \"exit 1\"\nafter = \"exit 1\""), target)
			want(t, target+"/bin/tool", "none")
		})
	}
}

// A hook that does not end is killed with all that it has started.
func TestHookTimeout(t *testing.T) {
	h := newHost(t)
	target := h.path("app")
	began := time.Now()
	h.ok("apply", hooked(h, "one", ""), target)
	// In it the hook has to begin: ten times what a whole apply takes.
	limit := max(2*time.Second, 10*time.Since(began)).Round(time.Second)
	stuck := func(when string) string {
		return fmt.Sprintf("%[1]s = \"sleep 1234 & echo $! >> %[2]s; echo $$ >> %[2]s; sleep 1234\"\ntimeout = \"%[3]v\"\n", when, h.path(when+".pids"), limit)
	}
	for _, c := range []struct {
		when   string
		status int
		tool   string
	}{{"before", 1, "one"}, {"after", 4, "after"}} {
		got := h.status(c.status, "apply", hooked(h, c.when, stuck(c.when)), target)
		if !strings.Contains(got.stderr, limit.String()) {
			t.Errorf("%v, want it to name the time limit", got)
		}
		want(t, target+"/bin/tool", c.tool)
		for _, pid := range strings.Fields(read(t, h.path(c.when+".pids"))) {
			eventually(t, "process "+pid+" of the hook is gone", func() bool { return !runs(pid) })
		}
	}
}

// runs says whether a process is there, and no zombie.
func runs(pid string) bool {
	status, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(status), ") ")
	return !strings.HasPrefix(after, "Z")
}
