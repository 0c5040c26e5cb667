package destroytest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestKillEverywhere kills moult before each operation on its disk, from the
// first to the one after the last, and lets it recover and do the job again.
func TestKillEverywhere(t *testing.T) {
	for _, j := range jobs() {
		t.Run(j.name, func(t *testing.T) {
			t.Parallel()
			b := j.prepare(t)
			stages, bad := map[string]int{}, faults{}
			for n := 1; ; n++ {
				b.again()
				got := b.finish(b.faulty([]string{fmt.Sprintf("MOULT_FAULT=kill:%d", n)}, j.do...))
				if !got.killed {
					if got.status != 0 || n <= len(b.operations)/2 {
						t.Fatalf("after %d kills: %v", n-1, got)
					}
					break
				}
				stage, err := b.afterKill()
				bad.add(b.host, n, err)
				stages[stage]++
			}
			bad.report(t, "killed before operation")
			t.Logf("%d operations; killed with %v", len(b.operations), stages)
		})
	}
}

// TestKillRecovery kills moult right after a commit was decided and in the
// middle of it, and then kills the recovery before each of its operations.
func TestKillRecovery(t *testing.T) {
	for _, j := range jobs() {
		t.Run(j.name, func(t *testing.T) {
			t.Parallel()
			b := j.prepare(t)
			from := b.decision()
			if from == 0 {
				return // it has no journal: what is cut short is cleaned away
			}
			bad := faults{}
			kills := 0
			for _, n := range []int{from + 1, from + (len(b.operations)-from)/2} {
				for m := 1; ; m++ {
					b.again()
					if got := b.finish(b.faulty([]string{fmt.Sprintf("MOULT_FAULT=kill:%d", n)}, j.do...)); !got.killed {
						t.Fatalf("not killed at operation %d: %v", n, got)
					}
					if got := b.finish(b.faulty([]string{fmt.Sprintf("MOULT_FAULT=kill:%d", m)}, "recover", "app")); !got.killed {
						break
					}
					kills++
					_, err := b.afterKill()
					bad.add(b.host, 1000*n+m, err)
				}
			}
			bad.report(t, "killed, and the recovery too, before operation (the thousands are the first)")
			t.Logf("%d kills of the recovery", kills)
		})
	}
}

// decision is the number of the operation that gives the journal its name, 0 if
// there is none.
func (b *bench) decision() int {
	return 1 + slices.IndexFunc(b.operations, func(op string) bool {
		return strings.HasPrefix(op, "rename ") && strings.HasSuffix(op, "/journal")
	})
}

// faults are what went wrong, each with the operations at which it did.
type faults map[string][]int

var tempName = regexp.MustCompile(`\.moult-(install\.)?[0-9A-Za-z]{16}`)

func (f faults) add(h *host, n int, err error) {
	if err != nil {
		why := strings.ReplaceAll(err.Error(), h.dir+"/", "")
		why = tempName.ReplaceAllString(why, ".moult-$1…")
		f[why] = append(f[why], n)
	}
}

func (f faults) report(t testing.TB, when string) {
	t.Helper()
	var lines []string
	for why, at := range f {
		lines = append(lines, fmt.Sprintf("%s %v:\n%s", when, at, why))
	}
	slices.Sort(lines)
	for _, line := range lines {
		t.Error(line)
	}
}

// afterKill judges what a kill has left, lets moult recover twice, and does the
// job again. It says how far the job had come.
func (b *bench) afterKill() (stage string, err error) {
	b.Helper()
	got, err := viewOf(b.app)
	if err != nil {
		return "", err
	}
	if b.owned {
		err = isOneOf(got, b.old, b.new)
	} else {
		err = eachIsOneOf(got, b.old, b.new)
	}
	if err != nil {
		return "", fmt.Errorf("before recovery: %w", err)
	}
	decided := b.decided()
	stage, inOrder := b.recovered()
	if got, err = viewOf(b.app); err != nil {
		return stage, errors.Join(inOrder, err)
	}
	if err := isOneOf(got, b.old, b.new); err != nil {
		return stage, fmt.Errorf("after recovery: %w", errors.Join(inOrder, err))
	}
	if decided && !got.Equal(b.new) {
		return stage, fmt.Errorf("there was a journal, and recovery went back:\n%s", b.new.Diff(got))
	}
	return stage, errors.Join(inOrder, b.doneAgain())
}

// decided says whether there is a journal.
func (b *bench) decided() bool {
	for _, pattern := range []string{".moult/journal", ".moult/*/journal"} {
		if found, _ := filepath.Glob(filepath.Join(b.app, pattern)); len(found) > 0 {
			return true
		}
	}
	return false
}

// isTarget says whether moult calls it one: it has a layout.
func (b *bench) isTarget() bool {
	_, err := os.Lstat(filepath.Join(b.app, ".moult/layout"))
	return err == nil
}

// recovered lets moult recover. A second time there must be nothing to do.
func (b *bench) recovered() (stage string, err error) {
	b.Helper()
	if !b.isTarget() {
		// It was killed before it had made a target of the directory, or after
		// it had ceased to be one.
		got := b.moult("recover", "app")
		if got.status == 0 && strings.Contains(got.stdout, "forget") {
			return "no target", nil // the last of it was still there
		}
		if got.status != 1 || !strings.Contains(got.stderr, "not a moult target") {
			return "no target", fmt.Errorf("want status 1: %v", got)
		}
		return "no target", nil
	}
	first := b.moult("recover", "app")
	switch {
	case first.status != 0:
		return "", fmt.Errorf("%v", first)
	case strings.Contains(first.stdout, "cut short"):
		stage = "a journal"
	case strings.Contains(first.stdout, "nothing to recover"):
		stage = "nothing"
	default:
		stage = "a stage"
	}
	if err := leftovers(b.app); err != nil {
		return stage, fmt.Errorf("after recovery: %w", err)
	}
	before := capture(b, b.dir)
	second := b.moult("recover", "app")
	if diff := before.Diff(capture(b, b.dir)); diff != "" {
		return stage, fmt.Errorf("the second recover changed something:\n%s", diff)
	}
	did := strings.Count(second.stdout, "\n") - strings.Count(second.stdout, "nothing to recover")
	if b.isTarget() && (second.status != 0 || did > 0) {
		return stage, fmt.Errorf("the second recover: %v", second)
	}
	return stage, nil
}

// doneAgain does the job once more, undisturbed.
func (b *bench) doneAgain() error {
	b.Helper()
	was := b.isTarget()
	got := b.moult(b.do...)
	if got.status != 0 && (!b.gone || was) {
		return fmt.Errorf("the same job again: %v", got)
	}
	now, err := viewOf(b.app)
	if err == nil && !now.Equal(b.new) {
		err = fmt.Errorf("after the same job again:\n%s", b.new.Diff(now))
	}
	if b.gone {
		if _, err2 := os.Lstat(filepath.Join(b.app, ".moult")); err2 == nil {
			err = errors.Join(err, errors.New("after the same job again: .moult is still there"))
		}
	}
	if err2 := leftovers(b.app); err2 != nil {
		err = errors.Join(err, fmt.Errorf("after the same job again: %w", err2))
	}
	return err
}
