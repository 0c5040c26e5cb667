package deploy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestProductNames: a product of a shared target has a directory among the books,
// and takes the name of none of them, nor one that recovery takes away.
func TestProductNames(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "local")
	must(t, os.Mkdir(dir, 0o755))
	target := open(t, dir, func(o *Options) { o.Disk = quiet })
	source := v1.write(t, t.TempDir())
	applyTo(t, target, source, ApplyOptions{Layout: Shared, Name: "first"})
	books, err := os.ReadDir(dir + "/.moult")
	must(t, err)
	names := []string{"layout.new", "cache.source.new", "journal", "live", "generations", "objects"}
	for _, b := range books {
		if b.Name() != "first" {
			names = append(names, b.Name())
		}
	}
	for _, name := range names {
		var refused *RefusedError
		_, err := target.Apply(t.Context(), openRelease(t, source), ApplyOptions{Name: name})
		if !errors.As(err, &refused) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v, want a refusal that names it", name, err)
		}
	}
}
