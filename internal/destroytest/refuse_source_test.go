package destroytest

import (
	archivetar "archive/tar"
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/testneed"
)

// What is wrong with a release is refused with status 1, the file's name and a
// reason, and nothing has changed: neither a target that is new nor one that has
// a release.

// each makes a bad release and returns how it is called.
type badSource struct {
	name string
	make func(h *host) string
	says []string
}

// archive writes a tar of these members.
func archive(h *host, members ...archivetar.Header) string {
	h.Helper()
	var b bytes.Buffer
	w := archivetar.NewWriter(&b)
	for _, m := range members {
		body := []byte("content")
		if m.Typeflag == 0 {
			m.Typeflag, m.Size = archivetar.TypeReg, int64(len(body))
		}
		if m.Mode == 0 {
			m.Mode = 0o755
		}
		must(h, w.WriteHeader(&m))
		if m.Typeflag == archivetar.TypeReg {
			_, err := w.Write(body)
			must(h, err)
		}
	}
	must(h, w.Close())
	must(h, os.WriteFile(h.path("r.tar"), b.Bytes(), 0o644))
	return "r.tar"
}

func dir(f files) func(h *host) string {
	return func(h *host) string {
		f.write(h, h.path("r"))
		return "r"
	}
}

func members(m ...archivetar.Header) func(h *host) string {
	return func(h *host) string { return archive(h, m...) }
}

func badSources() []badSource {
	return []badSource{
		{"nothing there", func(*host) string { return "gone" }, []string{"gone", "no such file"}},
		{"empty directory", dir(files{}), []string{"release r", "without files"}},
		{"directories alone", func(h *host) string {
			must(h, os.MkdirAll(h.path("r/a/b"), 0o755))
			return "r"
		}, []string{"release r", "without files"}},
		{"all excluded", dir(files{"a": "a", "b/c": "c", "moult.toml": `exclude = ["a", "b"]`}), []string{"release r", "without files"}},
		{"config alone", dir(files{"moult.toml": `name = "x"`}), []string{"release r", "without files"}},
		{"empty tar", members(), []string{"r.tar", "without files"}},
		{"empty file", dir0("", "r.tar"), []string{"r.tar"}},
		{"garbage", dir0(strings.Repeat("this is no archive at all, whatever its name says\n", 50), "r.tar"), []string{"r.tar", "neither a directory, nor a file of moult pack, nor a tar"}},
		{"socket", func(h *host) string {
			files{"a": "a", "run/x": ""}.write(h, h.path("r"))
			l, err := net.Listen("unix", h.path("r/run/sock"))
			must(h, err)
			h.Cleanup(func() { l.Close() })
			return "r"
		}, []string{"r/run/sock", "a socket does not belong in a release"}},
		{"fifo", func(h *host) string {
			files{"a": "a"}.write(h, h.path("r"))
			must(h, unix.Mkfifo(h.path("r/pipe"), 0o644))
			return "r"
		}, []string{"r/pipe", "a FIFO does not belong in a release"}},
		{"device in a tar", members(archivetar.Header{Name: "dev/null", Typeflag: archivetar.TypeChar, Devmajor: 1, Devminor: 3}), []string{"r.tar", "dev/null"}},
		{"our own name", dir(files{".moult/live": "x", "a": "a"}), []string{"r/.moult"}},
		{"absolute name", members(archivetar.Header{Name: "a"}, archivetar.Header{Name: "/etc/cron.d/x"}), []string{"r.tar", "/etc/cron.d/x", "absolute"}},
		{"name that leads out", members(archivetar.Header{Name: "a/../../x"}), []string{"r.tar", "a/../../x"}},
		{"through a link", members(archivetar.Header{Name: "a", Typeflag: archivetar.TypeSymlink, Linkname: "/etc"}, archivetar.Header{Name: "a/x"}), []string{"r.tar", "a/x"}},
		{"hard link that leads out", members(archivetar.Header{Name: "a"}, archivetar.Header{Name: "b", Typeflag: archivetar.TypeLink, Linkname: "../../etc/passwd"}), []string{"r.tar", "b"}},
		{"hard link to nothing", members(archivetar.Header{Name: "a"}, archivetar.Header{Name: "b", Typeflag: archivetar.TypeLink, Linkname: "c"}), []string{"r.tar", "b"}},
		{"there twice", members(archivetar.Header{Name: "a"}, archivetar.Header{Name: "./a"}), []string{"r.tar", "a", "twice"}},
		{"file and directory", members(archivetar.Header{Name: "a"}, archivetar.Header{Name: "a/b"}), []string{"r.tar", "a/b"}},
		{"long name", members(archivetar.Header{Name: strings.Repeat("n", 256)}), []string{"r.tar", "nnnn"}},
		{"config that is not known", dir(files{"a": "a", "moult.toml": "name = \"x\"\ncolour = \"red\""}), []string{"moult.toml:2", "colour"}},
		{"config with a bad mode", dir(files{"a": "a", "moult.toml": "[[file]]\nmatch = \"a\"\nmode = \"rwx\""}), []string{"moult.toml:3", "mode", "rwx"}},
		{"config with bad capabilities", dir(files{"a": "a", "moult.toml": "[[file]]\nmatch = \"a\"\ncaps = \"cap_fly=ep\""}), []string{"moult.toml:3", "cap_fly"}},
		{"owner that is not there", dir(files{"bin/a": "a", "moult.toml": "[[file]]\nmatch = \"bin/a\"\nowner = \"no-such-user\""}), []string{"bin/a", "no-such-user"}},
	}
}

