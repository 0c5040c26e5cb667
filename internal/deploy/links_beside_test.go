package deploy

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// A product in a shared target may need a library that another one brings.
func TestLinksNeighbours(t *testing.T) {
	app := linked(t, "one", "two", "three")
	lib := map[string]string{}
	for version, functions := range map[string][]string{"good": {"one", "two", "three"}, "fine": {"one", "two"}, "bad": {"one"}} {
		lib[version] = t.TempDir()
		library(t, lib[version], "lib/libx.so.1", functions...)
		must(t, os.WriteFile(lib[version]+"/moult.toml", []byte("name = \"lib\"\n"), 0o644))
	}
	must(t, os.RemoveAll(app+"/lib"))
	must(t, os.WriteFile(app+"/moult.toml", []byte("name = \"app\"\n"), 0o644))

	target := open(t, filepath.Join(t.TempDir(), "shared"))
	put := func(dir string) (Result, error) {
		return target.Apply(context.Background(), openRelease(t, dir), ApplyOptions{Layout: Shared})
	}
	for _, dir := range []string{lib["good"], app, lib["fine"]} {
		if res, err := put(dir); err != nil {
			t.Fatalf("%+v: %v", res, err)
		}
	}
	_, err := put(lib["bad"])
	wantRefused(t, err, "bin/app", "two", "nothing has changed")
}
