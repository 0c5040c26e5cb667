package reexecload_test

import (
	"strings"
	"testing"
	"time"

	"moult.example/internal/reexecload"
)

// takenBack has a server try new code, under load, that aborts before it is
// ready: the old code is back each time, in the same process, and nothing is lost.
func takenBack(t *testing.T, p reexecload.Program) {
	t.Helper()
	const upgrades = 5
	run, err := p.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer run.Stop()
	r, err := reexecload.Trial{Think: 20 * time.Millisecond, Upgrades: upgrades, Every: 100 * time.Millisecond}.Run(t.Context(), run.Server)
	if err != nil {
		t.Fatal(err)
	}
	if sum := r.All(); sum.Lost+sum.Wrong > 0 || r.Kept.Answered == 0 {
		t.Errorf("%d lost, %d wrong, want none: %s\nit says %q", sum.Lost, sum.Wrong, strings.Join(sum.Why, "\n"), run.Said())
	}
	a, err := run.Ask()
	if err != nil {
		t.Fatal(err)
	}
	if said := p.Said(a); said.PID != run.PID || said.Generation != 2*upgrades {
		t.Errorf("generation %d, PID %d; want %d, two for each, and %d", said.Generation, said.PID, 2*upgrades, run.PID)
	}
}
