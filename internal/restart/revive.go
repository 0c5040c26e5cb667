package restart

import (
	"context"
	"slices"
)

// revive adds what an earlier run has restarted and what is not up now: units,
// also those whose program was to replace itself and has ended, and the commands
// of rules. A unit that is to be restarted anyway may go down until its turn
// comes, so that is noted too.
func (p *planner) revive(ctx context.Context) {
	for _, o := range p.Revive {
		switch {
		case !o.Acted:
		case o.Method == ByCommand:
			p.reviveCommand(o.Step)
		case o.Unit != "" && (o.Method == ByUnit || o.Method == BySignal):
			p.reviveUnit(ctx, o.Step)
		}
	}
}

func (p *planner) reviveCommand(s Step) {
	same := func(other Step) bool { return other.Method == ByCommand && slices.Equal(other.Run, s.Run) }
	if i := slices.IndexFunc(p.plan.Steps, same); i >= 0 {
		p.plan.Steps[i].Revive = true
		return
	}
	s.Processes, s.Revive = []Process{}, true
	p.plan.Steps = append(p.plan.Steps, s)
}

func (p *planner) reviveUnit(ctx context.Context, s Step) {
	same := func(other Step) bool { return other.Unit == s.Unit && other.home == s.home && other.Method == ByUnit }
	if i := slices.IndexFunc(p.plan.Steps, same); i >= 0 {
		p.plan.Steps[i].Revive = true
		return
	}
	m, err := p.buses.of(ctx, s.home)
	if err == nil {
		var u unit
		if u, err = m.look(ctx, s.Unit); err == nil && u.active == "active" && !u.job {
			return // it is up, and what is stale of it has a step of its own
		}
	}
	// If systemd cannot be asked now, the step will say so.
	s.Processes, s.Revive, s.Method, s.Signal, s.Reload = []Process{}, true, ByUnit, 0, false
	s.Name = unitName(s.Unit, s.home)
	p.plan.Steps = append(p.plan.Steps, s)
}
