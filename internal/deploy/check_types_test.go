package deploy

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

// abidiff's verdict is one of those that count.
func TestABIDiff(t *testing.T) {
	testneed.Tool(t, "abidiff")
	dir := t.TempDir()
	for name, source := range map[string]string{
		"old": "int f(int a) { return a; }", "same": "int f(int a) { return a + 1; }", "new": "int f(long a, int b) { return a + b; }", "gone": "int g(void) { return 1; }",
	} {
		cc(t, dir, name+"/libx.so.1", source, "-g", "-shared", "-fPIC", "-Wl,-soname,libx.so.1")
	}
	must(t, os.WriteFile(filepath.Join(dir, "text"), []byte("no library"), 0o644))
	for name, want := range map[string]string{"same/libx.so.1": "compatible", "new/libx.so.1": "", "gone/libx.so.1": "incompatible", "text": "failed"} {
		l, err := LayFiles([]string{dir + "/" + name}, []string{dir + "/old/libx.so.1"}, CheckOptions{})
		must(t, err)
		if name == "text" {
			l.pairs = []ABIPair{{Path: "text", Old: dir + "/old/libx.so.1", New: dir + "/text"}}
		}
		r := &LinkReport{}
		must(t, l.compareTypes(context.Background(), CheckOptions{ABIDiff: true}, nil, r))
		got := r.Types[0].ABIDiff
		if want == "" && (got == "compatible" || strings.HasPrefix(got, "failed")) || !strings.HasPrefix(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
		if (got == "incompatible") != (r.Broken() == 1) {
			t.Errorf("%s: got %d broken for %q", name, r.Broken(), got)
		}
	}
}

// A program of this host that uses a library is judged with the new version of
// it laid over the old one, and plugins that a process has loaded in their host.
func TestLearn(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	cc(t, dir, "bin/host", "#include <dlfcn.h>\n#include <unistd.h>\nint host_here(void) { return 1; }\n"+
		"int main(int n, char **v) { char c; if (!dlopen(v[1], RTLD_NOW)) return 1; write(1, \"x\", 1); read(0, &c, 1); return 0; }", "-Wl,--export-dynamic", "-ldl")
	cc(t, dir, "lib/mod.plugin", "int host_here(void); int mod(void) { return host_here(); }", "-shared", "-fPIC")
	startAndWait(t, dir+"/bin/host", dir+"/lib/mod.plugin")
	// The next host no longer has what the plugin wants.
	next := filepath.Join(t.TempDir(), "host")
	cc(t, filepath.Dir(next), "host", "int main(void) { return 0; }", "-Wl,--export-dynamic")
	for _, learn := range []bool{true, false} {
		o := CheckOptions{Learn: learn}
		l, err := LayFiles([]string{next}, []string{dir + "/bin/host"}, o)
		must(t, err)
		r, err := l.Judge(context.Background(), o)
		must(t, err)
		if learn != (r.Broken() == 1) {
			t.Errorf("learning is %v: got %+v, want the plugin broken only then", learn, r.Findings)
		}
		if learn && (len(r.Plugins) != 1 || !r.Plugins[0].Learned || string(r.Plugins[0].Path) != dir+"/lib/mod.plugin") {
			t.Errorf("got plugins %+v, want the one that the process has loaded", r.Plugins)
		}
	}
}

// startAndWait starts a program and waits for the byte that it prints.
func startAndWait(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}
