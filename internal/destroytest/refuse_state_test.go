package destroytest

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is wrong with moult's own files in a target, or asked of them in vain.

// twoReleases is a target with generations 1 and 2, of which 2 is live.
func twoReleases(t testing.TB, layout string) *host {
	t.Helper()
	h := newHost(t)
	release1.write(t, h.path("r1"))
	release2.write(t, h.path("r2"))
	release3.write(t, h.path("r3"))
	must(t, os.Mkdir(h.path("app"), 0o755))
	h.ok("apply", "--packaged", "--layout", layout, "r1", "app")
	h.ok("apply", "--packaged", "r2", "app")
	return h
}

// books is where a product's files lie.
func books(layout string) string {
	if layout == "shared" {
		return "app/.moult/app"
	}
	return "app/.moult"
}

func forLayouts(t *testing.T, test func(t *testing.T, layout string)) {
	for _, layout := range []string{"owned", "shared"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			test(t, layout)
		})
	}
}

// writing are the commands that write to a target.
var writing = []string{"apply --packaged r3 app", "stage --packaged r3 app", "rollback app 1", "gc app", "recover app", "pin app 1", "forget --force app"}

// TestUnknownGeneration asks for what is not there.
func TestUnknownGeneration(t *testing.T) {
	forLayouts(t, func(t *testing.T, layout string) {
		h := twoReleases(t, layout)
		for _, command := range []string{"rollback app 99", "rollback --dry-run app 99", "commit app 99", "pin app 99"} {
			h.unchanged(func() { h.refused([]string{"app", "99", "no such generation"}, strings.Fields(command)...) })
		}
		h.unchanged(func() { h.ok("commit", "app") }) // nothing is staged, which is what it would leave
		for _, command := range []string{"rollback app one", "rollback app -- -1", "rollback app 1 2"} {
			h.unchanged(func() { h.status(2, strings.Fields(command)...) })
		}
		h.ok("rollback", "app", "1")
		h.unchanged(func() { h.ok("commit", "app") })
	})
}

// journals are those that no moult of this version may follow.
var journals = map[string]struct {
	make func(good []byte) []byte
	says []string
}{
	"newer": {func(good []byte) []byte {
		return bytes.Replace(good, []byte("moult-journal 1 "), []byte("moult-journal 2 "), 1)
	}, []string{"journal", "newer"}},
	"damaged": {func(good []byte) []byte {
		bad := bytes.Clone(good)
		bad[len(bad)/2] ^= 1
		return bad
	}, []string{"journal", "damaged"}},
	"cut short": {func(good []byte) []byte { return good[:len(good)/2] }, []string{"journal", "damaged"}},
	"empty":     {func([]byte) []byte { return nil }, []string{"journal", "not a journal"}},
	"another's": {func([]byte) []byte { return []byte("{\"some\": \"other tool's\"}\n") }, []string{"journal", "not a journal"}},
	"leads out": {func([]byte) []byte {
		return journalOf(`{"job":"commit","layout":"shared","from":1,"generation":2,"ops":[{"kind":"place","path":"../../out","temp":"bin/.moult-0123456789abcdef"}]}`)
	}, []string{"journal", "bad name"}},
	"no name": {func([]byte) []byte {
		return journalOf(`{"job":"commit","layout":"shared","from":1,"generation":2,"ops":[{"kind":"remove"}]}`)
	}, []string{"journal", "without a name"}},
	"adopts out": {func([]byte) []byte {
		return journalOf(`{"job":"adopt","layout":"owned","from":-1,"generation":1,"adopt":["../x"]}`)
	}, []string{"journal", "bad name"}},
}

// journalOf is a journal whose digest is right.
func journalOf(body string) []byte {
	body += "\n"
	return fmt.Appendf(nil, "moult-journal 1 %x\n%s", sha256.Sum256([]byte(body)), body)
}