func dir0(content, name string) func(h *host) string {
	return func(h *host) string {
		must(h, os.WriteFile(h.path(name), []byte(content), 0o644))
		return name
	}
}

func TestBadSource(t *testing.T) {
	for _, s := range badSources() {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			name := s.make(h)
			release1.write(t, h.path("good"))
			h.refusedEverywhere(s.says, func(target string) ended { return h.moult("apply", "--packaged", name, target) })
		})
	}
}

// refusedEverywhere wants a refusal on a target that is not there, and on one of
// each layout, which has the release in good.
func (h *host) refusedEverywhere(says []string, apply func(target string) ended) {
	h.Helper()
	for _, layout := range []string{"owned", "shared"} {
		must(h, os.MkdirAll(h.path(layout), 0o755))
		h.ok("apply", "--packaged", "--layout", layout, "good", layout)
	}
	for _, target := range []string{"new", "owned", "shared"} {
		before := capture(h, h.dir)
		got := apply(target)
		if got.status != 1 {
			h.Errorf("%s: want status 1, got %v", target, got)
			continue
		}
		h.tells(got, says...)
		if strings.Count(got.stderr, "moult: apply: ") != 1 {
			h.Errorf("%s: want one message, got %v", target, got)
		}
		if diff := before.Diff(capture(h, h.dir)); diff != "" {
			h.Errorf("%s: it has changed something:\n%s", target, diff)
		}
	}
}

// TestTruncated cuts archives short, at every member and in the middle, as files
// and on standard input.
func TestTruncated(t *testing.T) {
	testneed.Tool(t, "zstd")
	for _, w := range ways[1:] {
		for _, stdin := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s stdin %v", w.name, stdin), func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				f := files{}
				for i := range 8 {
					f[fmt.Sprintf("d%d/f%d", i%3, i)] = strings.Repeat(fmt.Sprintf("content %d ", i*i), 50*i)
				}
				f.write(t, h.path("r"))
				whole, err := os.ReadFile(w.make(h, h.path("r")))
				must(t, err)
				cut := h.path("cut" + filepath.Ext(w.name))
				must(t, os.WriteFile(cut, whole, 0o644))
				bad := faults{}
				for _, n := range cuts(whole, w.name == "tar") {
					must(t, os.WriteFile(cut, whole[:n], 0o644))
					bad.add(h, n, h.applyCut(cut, stdin))
				}
				bad.report(t, fmt.Sprintf("of %d bytes", len(whole)))
			})
		}
	}
}

