package destroytest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"moult.example/internal/disk/disktest"
)

// TestKillAnyMoment kills moult at random moments while it replaces a thousand
// files again and again, by apply and by rollback. Half of the kills are aimed
// at the commit, which is short. It counts where they have hit: a test that
// always kills too early or too late would prove nothing.
func TestKillAnyMoment(t *testing.T) {
	for _, layout := range []string{"owned", "shared"} {
		t.Run(layout, func(t *testing.T) {
			t.Parallel()
			s := newSiege(t, layout)
			kills := number(t, "MOULT_KILLS", 30)
			for n := range kills {
				s.attack(n)
			}
			// A clock may miss the commit again and again on a busy machine.
			for n := kills; n < kills+20 && !s.hitEverywhere(); n++ {
				s.place(n)
			}
			t.Logf("apply takes %v, rollback %v, the commit at its end %v and %v; hits: %v",
				s.took["apply"].all, s.took["rollback"].all, s.took["apply"].commit, s.took["rollback"].commit, s.hits)
			if !s.hitEverywhere() {
				t.Errorf("no kill has hit where it should: %v", s.hits)
			}
			s.ok("verify", "app")
		})
	}
}

// number is how many times something is done: what the environment says.
func number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	must(t, err)
	return n
}

// siege is a target that is under attack.
type siege struct {
	*host
	app, layout string
	views       map[string]*disktest.Tree // of the releases "a" and "b"
	live        string                    // which of them is live
	took        map[string]duration       // undisturbed, by command
	hits        map[string]int
	rng         *rand.Rand
}

type duration struct{ all, commit time.Duration }

func newSiege(t testing.TB, layout string) *siege {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	s := &siege{
		host: newHost(t), layout: layout, views: map[string]*disktest.Tree{}, took: map[string]duration{}, hits: map[string]int{},
		rng: rand.New(rand.NewPCG(seed, 0)),
	}
	s.app = s.path("app")
	for _, name := range []string{"a", "b"} {
		writeThousand(t, s.path(name), name)
	}
	files{"mine": "mine"}.write(t, s.app)
	for _, name := range []string{"a", "b", "a"} {
		s.took["apply"] = s.measure("apply", "--packaged", "--layout", layout, name, "app")
		s.views[name] = s.look()
	}
	s.took["rollback"] = s.measure("rollback", "app")
	s.live = "b"
	if got := s.look(); !got.Equal(s.views["b"]) {
		t.Fatalf("after the rollback:\n%s", s.views["b"].Diff(got))
	}
	return s
}

// writeThousand makes a release of a thousand files, all different from those of
// another name, and some that only it has.
func writeThousand(t testing.TB, dir, name string) {
	t.Helper()
	f := files{}
	for i := range 1000 {
		content := strings.Repeat(fmt.Sprintf("%s %d ", name, i), 1+i%500)
		f[fmt.Sprintf("d%02d/f%03d", i%20, i)] = content
		if i%25 == 0 {
			f[fmt.Sprintf("d%02d/only-%s-%03d", i%20, name, i)] = content
			f[fmt.Sprintf("only-%s-%d/f", name, i%3)] = content
			f[fmt.Sprintf("d%02d/l%03d", i%20, i)] = "->f" + name
		}
	}
	f.write(t, dir)
}

func (s *siege) look() *disktest.Tree {
	s.Helper()
	return view(s, s.app)
}

// measure runs a command undisturbed.
func (s *siege) measure(args ...string) duration {
	s.Helper()
	cmd := s.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	must(s, cmd.Start())
	done := s.wait(cmd)
	decided := s.untilDecided(done)
	if err := <-done; err != nil {
		s.Fatalf("%v: %v\n%s", args, err, stderr.String())
	}
	d := duration{all: time.Since(start)}
	if !decided.IsZero() {
		d.commit = time.Since(decided)
	}
	return d
}

func (s *siege) wait(cmd *exec.Cmd) <-chan error {
	done := make(chan error, 1)
	go func() { done <- cmd.Wait(); close(done) }()
	return done
}

