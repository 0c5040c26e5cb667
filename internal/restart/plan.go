package restart

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"moult.example/internal/stale"
)

// Method is the way in which processes get the new code.
type Method string

// The methods, from the gentlest.
const (
	BySignal  Method = "signal"  // the program replaces itself: its connections and its number stay
	ByReexec  Method = "reexec"  // systemd replaces itself
	ByUnit    Method = "unit"    // systemd restarts the unit
	ByCommand Method = "command" // a command of a rule does it
)

// Plan is what is to be done to whom, and who is left alone, and why.
type Plan struct {
	Target     string `json:"target,omitempty"`
	Steps      []Step `json:"steps"` // in order
	Left       []Left `json:"left"`  // by PID
	Unreadable int    `json:"unreadable"`
	Blind      []int  `json:"unreadable_pids"` // those, by PID
	Hidden     bool   `json:"hidden"`          // there are processes that nobody could look at
}

// Step is one restart.
type Step struct {
	Name    string   `json:"name"` // for people: the unit, the rule, or the program and its number
	Method  Method   `json:"method"`
	Unit    string   `json:"unit,omitempty"`
	User    *int     `json:"user,omitempty"` // the unit belongs to the systemd of this user
	Reload  bool     `json:"reload,omitempty"`
	Signal  int      `json:"signal,omitempty"`
	Run     []string `json:"run,omitempty"`
	Rule    string   `json:"rule,omitempty"` // where the rule stands that says so
	Foreign bool     `json:"foreign"`        // it is no program of the target's own

	Processes []Process `json:"processes"`        // the stale ones that it is for
	Revive    bool      `json:"revive,omitempty"` // it may be down, and is started then too

	rule  *Rule
	order int
	home  home
}

// Process is a stale process.
type Process struct {
	PID       int           `json:"pid"`
	User      string        `json:"user"`
	Comm      string        `json:"comm"`
	Exe       string        `json:"exe"`
	Unit      string        `json:"unit,omitempty"`
	Container string        `json:"container,omitempty"`
	Verdict   stale.Verdict `json:"verdict"`
	Files     []string      `json:"files"` // what it should run instead, or what is gone; any bytes
	Runs      stale.Origin  `json:"runs"`
	Gets      stale.Origin  `json:"gets"`

	ticks uint64
}

// Left is a process that is left alone.
type Left struct {
	Process
	Reason Reason `json:"reason"`
	Why    string `json:"why"`
}

// Reason is why a process is left alone, for programs.
type Reason string

// The reasons.
const (
	ForSelf      Reason = "self"      // moult needs it to live
	ForContainer Reason = "container" // it belongs to a container, which whoever made it restarts
	ForHost      Reason = "host"      // the whole host hangs on it
	ForDenied    Reason = "denied"    // the caller or a rule says so
	ForGone      Reason = "gone"      // it could not be started again
	ForUnit      Reason = "unit"      // its unit cannot be restarted
	ForForeign   Reason = "foreign"   // it is no program of the target's own
	ForUnknown   Reason = "unknown"   // nobody knows how
)

// Foreign counts the steps for programs that are not the target's own.
func (p *Plan) Foreign() int {
	n := 0
	for _, s := range p.Steps {
		if s.Foreign {
			n++
		}
	}
	return n
}

// LeaveForeign takes the steps for programs that are not the target's own out of
// the plan: their processes are left alone.
func (p *Plan) LeaveForeign() {
	p.Steps = slices.DeleteFunc(p.Steps, func(s Step) bool {
		for _, process := range s.Processes {
			if s.Foreign {
				p.Left = append(p.Left, Left{process, ForForeign, "it is no program of the target's own; --yes restarts it too"})
			}
		}
		return s.Foreign
	})
	p.sort()
}

