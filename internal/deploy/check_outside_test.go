package deploy

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// A program that is no part of any release, but lies beside one: in a directory
// before anything is delivered there, and in what an owned target leaves alone.
func TestCheckBeside(t *testing.T) {
	good, bad := linked(t, "one", "two", "three"), linked(t, "one")
	must(t, os.Rename(good+"/bin", good+"/own"))
	must(t, os.RemoveAll(bad+"/bin"))
	o := CheckOptions{Outside: true, StateDir: t.TempDir()} // the index of this host is made once
	for name, deliver := range map[string]Layout{"a directory": "", "shared": Shared, "owned": Owned} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "app")
			must(t, os.MkdirAll(dir+"/other", 0o755))
			must(t, os.WriteFile(dir+"/other/old", linkedApp, 0o755))
			target := open(t, dir)
			if deliver == "" {
				must(t, os.CopyFS(dir+"/lib", os.DirFS(good+"/lib")))
			} else {
				applyTo(t, target, good, ApplyOptions{Layout: deliver, Adopt: deliver == Owned, Name: "app"})
			}
			l, err := target.Lay(context.Background(), openRelease(t, bad), ApplyOptions{Name: "app"}, o)
			must(t, err)
			r, err := l.Judge(context.Background(), o)
			must(t, err)
			if r.Broken() != 1 || !r.Findings[0].Outside || r.Findings[0].Path != "other/old" {
				t.Errorf("got %+v, want other/old broken, which is no part of the release", r.Findings)
			}
		})
	}
}

// What a library lacks by itself is told once: with the programs in which it is
// known to be lacking.
func TestCheckBesideOnce(t *testing.T) {
	dir, next := t.TempDir(), t.TempDir()
	cc(t, dir, "libx.so.1", "int f(void) { return 1; }", "-shared", "-fPIC", "-Wl,-soname,libx.so.1")
	cc(t, dir, "app", "int f(void); int main(void) { return f(); }", dir+"/libx.so.1", "-Wl,-rpath,$ORIGIN")
	cc(t, next, "libx.so.1", "int gone(void); int f(void) { return gone(); }", "-shared", "-fPIC", "-Wl,-soname,libx.so.1")
	o := CheckOptions{Outside: true, StateDir: t.TempDir()}
	l, err := LayFiles([]string{next + "/libx.so.1"}, []string{dir + "/libx.so.1"}, o)
	must(t, err)
	r, err := l.Judge(t.Context(), o)
	must(t, err)
	if len(r.Findings) != 1 || r.Broken() != 1 || len(r.Findings[0].Programs) != 1 || r.Findings[0].Outside {
		t.Errorf("got %+v, want the symbol alone, broken in the program", r.Findings)
	}
}
