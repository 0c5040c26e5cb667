package stale

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"moult.example/internal/testneed"
)

func TestInterpreterArguments(t *testing.T) {
	for _, tt := range []struct {
		kind string
		args []string
		want string
	}{
		{"python", []string{"python3", "app.py", "-c"}, "app.py"},
		{"python", []string{"python3", "-u", "-W", "ignore", "/opt/app.py"}, "/opt/app.py"},
		{"python", []string{"python3", "-c", "pass"}, ""},
		{"python", []string{"python3", "-m", "http.server"}, ""},
		{"python", []string{"python3", "-uc", "pass"}, ""},
		{"python", []string{"python3"}, ""},
		{"python", []string{"python3", ""}, ""},
		{"perl", []string{"perl", "-w", "--", "-x.pl"}, "-x.pl"},
		{"sh", []string{"sh", "-e", "run.sh"}, "run.sh"},
		{"sh", []string{"sh", "-c", "sleep 1"}, ""},
		{"busybox", []string{"busybox", "sh", "run.sh"}, "run.sh"},
		{"busybox", []string{"sh", "run.sh"}, "run.sh"},
		{"node", nil, ""},
	} {
		i := slices.IndexFunc(interpreters, func(k interpreterKind) bool { return k.name == tt.kind })
		if got, _ := interpreters[i].script(tt.args); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.args, got, tt.want)
		}
	}
}

// Scripts and what they load are hints, and no facts.
func TestHints(t *testing.T) {
	perl := testneed.Tool(t, "perl")
	wait := "$| = 1; print \"ready\\n\"; sleep 1000;\n"
	setUp := func(s *scene) {
		mkdir(s.t, s.in("app/lib"))
		s.must(os.WriteFile(s.in("app/main.pl"), []byte("#!"+perl+"\n"+wait), 0o755))
		s.must(os.WriteFile(s.in("app/lib/Part.pm"), []byte("1;\n"), 0o644))
	}
	byName := func(s *scene) *exec.Cmd { setUp(s); return s.at(perl, "-w", "app/main.pl") }
	byItself := func(s *scene) *exec.Cmd { setUp(s); return exec.Command(s.in("app/main.pl")) }
	renamed := func(s *scene) {
		s.must(os.WriteFile(s.in("new"), []byte("#!"+perl+"\n"), 0o755))
		s.rename("new", "app/main.pl")
	}
	all := []situation{
		{name: "nothing", begin: byName},
		{name: "script app/main.pl replaced", begin: byName, after: renamed},
		{name: "script app/main.pl replaced, run by itself", begin: byItself, after: renamed},
		{name: "script app/main.pl unlinked", begin: byItself, after: func(s *scene) { s.must(os.Remove(s.in("app/main.pl"))) }},
		{name: "by a relative name, and gone elsewhere", begin: func(s *scene) *exec.Cmd {
			setUp(s)
			s.must(os.WriteFile(s.in("app/main.pl"), []byte("chdir '/';\n"+wait), 0o755))
			return s.at(perl, "-w", "app/main.pl")
		}},
		{name: "module app/lib/Part.pm written", begin: byName, after: func(s *scene) {
			s.must(os.WriteFile(s.in("app/lib/Part.pm"), []byte("2;\n"), 0o644))
		}},
	}
	want := []string{"", "script app/main.pl", "script app/main.pl", "script app/main.pl", "", "module app/lib/Part.pm"}
	if os.Geteuid() == 0 {
		// A mount below may be one that does not answer.
		all = append(all, situation{name: "a new module in a mount below", begin: func(s *scene) *exec.Cmd {
			setUp(s)
			cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-ec", `mkdir app/lib/far
				mount -t tmpfs none app/lib/far; touch -d "next hour" app/lib/far/New.pm; exec "$1" app/main.pl`, "sh", perl)
			cmd.Dir = s.dir
			return cmd
		}})
		want = append(want, "")
	}
	scenes := play(t, all)
	rep, err := Find(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, x := range all {
		s := scenes[x.name]
		got := ""
		for _, p := range rep.Processes {
			if p.PID != s.pid {
				continue
			}
			if v := p.Verdict(); v != None {
				t.Errorf("%s: verdict %q, want none", x.name, v)
			}
			for _, h := range p.Hints {
				name, _ := filepath.Rel(s.dir, h.Path)
				got += string(h.Kind) + " " + name
			}
		}
		if got != want[i] {
			t.Errorf("%s: hints %q, want %q", x.name, got, want[i])
		}
	}
}