// planner makes a plan.
type planner struct {
	Options
	self  self
	buses *buses
	plan  *Plan

	commands map[int]*Step // by the number of the rule
	units    map[unitKey]*group
	order    []unitKey
	blocked  map[unitKey]int // a process that is to be left alone, and would go with its unit
}

type unitKey struct {
	home
	name string
}

// group are the stale processes of a unit.
type group struct {
	stale []stale.Process
	rule  *Rule
	place int
}

// MakePlan looks for stale processes and says what would be done to them. It
// changes nothing, but it asks systemd. An error says that the processes could
// not be looked at.
func MakePlan(ctx context.Context, o Options) (*Plan, error) {
	o = o.withDefaults()
	report, err := o.Find(ctx, nil)
	if err != nil {
		return nil, err
	}
	p := &planner{
		Options: o, self: lookAtSelf(o), buses: newBuses(o), commands: map[int]*Step{}, units: map[unitKey]*group{}, blocked: map[unitKey]int{},
		plan: &Plan{Target: o.Target, Steps: []Step{}, Left: []Left{}, Unreadable: len(report.Unreadable), Blind: append([]int{}, report.Unreadable...), Hidden: report.Hidden},
	}
	defer p.buses.close()
	for _, process := range report.Processes {
		if o.concerns(process) {
			p.place(ctx, process)
		}
	}
	for _, key := range p.order {
		p.placeUnit(ctx, key, p.units[key])
	}
	for _, s := range p.commands {
		p.plan.Steps = append(p.plan.Steps, *s)
	}
	p.revive(ctx)
	p.plan.sort()
	return p.plan, ctx.Err()
}

func (plan *Plan) sort() {
	slices.SortFunc(plan.Steps, func(a, b Step) int {
		return cmp.Or(cmp.Compare(a.order, b.order), strings.Compare(a.Name, b.Name), cmp.Compare(a.first(), b.first()))
	})
	slices.SortStableFunc(plan.Left, func(a, b Left) int { return cmp.Compare(a.PID, b.PID) })
}

// first is the number of the first process, 0 if there is none.
func (s *Step) first() int {
	if len(s.Processes) == 0 {
		return 0
	}
	return s.Processes[0].PID
}

// concerns says that a process is stale, and a matter of the target.
func (o Options) concerns(p stale.Process) bool {
	return isBad(p.Verdict()) && (o.Target == "" || belongs(p, o.Target))
}

func (p *planner) leave(process stale.Process, unit string, reason Reason, format string, args ...any) {
	p.plan.Left = append(p.plan.Left, Left{describe(process, unit), reason, fmt.Sprintf(format, args...)})
}

// place decides about one process, but for those that go with their unit.
func (p *planner) place(ctx context.Context, process stale.Process) {
	if why := p.self.needs(process.PID); why != "" {
		p.leave(process, process.Unit.Name, ForSelf, "%s", why)
		return
	}
	if process.Container.Engine != "" {
		p.leave(process, process.Unit.Name, ForContainer, "it runs in the container %s: replace or restart that", process.Container)
		return
	}
	if process.PID == 1 || isUserManager(process) {
		p.placeManager(process)
		return
	}
	key, unitErr := p.unitOf(ctx, process)
	rule, place := p.ruleFor(process, key.name)
	if pattern := named(p.Deny, process, key.name); pattern != "" {
		p.leave(process, key.name, ForDenied, "it is denied (%s)", pattern)
		p.blocked[key] = process.PID
		return
	}
	if rule != nil && rule.Leave {
		p.leave(process, key.name, ForDenied, "a rule says so (%s)", rule.From)
		p.blocked[key] = process.PID
		return
	}
	// A command of the administrator is meant for what it names.
	meant := rule != nil && rule.Target == "" && len(rule.Run) > 0
	if !meant && ofHost(process, key.name) && named(p.Allow, process, key.name) == "" {
		p.leave(process, key.name, ForHost, "the whole host hangs on it")
		return
	}
	switch {
	case rule != nil && len(rule.Run) > 0:
		p.placeCommand(ctx, process, key.name, rule, place)
	case strings.HasSuffix(key.name, ".service") && unitErr == nil:
		g := p.units[key]
		if g == nil {
			g = &group{place: place, rule: rule}
			p.units[key] = g
			p.order = append(p.order, key)
		}
		g.stale = append(g.stale, process)
		if place < g.place {
			g.rule, g.place = rule, place
		}
	case canReexec(process):
		p.placeSignal(ctx, process, nil, key, rule, place)
	default:
		p.leave(process, key.name, ForUnknown, "nobody knows how to restart this: %s", unknownWhy(process, key, unitErr))
	}
}

