package realtest

import (
	"os"
	"strings"
	"testing"
)

// product makes a release that says what it is.
func product(h *host, name, version string, files tree) (release string) {
	h.Helper()
	all := tree{"moult.toml": "name = \"" + name + "\"\nversion = \"" + version + "\"\n"}
	for path, content := range files {
		all[path] = content
	}
	return all.write(h, h.path(name+"-"+version))
}

// Several products share a target: each removes and rolls back only what it has
// placed, and refuses a file of another's.
func TestProducts(t *testing.T) {
	h := newHost(t)
	target := h.path("local")
	tree{"bin/mine": "mine", "share/doc/mine": "mine"}.write(t, target)
	alpha1 := product(h, "alpha", "1", tree{"bin/alpha": "alpha 1", "lib/libalpha.so.1": "alpha 1", "share/doc/alpha": "alpha", "opt/alpha/x": "x"})
	alpha2 := product(h, "alpha", "2", tree{"bin/alpha": "alpha 2", "lib/libalpha.so.2": "alpha 2"})
	beta1 := product(h, "beta", "1", tree{"bin/beta": "beta 1", "lib/libbeta.so.1": "beta 1", "share/doc/beta": "beta"})
	beta2 := product(h, "beta", "2", tree{"bin/beta": "beta 2", "bin/alpha": "not beta's", "lib/libbeta.so.1": "beta 2"})

	h.ok("apply", alpha1, target)
	h.ok("apply", beta1, target)
	want(t, target+"/bin/alpha", "alpha 1")
	want(t, target+"/bin/beta", "beta 1")

	before := digests(t, target)
	got := h.status(1, "apply", beta2, target)
	if !strings.Contains(got.stderr, "bin/alpha") || !strings.Contains(got.stderr, "belongs to alpha") {
		t.Errorf("%v, want it to name the file and whose it is", got)
	}
	sameTree(t, "refused", digests(t, target), before)

	// A release that does not say what it is may be anybody's.
	h.status(1, "apply", plain(h, "nameless"), target)

	h.ok("apply", alpha2, target)
	want(t, target+"/bin/alpha", "alpha 2")
	wantGone(t, target+"/lib/libalpha.so.1")
	wantGone(t, target+"/opt") // it was alpha's alone
	wantGone(t, target+"/share/doc/alpha")
	want(t, target+"/share/doc/beta", "beta")
	want(t, target+"/share/doc/mine", "mine")

	h.ok("rollback", "--name", "alpha", target)
	want(t, target+"/bin/alpha", "alpha 1")
	want(t, target+"/opt/alpha/x", "x")
	want(t, target+"/bin/beta", "beta 1")

	h.ok("rollback", "--name", "alpha", target, "0")
	wantGone(t, target+"/bin/alpha")
	// Nobody owns bin/alpha now, so it may become beta's.
	h.ok("apply", beta2, target)
	want(t, target+"/bin/alpha", "not beta's")
	got = h.status(1, "apply", alpha1, target)
	if !strings.Contains(got.stderr, "belongs to beta") {
		t.Errorf("%v, want it to say whose bin/alpha is", got)
	}
	h.ok("forget", "--name", "alpha", target)
	want(t, target+"/bin/beta", "beta 2")
	h.ok("verify", target)
	h.ok("forget", "--name", "beta", target)
	wantGone(t, target+"/.moult")
	want(t, target+"/lib/libbeta.so.1", "beta 2")
	want(t, target+"/bin/mine", "mine")
}

// A file of another product is refused also where a link of the
// administrator's leads to it by another path.
func TestProductsThroughLink(t *testing.T) {
	h := newHost(t)
	target := h.path("local")
	tree{"lib64/other": "other", "lib": "->lib64"}.write(t, target)
	h.ok("apply", product(h, "alpha", "1", tree{"lib/libx.so.1": "alpha"}), target)
	got := h.status(1, "apply", product(h, "beta", "1", tree{"lib64/libx.so.1": "beta"}), target)
	if !strings.Contains(got.stderr, "belongs to alpha") {
		t.Errorf("%v, want it to say that the file is alpha's", got)
	}
	want(t, target+"/lib64/libx.so.1", "alpha")
}

// A product whose name is not its target's first one stays alone when the other
// is staged, committed and collected.
func TestProductsApart(t *testing.T) {
	h := newHost(t)
	target := h.path("local")
	for _, v := range []string{"1", "2", "3", "4", "5"} {
		for _, name := range []string{"alpha", "beta"} {
			h.ok("apply", "--generations", "0", product(h, name, v, tree{"bin/" + name: name + " " + v}), target, "--layout", "shared")
		}
	}
	h.ok("gc", "--generations", "0", "--name", "alpha", target)
	h.ok("rollback", "--name", "beta", target)
	want(t, target+"/bin/alpha", "alpha 5")
	want(t, target+"/bin/beta", "beta 4")
	h.ok("verify", target)
	left, err := os.ReadDir(target)
	must(t, err)
	if len(left) != 2 {
		t.Errorf("got %v in the target, want bin and .moult", left)
	}
}

// What one product has left becomes another's, and then neither rollback nor
// commit takes it back. What was there before both is not lost on the way.
func TestProductsHandOver(t *testing.T) {
	h := newHost(t)
	target := h.path("local")
	tree{"bin/mine": "mine", "lib/x": "before"}.write(t, target)
	with := product(h, "old", "1", tree{"bin/old": "old", "lib/x": "old x"})
	without := product(h, "old", "2", tree{"bin/old": "old"})
	taker := product(h, "new", "1", tree{"bin/new": "new", "lib/x": "new x"})
	h.ok("apply", with, target)
	h.ok("apply", without, target)
	h.ok("apply", taker, target)

	before := digests(t, target)
	for _, do := range [][]string{{"rollback", "--dry-run"}, {"rollback"}} {
		got := h.status(1, append(do, "--name", "old", target)...)
		if !strings.Contains(got.stderr, "lib/x: belongs to new") {
			t.Errorf("%v, want it to name the file and whose it is", got)
		}
	}
	sameTree(t, "refused", digests(t, target), before)

	h.ok("rollback", "--name", "old", target, "0")
	want(t, target+"/lib/x", "new x")
	got := h.status(1, "forget", "--name", "old", target)
	if !strings.Contains(got.stderr, "lib/x: what was there before moult") {
		t.Errorf("%v, want it to say what would go", got)
	}
	h.ok("rollback", "--name", "new", target, "0")
	wantGone(t, target+"/lib/x")
	h.ok("rollback", "--name", "old", target)
	h.ok("rollback", "--name", "old", target, "0")
	want(t, target+"/lib/x", "before")
}

// Two products have staged the same file, with what is there: it becomes that
// of the first to commit.
func TestProductsStageTheSame(t *testing.T) {
	h := newHost(t)
	target := h.path("local")
	tree{"lib/x": "x"}.write(t, target)
	for _, name := range []string{"one", "two"} {
		h.ok("stage", product(h, name, "1", tree{"bin/" + name: name, "lib/x": "x"}), target)
	}
	h.ok("commit", "--name", "one", target)
	got := h.status(1, "commit", "--name", "two", target)
	if !strings.Contains(got.stderr, "lib/x: belongs to one") {
		t.Errorf("%v, want it to name the file and whose it is", got)
	}
	wantGone(t, target+"/bin/two")
	h.ok("verify", target)
}