// TestJournals kills moult in the middle of a commit and changes the journal.
// Every command that writes refuses, with the journal's path; those that read
// still say what is live.
func TestJournals(t *testing.T) {
	forLayouts(t, func(t *testing.T, layout string) {
		h := twoReleases(t, layout)
		journal := h.path(books(layout) + "/journal")
		got := h.finish(h.faulty([]string{"MOULT_FAULT=kill-after:1:rename:journal"}, "rollback", "app", "1"))
		if !got.killed {
			t.Fatal(got)
		}
		good, err := os.ReadFile(journal)
		must(t, err)
		before := view(t, h.path("app"))
		for name, j := range journals {
			must(t, os.WriteFile(journal, j.make(good), 0o644))
			for _, command := range writing {
				h.unchanged(func() { h.refused(append(j.says, "app/.moult"), strings.Fields(command)...) })
			}
			if diff := before.Diff(view(t, h.path("app"))); diff != "" {
				t.Fatalf("%s:\n%s", name, diff)
			}
			h.unchanged(func() { h.status(4, "status", "app") })
		}
		must(t, os.WriteFile(journal, good, 0o644))
		h.ok("recover", "app")
		h.ok("verify", "app")
		if diff := atHome(t, h.path("r1")).Diff(view(t, h.path("app"))); diff != "" {
			t.Errorf("after recovery with the right journal:\n%s", diff)
		}
	})
}

// TestLayoutFile: a target of a newer moult's, or one whose layout cannot be
// read, is left alone by all commands.
func TestLayoutFile(t *testing.T) {
	forLayouts(t, func(t *testing.T, layout string) {
		h := twoReleases(t, layout)
		good, err := os.ReadFile(h.path("app/.moult/layout"))
		must(t, err)
		for text, says := range map[string]string{
			"moult 2 " + layout + "\n": "newer", "moult 1 diagonal\n": "diagonal", "": "cannot be read", "owned\n": "cannot be read",
		} {
			must(t, os.WriteFile(h.path("app/.moult/layout"), []byte(text), 0o644))
			for _, command := range append(writing, "status app", "verify app", "history app", "diff r3 app", "apply --dry-run r3 app") {
				h.unchanged(func() { h.refused([]string{"app/.moult/layout", says}, strings.Fields(command)...) })
			}
		}
		must(t, os.WriteFile(h.path("app/.moult/layout"), good, 0o644))
		h.ok("verify", "app")
	})
}

// TestDiskNotMounted: a target that is registered and has nothing of moult's is
// most likely not mounted. Nothing may be put under the mount point.
func TestDiskNotMounted(t *testing.T) {
	forLayouts(t, func(t *testing.T, layout string) {
		h := twoReleases(t, layout)
		must(t, os.Rename(h.path("app"), h.path("disk")))
		must(t, os.Mkdir(h.path("app"), 0o755))
		for _, command := range append(writing, "status app", "verify app", "apply --dry-run r3 app") {
			if strings.HasPrefix(command, "forget") {
				continue
			}
			h.unchanged(func() {
				h.refused([]string{"app", "is registered as a target", "mounted?"}, strings.Fields(command)...)
			})
		}
		must(t, os.Remove(h.path("app")))
		h.unchanged(func() { h.refused([]string{"app", "is registered as a target"}, "apply", "--packaged", "r3", "app") })
		must(t, os.Rename(h.path("disk"), h.path("app")))
		h.ok("apply", "--packaged", "r3", "app")
		// It is gone for good.
		must(t, os.RemoveAll(h.path("app")))
		h.ok("forget", "app")
		h.ok("apply", "--packaged", "r3", "app")
	})
}

