package destroytest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk/disktest"
	"moult.example/internal/testneed"
)

// ways are how a release comes to moult: as a directory, packed, or as a tar of
// GNU tar's with all that it can carry, as a file and on standard input.
var ways = []struct {
	name string
	make func(h *host, dir string) string
}{
	{"directory", func(_ *host, dir string) string { return dir }},
	{"packed", func(h *host, dir string) string {
		h.ok("pack", dir, "-o", dir+".moult")
		return dir + ".moult"
	}},
	{"tar", func(h *host, dir string) string {
		tar(h, dir, dir+".tar")
		return dir + ".tar"
	}},
	{"tar.zst", func(h *host, dir string) string {
		tar(h, dir, dir+".tar")
		run(h, testneed.Tool(h, "zstd"), "-q", "--rm", dir+".tar")
		return dir + ".tar.zst"
	}},
}

func tar(t testing.TB, dir, file string) {
	t.Helper()
	run(t, testneed.Tool(t, "tar"), "--format=posix", "--sparse", "--xattrs", "--xattrs-include=*", "-C", dir, "-cf", file, ".")
}

// TestZoo applies both versions of the zoo and rolls back, in each layout, by
// each way, with the umask of a careful root and a careless one, into a target
// whose default ACL would give a stranger all rights.
func TestZoo(t *testing.T) {
	testneed.Root(t)
	for k, way := range ways {
		for _, layout := range []string{"owned", "shared"} {
			umask := []string{"022", "077", "000"}[k%3]
			t.Run(fmt.Sprintf("%s %s umask %s", layout, way.name, umask), func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				must(t, os.Mkdir(h.path("app"), 0o755))
				setxattr(t, h.path("app"), "system.posix_acl_default", acl(7, 7, 7))
				visitZoo(h, layout, umask, way.make)
			})
		}
	}
}

// visitZoo brings the zoo to app and looks at it after each step.
func visitZoo(h *host, layout, umask string, way func(h *host, dir string) string, without ...string) {
	h.Helper()
	must(h, os.MkdirAll(h.path("app"), 0o755))
	files{"mine/file": "mine"}.write(h, h.path("app"))
	mine := view(h, h.path("app"))
	homes := map[int]*disktest.Tree{}
	releases := map[int]string{}
	for _, n := range []int{1, 2} {
		dir := writeZoo(h, h.path(fmt.Sprintf("zoo%d", n)), n, without...)
		homes[n] = atHome(h, dir)
		maps.Copy(homes[n].Entries, mine.Entries)
		releases[n] = way(h, dir)
	}
	apply := func(n int) []string { return []string{"apply", "--packaged", "--layout", layout, releases[n], "app"} }
	for _, step := range []struct {
		what string
		args []string
		see  int
	}{
		{"first", apply(1), 1}, {"update", apply(2), 2}, {"again", apply(2), 2},
		{"rollback", []string{"rollback", "app", "1"}, 1}, {"forward", []string{"rollback", "app", "2"}, 2}, {"back", apply(1), 1},
	} {
		if got := h.withUmask(umask, step.args...); got.status != 0 {
			h.Fatalf("%s: %v", step.what, got)
		}
		got := view(h, h.path("app"))
		if diff := homes[step.see].Diff(got); diff != "" {
			h.Errorf("%s: not what it was at home:\n%s", step.what, diff)
		}
		if diff := homes[step.see].DiffTimes(got); diff != "" {
			h.Errorf("%s: times:\n%s", step.what, diff)
		}
		h.status(0, "verify", "app")
		if !contains(without, "sparse") {
			h.seeHoles(step.what)
		}
	}
	must(h, leftovers(h.path("app")))
	h.booksAreClosed()
}

// booksAreClosed wants nobody else to be able to write to moult's own files,
// whatever umask and default ACLs say.
func (h *host) booksAreClosed() {
	h.Helper()
	for name, e := range capture(h, h.path("app/.moult")).Entries {
		_, tree, isTree := strings.Cut(name, "generations/")
		if isTree && strings.Contains(tree, "/") && !strings.Contains(tree, "/.moult/") || strings.Contains(name, "objects/") {
			continue // the release's, or what was there before
		}
		acl := e.Xattrs["system.posix_acl_access"] + e.Xattrs["system.posix_acl_default"]
		if e.Mode&unix.S_IFMT != unix.S_IFLNK && e.Mode&0o022 != 0 || acl != "" {
			h.Errorf("others may write to .moult/%s: %s, ACL %x", name, e, acl)
		}
	}
}

// withUmask runs moult with a umask.
func (h *host) withUmask(umask string, args ...string) ended {
	h.Helper()
	cmd := h.command(args...)
	cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", "umask " + umask + ` && exec "$@"`, "sh"}, cmd.Args...)
	return h.finish(cmd)
}

// seeHoles wants sparse files to take little room.
func (h *host) seeHoles(what string) {
	h.Helper()
	for name, most := range map[string]int64{"middle": 512 << 10, "same": 512 << 10, "start": 512 << 10, "hole": 4 << 10} {
		var st unix.Stat_t
		must(h, unix.Stat(h.path("app/sparse/"+name), &st))
		if st.Blocks*512 > most {
			h.Errorf("%s: sparse/%s takes %d bytes of disk, want at most %d", what, name, st.Blocks*512, most)
		}
	}
}

