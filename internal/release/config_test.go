package release

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/testneed"
)

const fullConfig = `# what the tree cannot say
name = "tool"
version = "2.1"
times = true
exclude = ["**/*.debug", "share/doc"]
owner = "root"
group = "adm"

[[file]]
match = "bin/*"
mode = "0750"

[[file]]
match = "bin/tool"
group = "tool"
caps = "cap_net_bind_service=ep"

[[file]]
match = "etc/**"
owner = "svc"
keep = true

[hooks]
before = "true"
after = """
echo one
[not a table]
"""
timeout = "90s"
`

func configTree(t testing.TB) string {
	root := t.TempDir()
	for _, name := range []string{"bin/tool", "bin/other", "bin/tool.debug", "etc/tool.conf", "etc/d/x", "share/doc/README", "share/man"} {
		write(t, root, name, name, 0o755)
	}
	try(t, os.Symlink("tool", filepath.Join(root, "bin/link")))
	return root
}

func TestConfig(t *testing.T) {
	root := configTree(t)
	write(t, root, "moult.toml", fullConfig, 0o666)
	r := open(t, root, Options{})
	m := r.Manifest
	if m.Name != "tool" || m.Version != "2.1" || !m.Times || m.Hooks != (Hooks{"true", "echo one\n[not a table]\n", 90e9}) {
		t.Errorf("got %+v", m)
	}
	if got, want := paths(r), "bin bin/link bin/other bin/tool etc etc/d etc/d/x etc/tool.conf share share/man"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for path, want := range map[string]string{
		"bin":           "root:adm 0755 false",
		"bin/link":      "root:adm 0000 false",
		"bin/other":     "root:adm 0750 false",
		"bin/tool":      "root:tool 0750 false security.capability",
		"etc":           "root:adm 0755 false",
		"etc/d":         "svc:adm 0755 false",
		"etc/d/x":       "svc:adm 0755 true",
		"etc/tool.conf": "svc:adm 0755 true",
	} {
		e := entry(t, r, path)
		got := fmt.Sprintf("%s:%s %04o %v", e.Owner, e.Group, e.Mode, e.Keep)
		for name := range e.Xattrs {
			got += " " + name
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", path, got, want)
		}
	}
	if len(r.Notes) != 0 || r.Config == nil || r.Config.Path != filepath.Join(root, "moult.toml") {
		t.Errorf("got notes %q and config %+v", r.Notes, r.Config)
	}
	r = open(t, root, Options{Name: "other", Version: "3"})
	if r.Manifest.Name != "other" || r.Manifest.Version != "3" {
		t.Errorf("got %s %s, want what the options say", r.Manifest.Name, r.Manifest.Version)
	}
}

func TestConfigNotes(t *testing.T) {
	root := configTree(t)
	config := write(t, t.TempDir(), "my.toml", "[[file]]\nmatch = 'bin/tool'\nkeep = true\n[[file]]\nmatch = 'bin/tol'\nmode = '0700'\n[[file]]\nmatch = 'bin'\ncaps = 'cap_kill=p'", 0o600)
	r := open(t, root, Options{Config: config})
	want := []string{config + `:5: "bin/tol" matches nothing`, config + `:8: "bin" matches nothing`}
	if fmt.Sprint(r.Notes) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", r.Notes, want)
	}
}