// TestBusy: in the middle of another's commit. The other one waits in its hook,
// so that the moment lasts.
func TestBusy(t *testing.T) {
	forLayouts(t, func(t *testing.T, layout string) {
		h := twoReleases(t, layout)
		must(t, unix.Mkfifo(h.path("gate"), 0o644))
		files{"moult.toml": fmt.Sprintf("[hooks]\nbefore = \"echo > %[1]s/begun; cat %[1]s/gate\"\n", h.dir)}.write(t, h.path("r1"))
		first := h.command("apply", "--packaged", "r1", "app")
		must(t, first.Start())
		done := make(chan error, 1)
		go func() { done <- first.Wait() }()
		for end := time.Now().Add(5 * time.Minute); ; time.Sleep(time.Millisecond) {
			if st, err := os.Lstat(h.path("begun")); err == nil && st.Size() > 0 {
				break
			}
			if time.Now().After(end) || len(done) > 0 {
				t.Fatal("the hook was not run")
			}
		}
		before := view(t, h.path("app"))
		for _, command := range writing {
			h.unchanged(func() {
				got := h.status(5, strings.Fields(command)...)
				h.tells(got, "app", "another moult is at work", fmt.Sprint(first.Process.Pid))
			})
		}
		h.ok("status", "app")
		h.unchanged(func() { h.status(5, "apply", "--packaged", "--wait", "50ms", "r3", "app") })
		second := h.command("apply", "--packaged", "--wait", "10m", "r3", "app")
		must(t, second.Start())
		if diff := before.Diff(view(t, h.path("app"))); diff != "" {
			t.Errorf("the first one has not committed yet, but:\n%s", diff)
		}
		gate, err := os.OpenFile(h.path("gate"), os.O_WRONLY, 0)
		must(t, err)
		must(t, gate.Close())
		if err := <-done; err != nil {
			t.Errorf("the first: %v", err)
		}
		if err := second.Wait(); err != nil {
			t.Errorf("the second: %v", err)
		}
		if diff := atHome(t, h.path("r3")).Diff(view(t, h.path("app"))); diff != "" {
			t.Errorf("the second has waited, and then:\n%s", diff)
		}
	})
}

// TestCutShortNeighbour: in a shared target a product is applied while the
// commit of another one is cut short. Both are whole in the end, and keep their
// files apart.
func TestCutShortNeighbour(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for name, f := range map[string]files{
		"a1": {"bin/a": "a 1", "moult.toml": "name = \"a\""}, "a2": {"bin/a": "a 2", "bin/both": "a's", "moult.toml": "name = \"a\""},
		"b1": {"bin/b": "b 1", "moult.toml": "name = \"b\""}, "b2": {"bin/b": "b 2", "bin/both": "b's", "moult.toml": "name = \"b\""},
	} {
		f.write(t, h.path(name))
	}
	files{"mine": "mine"}.write(t, h.path("app"))
	h.ok("apply", "--packaged", "a1", "app")
	h.ok("apply", "--packaged", "b1", "app")
	if got := h.finish(h.faulty([]string{"MOULT_FAULT=kill-after:1:rename:journal"}, "apply", "--packaged", "a2", "app")); !got.killed {
		t.Fatal(got)
	}
	// It is decided that bin/both is a's.
	got := h.moult("apply", "--packaged", "b2", "app")
	if got.status != 1 {
		t.Errorf("want a refusal, since bin/both belongs to a: %v", got)
	}
	h.tells(got, "bin/both", "belongs to a")
	h.ok("recover", "app")
	for path, want := range map[string]string{"bin/a": "a 2", "bin/both": "a's", "bin/b": "b 1"} {
		if got, err := os.ReadFile(filepath.Join(h.path("app"), path)); err != nil || string(got) != want {
			t.Errorf("%s: %q %v, want %q", path, got, err, want)
		}
	}
	h.ok("verify", "app")
	must(t, leftovers(h.path("app")))
}

// TestDamagedBooks: a manifest or an info that cannot be read is named; no
// release is put on top of it.
func TestDamagedBooks(t *testing.T) {
	forLayouts(t, func(t *testing.T, layout string) {
		for _, name := range []string{"manifest", "info.json"} {
			h := twoReleases(t, layout)
			path := "app/.moult/generations/2/.moult/" + name
			if layout == "shared" {
				path = "app/.moult/app/generations/2/" + name
			}
			must(t, os.WriteFile(h.path(path), []byte("damaged\n"), 0o644))
			for _, command := range []string{"apply --packaged r3 app", "rollback app 1", "verify app"} {
				before := view(t, h.path("app"))
				h.refused([]string{path}, strings.Fields(command)...)
				if diff := before.Diff(view(t, h.path("app"))); diff != "" {
					t.Errorf("%s, %s:\n%s", name, command, diff)
				}
			}
		}
	})
}
