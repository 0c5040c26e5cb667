package deploy

import (
	"path/filepath"
	"testing"
)

// A plugin that no file names is judged in its host if a program of the target
// runs that has loaded it, whichever of the two changes.
func TestLinksLearned(t *testing.T) {
	const host = "#include <dlfcn.h>\n#include <unistd.h>\nint host_here(void) { return 1; }\n" +
		"int main(int n, char **v) { char c; if (!dlopen(v[1], RTLD_NOW)) return 1; write(1, \"x\", 1); read(0, &c, 1); return 0; }"
	const plugin = "int host_here(void); int mod(void) { return host_here(); }"
	build := func(host, plugin string) string {
		dir := t.TempDir()
		cc(t, dir, "bin/host", host, "-Wl,--export-dynamic", "-ldl")
		cc(t, dir, "lib/mod.plugin", plugin, "-shared", "-fPIC")
		return dir
	}
	old := build(host, plugin)
	newHost := build("int main(void) { return 0; }", plugin)
	newPlugin := build(host, "int host_there(void); int mod(void) { return host_there(); }")
	fine := build(host+"int more(void) { return 2; }", plugin)
	for _, layout := range []Layout{Owned, Shared} {
		t.Run(string(layout), func(t *testing.T) {
			dir, err := filepath.EvalSymlinks(t.TempDir())
			must(t, err)
			target := open(t, filepath.Join(dir, "app"))
			o := ApplyOptions{Layout: layout}
			deliver := func(dir string) error {
				_, err := deliverDir(t, target, dir, false, o)
				return err
			}
			must(t, deliver(old))
			startAndWait(t, target.path+"/bin/host", target.path+"/lib/mod.plugin")
			wantRefused(t, deliver(newHost), "lib/mod.plugin", "host_here", "in bin/host")
			wantRefused(t, deliver(newPlugin), "lib/mod.plugin", "host_there", "in bin/host")
			must(t, deliver(fine))
			if layout == Owned {
				wantRefused(t, deliver(newHost), "host_here") // of an older generation
			}
			o.Links = LinksWarn
			must(t, deliver(newHost))
		})
	}
}