// TestConfigPlaces: --config, then the release's own, then the one beside it.
func TestConfigPlaces(t *testing.T) {
	parent := t.TempDir()
	root := filepath.Join(parent, "dist")
	write(t, root, "bin/tool", "x", 0o755)
	beside := write(t, parent, "moult.toml", "name = 'beside'", 0o644)
	try(t, os.Chmod(parent, 0o755))
	name := func(opt Options, want string, notes int) {
		t.Helper()
		r := open(t, root, opt)
		if r.Manifest.Name != want || len(r.Notes) != notes {
			t.Errorf("got name %q and notes %q, want %q and %d", r.Manifest.Name, r.Notes, want, notes)
		}
		if r.Manifest.Find("moult.toml") != nil {
			t.Error("moult.toml is shipped")
		}
	}
	name(Options{}, "beside", 0)
	for _, mode := range []fs.FileMode{0o664, 0o646, 0o666} {
		try(t, os.Chmod(beside, mode))
		name(Options{}, "", 1)
	}
	try(t, os.Chmod(beside, 0o600))
	for _, mode := range []fs.FileMode{0o775, 0o757, 0o777 | fs.ModeSticky} {
		try(t, os.Chmod(parent, mode))
		name(Options{}, "", 1)
	}
	try(t, os.Chmod(parent, 0o755))
	if os.Geteuid() == 0 {
		try(t, os.Chown(beside, 1234, 0))
		name(Options{}, "", 1)
		try(t, os.Chown(beside, 0, 0))
		try(t, os.Chown(parent, 1234, 0))
		name(Options{}, "", 1)
		try(t, os.Chown(parent, 0, 0))
	}
	name(Options{}, "beside", 0)

	// One that others can write is not even read.
	try(t, os.WriteFile(beside, []byte("broken ="), 0o600))
	if _, err := Open(context.Background(), root, Options{}); err == nil || !strings.Contains(err.Error(), beside+":1: ") {
		t.Errorf("got %v, want an error in %s", err, beside)
	}
	try(t, os.Chmod(beside, 0o666))
	name(Options{}, "", 1)

	write(t, root, "moult.toml", "name = 'own'", 0o666)
	name(Options{}, "own", 0)
	name(Options{Config: write(t, t.TempDir(), "c", "name = 'config'", 0o666)}, "config", 0)

	if _, err := Open(context.Background(), root, Options{Config: "/no/such"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
	try(t, os.Remove(filepath.Join(root, "moult.toml")))
	try(t, os.Symlink("/etc/passwd", filepath.Join(root, "moult.toml")))
	if _, err := Open(context.Background(), root, Options{}); !errors.Is(err, unix.ELOOP) {
		t.Errorf("got %v for a link, want %v", err, unix.ELOOP)
	}
}

func TestConfigRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"name = 'tool\n", "m.toml:1: "},
		{"\n\nname = 5\n", "m.toml:3: "},
		{"# x\nnmae = 'tool'\n", `m.toml:2: "nmae" is not known`},
		{"[plugins]\nx = 1\n", `m.toml:1: "plugins" is not known`},
		{"[hooks]\nbefore = 'x'\n\nbefor = 'x'", `m.toml:4: "hooks.befor" is not known`},
		{"[[file]]\nmatch = 'a'\n[[file]]\nmatch = 'b'\nmodes = '0755'\n", `m.toml:5: "file.modes" is not known`},
		{"exclude = [\n 'a', # [\n 'b',\n]\nextra = 1\n", `m.toml:5: "extra" is not known`},
		{"version = '''\n[a]\nb = \n'''\nextra = 1\n", `m.toml:5: "extra" is not known`},
		{"hooks = { before = 'x', oops = 1 }\n", `m.toml:1: "hooks.oops" is not known`},
		{"name = '../etc'\n", "m.toml:1: name: "},
		{"\nversion = \"a\\u001b\"\n", "m.toml:2: version: "},
		{"\ngroup = 'a:b'\n", "m.toml:2: group: "},
		{"name = 'a'\nexclude = ['a', '/b']\n", `m.toml:2: exclude: "/b": `},
		{"exclude = ['a/../b']\n", "m.toml:1: exclude: "},
		{"exclude = ['[a']\n", "m.toml:1: exclude: "},
		{"exclude = ['a**']\n", "m.toml:1: exclude: "},
		{"[[file]]\nmode = '0755'\n", `m.toml:1: match: "": `},
		{"[[file]]\nmatch = 'a'\n[[file]]\nmatch = 'b'\nmode = '0855'\n", `m.toml:5: mode: "0855" is not an octal mode`},
		{"[[file]]\nmatch = 'a'\nmode = '17777'\n", `m.toml:3: mode: `},
		{"[[file]]\nmatch = 'a'\nmode = 755\n", `m.toml:3: `},
		{"[[file]]\nmatch = 'a'\nowner = 'a\\nb'\n\n[[file]]\nmatch = 'a'\nowner = \"a\\nb\"\n", `m.toml:7: owner: `},
		{"[[file]]\nmatch = 'a'\ncaps = 'cap_everything=ep'\n", `m.toml:3: caps: "cap_everything" is not a capability`},
		{"[hooks]\ntimeout = '5 minutes'\n", `m.toml:2: timeout: `},
		{"[hooks]\ntimeout = '-5s'\n", `m.toml:2: timeout: `},
	} {
		cfg, err := parseConfig("m.toml", []byte(c.text))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("got %+v %v, want an error %q, for\n%s", cfg, err, c.want, c.text)
		}
	}
}

