package destroytest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/disk/disktest"
)

// What moult install is killed at: one file over another, several at once with
// their backups, into directories that it has to make.
var installs = []struct {
	name string
	do   []string
}{
	{"one file", []string{"install", "-m", "755", "tool", "dst/tool"}},
	{"one new file", []string{"install", "tool", "dst/fresh"}},
	{"several with backups", []string{"install", "-b", "-m", "644", "-t", "dst", "tool", "conf", "fresh"}},
	{"leading directories", []string{"install", "-D", "-t", "dst/a/b", "tool", "conf"}},
	{"directories", []string{"install", "-d", "-m", "750", "dst/x/y", "dst/z"}},
	{"keep", []string{"install", "--keep", "tool", "dst/conf"}},
}

var installFiles = files{
	"tool": "0755:new tool", "conf": "new conf", "fresh": "fresh", "dst/tool": "0755:old tool", "dst/conf": "0600:old conf",
}

// TestKillInstall kills moult install before each operation. Every name must be
// what it was or what it is to be, whole; what the kill has left is nobody's
// name, and the next run takes it away.
func TestKillInstall(t *testing.T) {
	for _, i := range installs {
		t.Run(i.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			installFiles.write(t, h.dir)
			start := capture(t, h.path("dst"))
			again := func() {
				must(t, os.RemoveAll(h.path("dst")))
				must(t, os.Mkdir(h.path("dst"), 0o755))
				must(t, start.Materialize(h.path("dst")))
			}
			h.ok(i.do...)
			end := capture(t, h.path("dst"))
			bad := faults{}
			n := 1
			for ; ; n++ {
				again()
				got := h.finish(h.faulty([]string{fmt.Sprintf("MOULT_FAULT=kill:%d", n)}, i.do...))
				if !got.killed {
					if got.status != 0 || n < 3 {
						t.Fatalf("after %d kills: %v", n-1, got)
					}
					break
				}
				bad.add(h, n, h.afterInstallKill(start, end, i.do))
			}
			bad.report(t, "killed before operation")
			t.Logf("%d operations", n-1)
		})
	}
}

func (h *host) afterInstallKill(start, end *disktest.Tree, do []string) error {
	h.Helper()
	left := capture(h, h.path("dst"))
	if err := eachIsOneOf(withoutInstallTemps(left), start, end); err != nil {
		return err
	}
	if got := h.moult(do...); got.status != 0 {
		return fmt.Errorf("the same again: %v", got)
	}
	after := capture(h, h.path("dst"))
	var err error
	if diff := end.Diff(after); diff != "" && !onlyBackupsDiffer(diff) {
		err = fmt.Errorf("after the same again:\n%s", diff)
	}
	for name := range after.Entries {
		if isInstallTemp(name) {
			err = errors.Join(err, fmt.Errorf("left behind: %s", name))
		}
	}
	return err
}

// onlyBackupsDiffer: a second run backs up what the first one has installed, as
// install(1) does.
func onlyBackupsDiffer(diff string) bool {
	for line := range strings.Lines(diff) {
		if name := strings.Fields(line)[1]; !strings.HasSuffix(name, "~") {
			return false
		}
	}
	return true
}

func isInstallTemp(name string) bool {
	return strings.HasPrefix(filepath.Base(name), ".moult-install.")
}

func withoutInstallTemps(t *disktest.Tree) *disktest.Tree {
	rest := &disktest.Tree{Entries: map[string]*disktest.Entry{}}
	for name, e := range t.Entries {
		if !isInstallTemp(name) && !isInstallTemp(filepath.Dir(name)) {
			rest.Entries[name] = e
		}
	}
	return rest
}