// untilDecided waits until there is a journal, and says when that was; or until
// the command has ended.
func (s *siege) untilDecided(done <-chan error) time.Time {
	journal := filepath.Join(s.app, ".moult/journal")
	if s.layout == "shared" {
		journal = filepath.Join(s.app, ".moult/app/journal")
	}
	for len(done) == 0 {
		if _, err := os.Lstat(journal); err == nil {
			return time.Now()
		}
	}
	return time.Time{}
}

// attack runs one command, kills it, and judges.
func (s *siege) attack(n int) {
	s.Helper()
	other := map[string]string{"a": "b", "b": "a"}[s.live]
	args := []string{"apply", "--packaged", other, "app"}
	if n%3 == 2 {
		args = []string{"rollback", "app"}
	}
	cmd := s.command(args...)
	must(s, cmd.Start())
	done := s.wait(cmd)
	took := s.took[args[0]]
	delay := time.Duration(s.rng.Float64() * 1.05 * float64(took.all))
	if n%2 == 0 {
		delay = time.Duration(s.rng.Float64() * float64(took.commit))
		s.untilDecided(done)
	}
	// A sleep is too coarse for a commit of less than a millisecond.
	for end := time.Now().Add(delay); time.Now().Before(end) && len(done) == 0; {
		if left := time.Until(end); left > 5*time.Millisecond {
			time.Sleep(left - 2*time.Millisecond)
		}
	}
	_ = cmd.Process.Kill() // it may have ended
	<-done
	s.judge(n, args, endOf(cmd, "", ""), other)
}

// place does the same to a moult that kills itself, in the middle of the stage or
// right after the commit was decided.
func (s *siege) place(n int) {
	s.Helper()
	other := map[string]string{"a": "b", "b": "a"}[s.live]
	fault := fmt.Sprintf("kill:%d", 100+s.rng.IntN(500))
	if n%2 == 0 {
		fault = "kill-after:1:rename:journal"
	}
	args := []string{"apply", "--packaged", other, "app"}
	got := s.finish(s.faulty([]string{"MOULT_FAULT=" + fault}, args...))
	if !got.killed {
		s.Fatalf("%s: %v", fault, got)
	}
	s.judge(n, args, got, other)
}

func (s *siege) judge(n int, args []string, got ended, other string) {
	s.Helper()
	old, new := s.views[s.live], s.views[other]
	before := s.look()
	var err error
	if s.layout == "owned" {
		err = isOneOf(before, old, new)
	} else {
		err = eachIsOneOf(before, old, new)
	}
	if err != nil {
		s.Fatalf("attack %d, %v: before recovery: %v", n, args, err)
	}
	hit := s.recover(got)
	after := s.look()
	if err := isOneOf(after, old, new); err != nil {
		s.Fatalf("attack %d, %v, hit %s: after recovery: %v", n, args, hit, err)
	}
	isNew := after.Equal(new)
	if !isNew && (got.status == 0 || before.Equal(new)) {
		s.Fatalf("attack %d, %v, hit %s: it was there, and is no longer", n, args, hit)
	}
	if isNew {
		s.live = other
		hit += ", new"
	} else {
		hit += ", old"
	}
	s.hits[hit]++
}

// recover lets moult recover twice, and says where the kill has hit.
func (s *siege) recover(got ended) string {
	s.Helper()
	first := s.ok("recover", "app")
	must(s, leftovers(s.app))
	if second := s.ok("recover", "app"); !strings.Contains(second.stdout, "nothing to recover") {
		s.Fatalf("the second recover: %v", second)
	}
	switch {
	case got.status == 0:
		return "after the end"
	case strings.Contains(first.stdout, "cut short"):
		return "the commit"
	case strings.Contains(first.stdout, "nothing to recover"):
		return "nothing"
	}
	return "the stage"
}

// hitEverywhere wants kills in the middle of both halves.
func (s *siege) hitEverywhere() bool {
	return s.hits["the stage, old"] > 0 && s.hits["the commit, new"] > 0 // on a busy machine most miss
}
