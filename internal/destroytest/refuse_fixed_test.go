package destroytest

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/disk/disktest"
	"moult.example/internal/testneed"
)

// TestImmutableBooks makes each of moult's own files in a target immutable in
// turn. A job that would stumble over it half-way is refused; none may change
// what people see and then have to be finished by somebody who knows chattr(1).
func TestImmutableBooks(t *testing.T) {
	testneed.Root(t)
	chattr := testneed.Tool(t, "chattr")
	forLayouts(t, func(t *testing.T, layout string) {
		dir := disktest.TempDir(t) // a memory file system, if it knows attributes
		if exec.Command(chattr, "+i", dir).Run() != nil {
			dir = attributedDir(t)
		}
		exec.Command(chattr, "-i", dir).Run()
		h := newHostIn(t, dir)
		release1.write(t, h.path("r1"))
		release2.write(t, h.path("r2"))
		must(t, os.Mkdir(h.path("app"), 0o755))
		h.Cleanup(func() { exec.Command(chattr, "-R", "-i", h.path("app")).Run() }) // so that it can be removed
		h.ok("apply", "--packaged", "--layout", layout, "r1", "app")
		h.ok("apply", "--packaged", "r2", "app")
		run(t, "cp", "-a", h.path("app"), h.path("as it was"))
		commands := []string{"rollback app 1", "forget --force app"} // apply ends as rollback does
		was := view(t, h.path("app"))
		refused := map[string]int{}
		for _, name := range ownFiles(t, h.path("app")) {
			for _, command := range commands {
				run(t, chattr, "+i", h.path(name))
				got := h.moult(strings.Fields(command)...)
				exec.Command(chattr, "-i", h.path(name)).Run() // it may be gone, with an old generation
				switch {
				case got.status == 1:
					refused[command]++
					h.tells(got, "chattr")
					if diff := was.Diff(view(t, h.path("app"))); diff != "" {
						t.Errorf("%s is immutable: %v\nhas changed something:\n%s", name, got, diff)
					}
				case got.status != 0:
					t.Errorf("%s is immutable: %v", name, got)
				}
				if got.status == 1 || !strings.HasPrefix(command, "forget") {
					must(t, leftovers(h.path("app")))
				}
				if got.status != 1 {
					if !strings.HasPrefix(command, "forget") {
						h.ok("verify", "app")
					}
					must(t, os.RemoveAll(h.path("app")))
					run(t, "cp", "-a", h.path("as it was"), h.path("app"))
				}
			}
		}
		for _, command := range commands {
			if refused[command] == 0 {
				t.Errorf("%s: never refused", command)
			}
		}
	})
}

// ownFiles are the paths of what can be made immutable in .moult, but for what
// people see.
func ownFiles(t testing.TB, target string) (names []string) {
	t.Helper()
	must(t, filepath.WalkDir(filepath.Join(target, ".moult"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		rel, err := filepath.Rel(filepath.Dir(target), path)
		if base := d.Name(); base != "info.json" && base != "links" && base != "manifest" { // nothing is done to them that is not done to committed
			names = append(names, rel)
		}
		if d.IsDir() && filepath.Base(filepath.Dir(filepath.Dir(path))) == "generations" && d.Name() != ".moult" {
			return fs.SkipDir // one of what a directory of a release holds stands for all
		}
		return err
	}))
	return names
}
