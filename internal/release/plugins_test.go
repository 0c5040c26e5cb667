package release

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// Rules of plugins go by way of moult.toml and the manifest, and are refused
// where they make no sense.
func TestPlugins(t *testing.T) {
	text := "[[plugin]]\npath = \"lib/app/*.so\"\nhosts = [\"bin/app\", \"bin/tool*\"]\n"
	dir := t.TempDir()
	for _, name := range []string{"bin/app", "bin/tool1", "bin/other", "lib/app/a.so", "lib/app/deep/b.so", "lib/c.so"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "moult.toml")
	open := func(text string) (*Release, error) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return Open(t.Context(), dir, Options{Config: file})
	}
	r, err := open(text)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Complete(t.Context()); err != nil {
		t.Fatal(err)
	}
	m, err := Parse(r.Manifest.Encode())
	if err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"lib/app/a.so": {"bin/app", "bin/tool1"}}
	if got := m.PluginHosts(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for wrong, why := range map[string]string{
		strings.Replace(text, "lib/app", "/lib/app", 1): "moult.toml:2: path",
		strings.Replace(text, "bin/app", "bin/[", 1):    "moult.toml:3: hosts",
		"[[plugin]]\npath = \"x\"\n":                    "hosts",
	} {
		if _, err := open(wrong); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: got %v, want %q in an error", wrong, err, why)
		}
	}
}
