package release

import (
	"reflect"
	"strings"
	"testing"
)

func TestRestartRules(t *testing.T) {
	c, err := parseConfig("moult.toml", []byte(`
name = "app"
[[restart]]
path = "bin/*"
run = ["bin/ctl", "re start", "ü\n"]
timeout = "30s"
health = ["tcp:localhost:80"]
[[restart]]
unit = "app@*.service"
reload = true
`))
	if err != nil {
		t.Fatal(err)
	}
	m := &Manifest{Name: "app", Restart: c.Restart}
	got, err := Parse(m.Encode())
	if err != nil || !reflect.DeepEqual(got.Restart, c.Restart) {
		t.Fatalf("%s gives %+v, %v, want %+v", m.Encode(), got, err, c.Restart)
	}
	other := *m
	other.Restart = c.Restart[:1]
	if m.ID() == other.ID() {
		t.Error("other rules, the same id")
	}
}

func TestRestartRulesRefused(t *testing.T) {
	for text, want := range map[string]string{
		"run = [\"x\"]":                                     "moult.toml:2: restart: it needs path",
		"path = \"/bin/x\"":                                 "moult.toml:3: path: \"/bin/x\": a path of a release is relative",
		"path = \"bin/../x\"":                               "moult.toml:3: path:",
		"unit = \"x\"\nleave = true\nrun = [\"x\"]":         "moult.toml:4: leave:",
		"unit = \"x\"\nreload = true\nrun = [\"x\"]":        "moult.toml:4: reload:",
		"unit = \"x\"\ntimeout = \"soon\"":                  "moult.toml:4: timeout:",
		"unit = \"x\"\nrun = [\"\"]":                        "moult.toml:4: run:",
		"unit = \"x\"\nrun = \"sh -c x\"":                   "moult.toml:4:",
		"unit = \"x\"\nexec = [\"x\"]":                      "moult.toml:4:",
		"unit = \"" + strings.Repeat("x", maxRule+1) + "\"": "moult.toml:3: unit:",
	} {
		_, err := parseConfig("moult.toml", []byte("\n[[restart]]\n"+text+"\n"))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"name = \"x\"":                                  "f.toml:1: \"name\" is not known",
		"[[restart]]\npath = \"bin/x\"":                 "f.toml:2: path: \"bin/x\": it begins with /",
		"[[restart]]\nunit = \"x\"\nrun = [\"reboot\"]": "f.toml:3: run: \"reboot\": the program's path is absolute",
	} {
		_, err := ParseRestart("f.toml", []byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%.60q: got %v, want %q", text, err, want)
		}
	}
	for _, text := range []string{`[]`, `null`, `[{}]`, `[{"unit": "x"}]`, `[{"Unit":"x"}]`, `[{"unit":"x"}] `, `[{"unit":"x","no":1}]`} {
		if m, err := Parse([]byte("moult-manifest 1\nrestart " + text + "\nentries 0\n")); err == nil {
			t.Errorf("%s is read as %+v, want an error", text, m.Restart)
		}
	}
}

func TestRestartMatches(t *testing.T) {
	for _, test := range []struct {
		rule RestartRule
		want bool
	}{
		{RestartRule{}, false},
		{RestartRule{Path: "/opt/*/bin/server"}, true},
		{RestartRule{Path: "**/server"}, true},
		{RestartRule{Path: "/opt/*"}, false},
		{RestartRule{Unit: "app@*.service"}, true},
		{RestartRule{Unit: "app@?.service"}, true},
		{RestartRule{Unit: "app"}, false},
		{RestartRule{Command: "*--port 80*"}, true},
		{RestartRule{Command: "*--port 81*"}, false},
		{RestartRule{Command: "server*", Unit: "app@1.service", Path: "/opt/app/lib/*"}, true},
		{RestartRule{Command: "server*", Unit: "app@2.service"}, false},
	} {
		got := test.rule.Matches([]string{"/opt/app/bin/server", "/opt/app/lib/x.so"}, "app@1.service", []string{"server", "--port", "80"})
		if got != test.want {
			t.Errorf("%+v: %v, want %v", test.rule, got, test.want)
		}
	}
	// No pattern takes long.
	if Wild(strings.Repeat("*a", 2000)+"b", strings.Repeat("a", 4000)) {
		t.Error("a b was found where there is none")
	}
}
