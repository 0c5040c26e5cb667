package disktest_test

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"moult.example/internal/disk/disktest"
)

// recorded is the log of the set protocol.
func recorded(t *testing.T) *disktest.Recorder {
	t.Helper()
	dir := disktest.TempDir(t)
	plant(t, dir, many.initial)
	rec := disktest.Record(t, dir, open(t, dir))
	must(t, many.do(rec))
	rec.Mark("done")
	return rec
}

func why(states []disktest.State) (all []string) {
	for _, s := range states {
		all = append(all, s.Why)
	}
	return all
}

func TestStatesAreDifferentAndReproducible(t *testing.T) {
	rec := recorded(t)
	states := rec.States(disktest.Options{Seed: 5})
	seen := map[string]string{}
	for _, s := range states {
		text := fmt.Sprint(s.Tree())
		if before, ok := seen[text]; ok {
			t.Errorf("twice the same tree:\n%s\n%s", before, s)
		}
		seen[text] = s.Why
	}
	if again := rec.States(disktest.Options{Seed: 5}); !reflect.DeepEqual(why(states), why(again)) {
		t.Error("the same seed makes other states")
	}
}

func TestStatesAreBounded(t *testing.T) {
	rec := recorded(t)
	all := rec.States(disktest.Options{})
	few := rec.States(disktest.Options{Max: 40})
	if len(all) <= 40 || len(few) != 40 {
		t.Fatalf("%d of %d states, want 40", len(few), len(all))
	}
	kills := func(states []disktest.State) (n int) {
		for _, s := range states {
			if s.Kill {
				n++
			}
		}
		return n
	}
	if kills(few) != kills(all) {
		t.Errorf("%d kills in the sample, want all %d", kills(few), kills(all))
	}
	if !slices.IsSortedFunc(few, func(a, b disktest.State) int { return a.First - b.First }) {
		t.Error("the sample is not in order")
	}
	for _, s := range rec.States(disktest.Options{From: 12}) {
		if s.First < 12 {
			t.Errorf("a state of cut %d, want none before 12", s.First)
		}
	}
	if n := len(rec.States(disktest.Options{Random: -1, Singles: 1})); n >= len(all) {
		t.Errorf("%d states with one single thing for each cut, and %d with all", n, len(all))
	}
}

// The mark counts for a tree that can still be there when it was set.
func TestAfter(t *testing.T) {
	rec := recorded(t)
	first, last := 0, 0
	for _, s := range rec.States(disktest.Options{}) {
		if s.First == 0 && s.After("done") {
			t.Errorf("what was there first is there at the end: %s", s)
		}
		if s.After("done") {
			last++
		} else {
			first++
		}
		if s.After("never set") {
			t.Error("a mark that was not set")
		}
	}
	if first == 0 || last == 0 {
		t.Errorf("%d states before the mark, %d after it", first, last)
	}
}

func TestLogThatCannotBe(t *testing.T) {
	rec := recorded(t)
	empty := disktest.TempDir(t)
	defer func() {
		if got := fmt.Sprint(recover()); !strings.Contains(got, "operation 1, create d1/.a.new, cannot be") {
			t.Errorf("panic %q", got)
		}
	}()
	tree, err := disktest.Capture(empty)
	must(t, err)
	disktest.States(tree, rec.Log(), disktest.Options{})
}

func TestRecorderIsForMany(t *testing.T) {
	dir := disktest.TempDir(t)
	rec := disktest.Record(t, dir, open(t, dir))
	must(t, rec.Mkdir("sub"))
	sub := rec.Sub("sub", open(t, dir+"/sub"))
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := range 10 {
				name := fmt.Sprintf("%d-%d", n, i)
				f, err := sub.Create(name)
				if err != nil {
					t.Error(err)
					return
				}
				f.Write([]byte(name))
				f.Close()
				rec.Rename("sub/"+name, name)
			}
		})
	}
	wg.Wait()
	kills := slices.Collect(disktest.Kills(rec.Initial(), rec.Log()))
	got, err := disktest.Capture(dir)
	must(t, err)
	if d := kills[len(kills)-1].Tree().Diff(got); d != "" {
		t.Errorf("the log says otherwise:\n%s", d)
	}
}

func TestTryTellsWhatIsBad(t *testing.T) {
	rec := recorded(t)
	states := rec.States(disktest.Options{})
	r := disktest.Try(t, states, func(dir string, s disktest.State) error {
		if _, err := os.Stat(dir + "/journal"); err == nil {
			return errors.New("a journal")
		}
		return nil
	})
	want := 0
	for _, s := range states {
		if s.Tree().Entries["journal"] != nil {
			want++
		}
	}
	if len(r.Bad) != want || want == 0 || !strings.Contains(r.String(), "a journal") {
		t.Errorf("want %d bad states: %s", want, r)
	}
}