func unknownWhy(p stale.Process, key unitKey, err error) string {
	switch {
	case err != nil && key.name != "":
		return fmt.Sprintf("it is in %s, but %v", key.name, err)
	case strings.HasPrefix(key.name, "session-"):
		return "somebody runs it in a session (" + key.name + ")"
	case key.name != "":
		return "it is in " + key.name + ", which cannot be restarted, and no rule names it"
	}
	return "it is in no unit of systemd, and no rule names it"
}

// unitOf finds the unit of a process, and whether its systemd knows it too.
func (p *planner) unitOf(ctx context.Context, process stale.Process) (unitKey, error) {
	key := unitKey{home{process.Unit.User, process.Unit.UID}, process.Unit.Name}
	if !key.user {
		key.uid = 0
	}
	if key.name != "" && !strings.HasSuffix(key.name, ".service") {
		return key, nil
	}
	m, err := p.buses.of(ctx, key.home)
	if err != nil {
		return key, err
	}
	if key.name == "" {
		// Where the control group tells nothing: systemd may know all the same.
		if key.name, err = m.unitOf(ctx, process.PID); err != nil {
			key.name = ""
		}
		return key, nil
	}
	if _, known := m.units[key.name]; !known {
		return key, fmt.Errorf("%s does not know it", key.home)
	}
	return key, nil
}

func (p *planner) placeCommand(ctx context.Context, process stale.Process, unit string, rule *Rule, place int) {
	if why := p.notStartable(ctx, process); why != "" {
		p.leave(process, unit, ForGone, "a restart would fail: %s", why)
		return
	}
	s := p.commands[place]
	if s == nil {
		s = &Step{Name: strings.Join(rule.Run, " "), Method: ByCommand, Run: rule.Run, Foreign: true}
		s.follow(rule, place)
		p.commands[place] = s
	}
	s.Foreign = s.Foreign && p.isForeign(process)
	s.Processes = append(s.Processes, describe(process, unit))
}

func (s *Step) follow(rule *Rule, place int) {
	s.order = place
	if s.rule = rule; rule != nil {
		s.Rule = rule.From
	}
}

// isForeign says that a process is no program of the target's own.
func (p *planner) isForeign(process stale.Process) bool {
	if p.Target != "" {
		return !ofTarget(process, p.Target)
	}
	return !slices.ContainsFunc(p.Targets, func(t string) bool { return ofTarget(process, t) })
}

// shown is a name that a process or a unit has, for people: quoted if it holds
// what a terminal could take for more than text.
func shown(name string) string {
	if name == "" || !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return !strconv.IsPrint(r) }) {
		return strconv.Quote(name)
	}
	return name
}

func describe(p stale.Process, unit string) Process {
	d := Process{
		PID: p.PID, User: cmp.Or(p.User, fmt.Sprint(p.UID)), Comm: p.Comm, Exe: p.Exe, Unit: unit, Container: p.Container.String(),
		Verdict: p.Verdict(), Files: []string{}, Runs: p.Runs, Gets: p.Gets, ticks: p.Ticks,
	}
	for _, f := range p.Files {
		if isBad(f.Verdict) {
			d.Files = append(d.Files, PublicPath(f.Path))
		}
	}
	return d
}
