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