// TestZooElsewhere does the same where a target may be: on each file system, and
// as an overlay whose lower layer has the old files.
func TestZooElsewhere(t *testing.T) {
	testneed.Root(t)
	places := map[string]func(t testing.TB) string{
		"ext4":  func(t testing.TB) string { return disktest.LoopFS(t, "ext4", 200).Dir },
		"xfs":   func(t testing.TB) string { return disktest.LoopFS(t, "xfs", 300).Dir },
		"btrfs": func(t testing.TB) string { return disktest.LoopFS(t, "btrfs", 400).Dir },
		"overlay": func(t testing.TB) string {
			lower := disktest.TempDir(t)
			files{"app/mine/file": "mine"}.write(t, lower)
			return disktest.Overlay(t, lower)
		},
	}
	for _, place := range slices.Sorted(maps.Keys(places)) {
		for _, layout := range []string{"owned", "shared"} {
			t.Run(place+" "+layout, func(t *testing.T) {
				t.Parallel()
				dir := places[place](t)
				visitZoo(newHostIn(t, dir), layout, "022", ways[0].make)
			})
		}
	}
}

// TestZooJSON wants every name of the zoo to come back from the JSON documents
// byte for byte.
func TestZooJSON(t *testing.T) {
	t.Parallel()
	for _, layout := range []string{"owned", "shared"} {
		t.Run(layout, func(t *testing.T) {
			h := newHost(t)
			f := files{}
			for _, name := range nastyNames {
				f["names/"+name] = "content"
			}
			f.write(t, h.path("r"))
			files{"mine": "mine"}.write(t, h.path("app"))
			h.names("changes", f, h.planned("apply", "--packaged", "--layout", layout, "r", "app"))
			h.ok("apply", "--packaged", "--layout", layout, "r", "app")
			for name := range f {
				must(t, os.WriteFile(filepath.Join(h.path("app"), name), []byte("damaged"), 0o644))
			}
			var v struct {
				Targets []struct {
					Damage []struct{ Path string }
				}
			}
			h.document(&v, 3, "verify", "app")
			var damaged []string
			for _, d := range v.Targets[0].Damage {
				damaged = append(damaged, d.Path)
			}
			h.names("damage", f, damaged)
			h.names("plan to mend", f, h.planned("apply", "--checksum", "--packaged", "r", "app"))
		})
	}
}

// planned are the paths in the plan of a dry run.
func (h *host) planned(args ...string) []string {
	h.Helper()
	var plan struct{ Changes []struct{ Path string } }
	h.document(&plan, 0, append([]string{args[0], "--dry-run"}, args[1:]...)...)
	var paths []string
	for _, c := range plan.Changes {
		paths = append(paths, c.Path)
	}
	return paths
}

// names wants escaped paths to be those of f.
func (h *host) names(what string, f files, escaped []string) {
	h.Helper()
	var got []string
	for _, e := range escaped {
		if e != "names" { // the directory
			got = append(got, unescape(h, e))
		}
	}
	slices.Sort(got)
	if want := slices.Sorted(maps.Keys(f)); !slices.Equal(got, want) {
		h.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// unescape reads \xNN, as the documents write what is no text.
func unescape(t testing.TB, s string) string {
	t.Helper()
	var b strings.Builder
	for s != "" {
		if s[0] != '\\' {
			b.WriteByte(s[0])
			s = s[1:]
			continue
		}
		var c byte
		if n, err := fmt.Sscanf(s[:min(4, len(s))], `\x%02x`, &c); n != 1 || err != nil {
			t.Fatalf("bad escape in %q", s)
		}
		b.WriteByte(c)
		s = s[4:]
	}
	return b.String()
}

// TestZooBefore: what was in a target before moult is there again after a
// rollback to 0, whether the release has changed it or brought the very same.
func TestZooBefore(t *testing.T) {
	testneed.Root(t)
	for name, flag := range map[string]string{"shared": "--layout=shared", "adopt": "--adopt"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			// A link that is somebody else's would be refused in a shared target.
			writeZoo(t, h.path("r"), 2, "links")
			writeZoo(t, h.path("app"), 1, "links")
			must(t, os.Remove(h.path("app/moult.toml")))
			files{"same-link": "->there", "ours": "ours"}.write(t, h.path("r"))
			files{"same-link": "->there", "mine": "mine"}.write(t, h.path("app"))
			before := view(t, h.path("app"))
			h.ok("apply", "--packaged", flag, "r", "app")
			after := atHome(t, h.path("r"))
			for path, e := range view(t, h.path("app")).Entries {
				if want := after.Entries[path]; want != nil && want.Sum != e.Sum {
					t.Errorf("%q is not what the release has", path)
				}
			}
			h.ok("verify", "app")
			h.ok("rollback", "app", "0")
			if diff := before.Diff(view(t, h.path("app"))); diff != "" {
				t.Errorf("after the rollback:\n%s", diff)
			}
			must(t, leftovers(h.path("app")))
		})
	}
}