// applyCut applies an archive that was cut short.
func (h *host) applyCut(cut string, stdin bool) error {
	h.Helper()
	cmd := h.command("apply", filepath.Base(cut), "app")
	if stdin {
		in, err := os.Open(cut)
		must(h, err)
		defer in.Close()
		cmd = h.command("apply", "-", "app")
		cmd.Stdin = in
	}
	got := h.finish(cmd)
	_, err := os.Lstat(h.path("app"))
	must(h, os.RemoveAll(h.path("app")))
	must(h, os.RemoveAll(h.path("state")))
	switch {
	case got.status == 0:
		return errors.New("it was applied")
	case got.status != 1 || !strings.Contains(got.stderr, "release ") || err == nil:
		return fmt.Errorf("want status 1, the release's name and no target: %v", got)
	}
	return nil
}

// cuts are lengths to cut an archive to. A plain tar is cut at all its blocks,
// between which nothing but its end tells what is missing.
func cuts(whole []byte, plain bool) (all []int) {
	if !plain {
		for n := 1; n < len(whole); n += 1 + len(whole)/40 {
			all = append(all, n)
		}
		return append(all, len(whole)-1)
	}
	end := len(bytes.TrimRight(whole, "\x00")) // from here on there is padding, then the end
	for n := 512; n < end; n += 512 {
		all = append(all, n-1, n)
	}
	return all
}

// TestTampered changes a packed release: a bit of it anywhere; and the bytes of
// a file, with all checksums of the packing put right again.
func TestTampered(t *testing.T) {
	zstd := testneed.Tool(t, "zstd")
	t.Run("bits", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		release1.write(t, h.path("r"))
		h.ok("pack", "r", "-o", "r.moult")
		whole, err := os.ReadFile(h.path("r.moult"))
		must(t, err)
		for n := 0; n < len(whole); n += 1 + len(whole)/60 {
			damaged := bytes.Clone(whole)
			damaged[n] ^= 0x10
			must(t, os.WriteFile(h.path("bad.moult"), damaged, 0o644))
			got := h.moult("apply", "bad.moult", "app")
			if got.status == 0 {
				// A bit that nothing depends on; then it is the release.
				if diff := atHome(t, h.path("r")).Diff(view(t, h.path("app"))); diff != "" {
					t.Errorf("bit at %d of %d: applied, but:\n%s", n, len(whole), diff)
				}
				h.ok("forget", "app")
				must(t, os.RemoveAll(h.path("app")))
				continue
			}
			if got.status != 1 || !namesOneOf(got, "bad.moult", slices.Collect(maps.Keys(release1))) {
				t.Errorf("bit at %d of %d: want status 1 and the name of the release or the file, got %v", n, len(whole), got)
			}
			if len(view(t, h.path("app")).Entries) > 0 {
				t.Errorf("bit at %d of %d: something has arrived: %v", n, len(whole), got)
			}
		}
	})
	t.Run("bytes of a file", func(t *testing.T) {
		t.Parallel()
		h := newHost(t)
		files{"bin/tool": "the honest program", "VERSION": "1"}.write(t, h.path("r"))
		release1.write(t, h.path("good"))
		h.ok("pack", "r", "-o", "r.moult")
		run(t, zstd, "-q", "-d", h.path("r.moult"), "-o", h.path("bad.tar"))
		whole, err := os.ReadFile(h.path("bad.tar"))
		must(t, err)
		bad := bytes.Replace(whole, []byte("the honest program"), []byte("the hostile progra"), 1)
		if bytes.Equal(bad, whole) {
			t.Fatal("the packed release does not hold the bytes of its file")
		}
		must(t, os.WriteFile(h.path("bad.tar"), bad, 0o644))
		run(t, zstd, "-q", h.path("bad.tar"), "-o", h.path("bad.moult"))
		for _, name := range []string{"bad.tar", "bad.moult"} {
			h.refusedEverywhere([]string{"bin/tool", "its bytes"}, func(target string) ended { return h.moult("apply", "--packaged", name, target) })
		}
	})
}

func namesOneOf(got ended, name string, names []string) bool {
	return slices.ContainsFunc(append(names, name), func(n string) bool { return strings.Contains(got.stderr, n) })
}
