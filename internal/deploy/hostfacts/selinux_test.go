package hostfacts

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestSELinuxState(t *testing.T) {
	for text, want := range map[string]SELinux{
		"":  {},
		"0": {Enabled: true},
		"1": {Enabled: true, Enforcing: true},
	} {
		files := map[string]string{"sys/fs/selinux/enforce": text}
		if text == "" {
			files = nil
		}
		if got, err := tree(t, files).SELinuxState(); err != nil || got != want {
			t.Errorf("enforce %q: got %+v, %v, want %+v", text, got, err, want)
		}
	}
	// Of this host: the mount decides, whatever it is.
	mounts, err := Mounts()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(mounts, func(m Mount) bool { return m.Type == "selinuxfs" })
	want := i >= 0 && !mounts[i].ReadOnly
	if got, err := (Options{}).SELinuxState(); err != nil || got.Enabled != want {
		t.Errorf("this host: got %+v, %v, want enabled %v", got, err, want)
	}
}

func TestLabels(t *testing.T) {
	o := tree(t, map[string]string{"sys/fs/selinux/enforce": "1"})
	var calls []string
	o.Run = func(_ context.Context, name string, args ...string) (stdout, stderr []byte, err error) {
		calls = append(calls, fmt.Sprintf("%s %q", name, args))
		return []byte("system_u:object_r:bin_t:s0\n<<none>>\nsystem_u:object_r:lib_t:s0\n"), nil, nil
	}
	got, err := Labels(t.Context(), o, LabelFile, []string{"/opt/app/bin/x", "/tmp/a\nb", "/opt/app/lib/y"})
	want := map[string]string{"/opt/app/bin/x": "system_u:object_r:bin_t:s0", "/opt/app/lib/y": "system_u:object_r:lib_t:s0"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if want := []string{`matchpathcon ["-n" "-m" "file" "--" "/opt/app/bin/x" "/tmp/a\nb" "/opt/app/lib/y"]`}; !slices.Equal(calls, want) {
		t.Errorf("calls %q, want %q", calls, want)
	}
	if _, err := Labels(t.Context(), o, LabelDir, []string{"/a", "/b"}); err == nil {
		t.Error("3 answers for 2 paths: got no error")
	}
	o.Run = func(context.Context, string, ...string) (stdout, stderr []byte, err error) {
		return nil, nil, &exec.Error{Name: "matchpathcon", Err: exec.ErrNotFound}
	}
	if _, err := Labels(t.Context(), o, LabelFile, []string{"/a"}); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("no matchpathcon: got %v, want %v", err, exec.ErrNotFound)
	}
	o = tree(t, nil)
	o.Run = func(context.Context, string, ...string) (stdout, stderr []byte, err error) {
		t.Error("SELinux is off, but matchpathcon was called")
		return nil, nil, nil
	}
	if got, err := Labels(t.Context(), o, LabelFile, []string{"/a"}); err != nil || len(got) > 0 {
		t.Errorf("SELinux off: got %v, %v, want nothing", got, err)
	}
}

// Programs are really run, in English, and what they say is in the error.
func TestRun(t *testing.T) {
	out, messages, err := Options{}.run(t.Context(), "sh", "-c", "echo out $LC_ALL; echo wrong >&2; echo more >&2; exit 3")
	if string(out) != "out C\n" || string(messages) != "wrong\nmore\n" {
		t.Errorf("got %q and %q, want out C and wrong, more", out, messages)
	}
	if err := said("sh", messages, err); err == nil || err.Error() != "sh: exit status 3: wrong" {
		t.Errorf("got %v, want sh: exit status 3: wrong", err)
	}
	if _, _, err := (Options{}).run(t.Context(), "moult-no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("got %v, want %v", err, exec.ErrNotFound)
	}
}

const manProfile = `# Last modified for /opt/app/bin/old
#include <tunables/global>

/opt/app/bin/server flags=(attach_disconnected) {
  #include <abstractions/base>
  /opt/app/lib/{,**} rm,
  owner "/opt/app/var/with blank" rw,
  /opt/application/x r,
  /srv/opt/app/x r,
  deny @{HOME}/opt/app/y w,
  /opt/app* r,
  /srv/opt/app/x -> /opt/app/y,
}
`

func TestAppArmorProfiles(t *testing.T) {
	files := map[string]string{
		"sys/module/apparmor/parameters/enabled":   "Y\n",
		"sys/kernel/security/apparmor/profiles":    "/usr/bin/man (enforce)\n/opt/app/bin/server (complain)\nfirefox (unconfined)\n",
		"etc/apparmor.d/opt.app.bin.server":        manProfile,
		"etc/apparmor.d/local/opt.app.bin.server":  "  /opt/app r,\n",
		"etc/apparmor.d/usr.bin.man":               "/usr/bin/man {\n}\n",
		"etc/apparmor.d/disable/opt.app.bin.other": "->../nowhere",
	}
	o := tree(t, files)
	got, err := AppArmorProfiles(o, "/opt/app/")
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, p := range got {
		lines = append(lines, fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text))
	}
	want := []string{
		"/sys/kernel/security/apparmor/profiles:2: /opt/app/bin/server (complain)",
		"/etc/apparmor.d/local/opt.app.bin.server:1: /opt/app r,",
		"/etc/apparmor.d/opt.app.bin.server:4: /opt/app/bin/server flags=(attach_disconnected) {",
		"/etc/apparmor.d/opt.app.bin.server:6: /opt/app/lib/{,**} rm,",
		`/etc/apparmor.d/opt.app.bin.server:7: owner "/opt/app/var/with blank" rw,`,
		"/etc/apparmor.d/opt.app.bin.server:11: /opt/app* r,",
		"/etc/apparmor.d/opt.app.bin.server:12: /srv/opt/app/x -> /opt/app/y,",
	}
	if !slices.Equal(lines, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}

	files["sys/module/apparmor/parameters/enabled"] = "N\n"
	if got, err := AppArmorProfiles(tree(t, files), "/opt/app"); err != nil || len(got) > 0 {
		t.Errorf("off: got %v, %v, want none", got, err)
	}
	if got, err := AppArmorProfiles(tree(t, nil), "/opt/app"); err != nil || len(got) > 0 {
		t.Errorf("not built in: got %v, %v, want none", got, err)
	}
	if _, err := os.Stat(loadedProfiles); err == nil {
		if _, err := AppArmorProfiles(Options{}, "/opt/app"); err != nil {
			t.Errorf("this host: %v", err)
		}
	}
}
