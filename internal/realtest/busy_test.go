package realtest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"moult.example/internal/deploy"
)

// blocking makes a release whose hook before the commit makes the file started
// and waits until the file blocked is gone.
func blocking(h *host, name string) (release string) {
	h.Helper()
	return tree{
		"bin/tool": "#!/bin/sh\necho " + name + "\n",
		"moult.toml": fmt.Sprintf("[hooks]\nbefore = \"touch %[1]s/started; while test -e %[1]s/blocked; do sleep 0.02; done\"\n",
			h.dir),
	}.write(h, h.path(name))
}

func plain(h *host, name string) (release string) {
	h.Helper()
	return tree{"bin/tool": "#!/bin/sh\necho " + name + "\n", "lib/" + name: name}.write(h, h.path(name))
}

// background runs moult and returns how it will have ended.
func (h *host) background(args ...string) <-chan ended {
	done := make(chan ended, 1)
	cmd := h.command(args...)
	go func() { done <- finish(h, cmd) }()
	return done
}

// A second apply ends with status 5 and changes nothing, or waits, as asked.
func TestBusy(t *testing.T) {
	h := newHost(t)
	target := h.path("app")
	h.ok("apply", plain(h, "one"), target)
	two, three := blocking(h, "two"), plain(h, "three")
	writeFile(t, h.path("blocked"), "", 0o644)
	first := h.background("apply", two, target)
	eventually(t, "the first apply is in its hook", func() bool {
		_, err := os.Stat(h.path("started"))
		return err == nil
	})

	for _, args := range [][]string{{"apply", three, target}, {"rollback", target}, {"gc", target}, {"recover", target}} {
		got := h.status(5, args...)
		if !strings.Contains(got.stderr, "another moult is at work") || !strings.Contains(got.stderr, "pid ") {
			t.Errorf("%v, want it to say who is at work", got)
		}
	}
	begun := time.Now()
	h.status(5, "apply", "--wait", "300ms", three, target)
	if waited := time.Since(begun); waited < 300*time.Millisecond {
		t.Errorf("--wait 300ms gave up after %v", waited)
	}
	want(t, target+"/bin/tool", "#!/bin/sh\necho one\n")

	second := h.background("apply", "--wait", "10m", three, target)
	select {
	case got := <-second:
		t.Fatalf("the second did not wait: %v", got)
	case <-time.After(200 * time.Millisecond):
	}
	must(t, os.Remove(h.path("blocked")))
	for _, done := range []<-chan ended{first, second} {
		if got := <-done; got.status != 0 {
			t.Errorf("%v", got)
		}
	}
	want(t, target+"/bin/tool", "#!/bin/sh\necho three\n")
	wantChain(h, target, 3)
}

// wantChain wants so many commits in the history, each going on from where the
// one before has ended.
func wantChain(h *host, target string, n int) {
	h.Helper()
	var v struct{ Records []deploy.Record }
	h.document(&v, 0, "history", target)
	live, commits := -1, 0
	for _, r := range v.Records {
		if r.Job != "commit" {
			continue
		}
		commits++
		if r.From != live && live >= 0 || r.Result != "done" {
			h.Errorf("commit %d: got %+v, want it to go on from %d", commits, r, live)
		}
		live = r.To
	}
	if commits != n {
		h.Errorf("history: got %d commits, want %d: %+v", commits, n, v.Records)
	}
}

// Ten at once that wait all succeed, also where there is no target yet.
func TestTenAtOnce(t *testing.T) {
	for _, layout := range []string{"owned", "shared"} {
		t.Run(layout, func(t *testing.T) {
			h := newHost(t)
			target := h.path("app")
			var all []<-chan ended
			for i := range 10 {
				all = append(all, h.background("apply", "--wait", "10m", "--layout", layout, plain(h, fmt.Sprint("r", i)), target))
			}
			for _, done := range all {
				if got := <-done; got.status != 0 {
					t.Errorf("%v", got)
				}
			}
			wantChain(h, target, 10)
			h.ok("verify", target)
			var v struct{ Targets []deploy.Status }
			if h.document(&v, 0, "status", target); v.Targets[0].Live != 10 {
				t.Errorf("got generation %d live, want 10", v.Targets[0].Live)
			}
		})
	}
}