// TestConfigSplitsLinks: two names of one file cannot get different owners.
func TestConfigSplitsLinks(t *testing.T) {
	root := nastyTree(t)
	write(t, root, "moult.toml", "[[file]]\nmatch = 'bin/tool'\nowner = 'x'\n", 0o600)
	if _, err := Open(context.Background(), root, Options{}); err == nil || !strings.Contains(err.Error(), `"bin/tool": it is a hard link of "also", but differs`) {
		t.Errorf("got %v, want an error that names both", err)
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, yes, no string
	}{
		{"bin/*", "bin/a bin/.b", "bin bin/a/b sbin/a a/bin/b"},
		{"a", "a", "b/a a/b"},
		{"**", "a a/b a/b/c", ""},
		{"**/a", "a b/a c/b/a", "a/b ba b/ba"},
		{"a/**", "a/b a/b/c", "a ab b/a/c"},
		{"a/**/b", "a/b a/x/b a/x/y/b a/b/b", "a b a/bc x/a/b a/b/c"},
		{"**/a/**/b", "a/b x/a/b a/a/b x/a/y/a/z/b", "a b/a a/b/c"},
		{"**/*.debug", ".debug a.debug x/y.debug", "a.debugs x.debug/y"},
		{"a/?/[x-z]", "a/b/x a/\xff/z", "a/b/w a/bb/x"},
		{"**/x/y/*", "x/y/z x/x/y/z x/y/x/y/z", "x/y y/z"},
	} {
		try(t, checkGlob(c.pattern))
		for _, name := range strings.Fields(c.yes) {
			if !glob(c.pattern, name) {
				t.Errorf("%s does not match %q", c.pattern, name)
			}
		}
		for _, name := range strings.Fields(c.no) {
			if glob(c.pattern, name) {
				t.Errorf("%s matches %q", c.pattern, name)
			}
		}
	}
}

// TestCapsAgainstSetcap compares with what setcap(8) writes, or refuses.
func TestCapsAgainstSetcap(t *testing.T) {
	testneed.Root(t)
	setcap := testneed.Tool(t, "setcap")
	file := write(t, t.TempDir(), "tool", "", 0o755)
	texts := []string{
		"cap_net_bind_service=ep", "cap_net_bind_service+ep", "cap_chown,cap_kill=eip", "cap_net_raw=p", "cap_net_raw=i",
		"cap_net_raw=ei", "CAP_NET_RAW=pe", "cap_net_raw,cap_net_admin=ep cap_net_admin-p", "cap_net_raw=eip cap_net_raw-i",
		"all=ep", "=ep", "all=p cap_kill-p", "cap_kill+p cap_chown+p", "cap_kill=p+i", "cap_kill=ep-e", "cap_kill=", "=", "cap_bpf,cap_perfmon,cap_checkpoint_restore=ep",
		"cap_kill=e", "cap_kill=ep cap_chown=p", "cap_kill=ep cap_chown=i", "cap_nothing=ep", "cap_kill", "cap_kill=x", "cap_kill+", "+ep", "kill=ep", "cap_kill,=ep", ",=ep", "cap_kill==p", "cap_kill=p=i", "cap_kill = p",
	}
	for i := range capNames {
		texts = append(texts, "cap_"+capNames[i]+"=ep")
	}
	for _, text := range texts {
		unix.Removexattr(file, xattrCaps)
		out, cmdErr := exec.Command(setcap, text, file).CombinedOutput()
		buf := make([]byte, 100)
		n, _ := unix.Getxattr(file, xattrCaps, buf)
		want := string(buf[:max(n, 0)])
		got, err := parseCaps(text)
		if (err == nil) != (cmdErr == nil) || err == nil && got != want {
			t.Errorf("%q: got %x %v, want %x %v %s", text, got, err, want, cmdErr, out)
		}
		if err == nil && checkCapsValue(got) != nil {
			t.Errorf("%q: %v", text, checkCapsValue(got))
		}
	}
	if got, err := parseCaps(" "); got != "" || err != nil {
		t.Errorf("got %q %v for no capabilities", got, err)
	}
}
