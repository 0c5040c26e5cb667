package restart

import (
	"context"
	"fmt"
	"syscall"

	"moult.example/internal/release"
	"moult.example/internal/stale"
)

// placeUnit decides about the stale processes of one unit together: they come
// and go with it.
func (p *planner) placeUnit(ctx context.Context, key unitKey, g *group) {
	leave := func(reason Reason, format string, args ...any) {
		for _, process := range g.stale {
			p.leave(process, key.name, reason, format, args...)
		}
	}
	m, err := p.buses.of(ctx, key.home)
	var u unit
	if err == nil {
		u, err = m.look(ctx, key.name)
	}
	if err != nil {
		leave(ForUnknown, "nobody knows how to restart this: %v", err)
		return
	}
	if p.self.ancestors[u.mainPID] {
		leave(ForSelf, "moult was started from this unit")
		return
	}
	if pid := p.blocked[key]; pid != 0 {
		leave(ForDenied, "its unit has process %d, which is to be left alone", pid)
		return
	}
	main := mainOf(g.stale, u.mainPID)
	reload := g.rule != nil && g.rule.Reload
	if !reload && p.placeSignals(ctx, key, g, main) {
		return
	}
	switch {
	case u.refuses || !u.canStart:
		leave(ForUnit, "its unit forbids to restart it by hand")
		return
	case u.active == "inactive" || u.active == "failed" || u.active == "deactivating":
		leave(ForUnit, "its unit is %s and has left it behind", u.active)
		return
	}
	if other := p.goesWith(m, u); other != "" {
		leave(ForDenied, "systemd would restart %s with it, which is to be left alone", shown(other))
		return
	}
	asked := g.stale
	if main != nil {
		asked = []stale.Process{*main}
	}
	for _, process := range asked {
		if why := p.notStartable(ctx, process); why != "" {
			leave(ForGone, "a restart would fail: %s", why)
			return
		}
	}
	s := Step{Name: unitName(key.name, key.home), Method: ByUnit, Unit: key.name, Reload: reload, Foreign: true, home: key.home}
	if key.user {
		s.User = &key.uid
	}
	s.follow(g.rule, g.place)
	for _, process := range g.stale {
		s.Foreign = s.Foreign && p.isForeign(process)
		s.Processes = append(s.Processes, describe(process, key.name))
	}
	p.plan.Steps = append(p.plan.Steps, s)
}

// unitName is what a unit is called for people.
func unitName(name string, h home) string {
	if h.user {
		return fmt.Sprintf("%s of user %d", shown(name), h.uid)
	}
	return shown(name)
}

// goesWith names a running unit that a restart would take along although it is to
// be left alone; "" if there is none. A reload takes nothing along, but may turn
// out to be a restart.
func (p *planner) goesWith(m *manager, u unit) string {
	for _, name := range u.with {
		if m.units[name].ActiveState != "active" {
			continue
		}
		other := stale.Process{Unit: stale.Unit{Name: name}}
		if p.self.units[name] || named(p.Deny, other, name) != "" || ofHost(other, name) && named(p.Allow, other, name) == "" {
			return name
		}
	}
	return ""
}

// mainOf is the stale process that is the unit's main one; nil if that is not
// stale.
func mainOf(processes []stale.Process, pid int) *stale.Process {
	for i := range processes {
		if processes[i].PID == pid {
			return &processes[i]
		}
	}
	return nil
}

// placeSignals replaces the programs of a unit by their own means, if they have
// such: the main process alone, if it is stale, since it starts the others;
// otherwise all that are stale, if all of them can. What was overwritten in place
// is not asked to run any further.
func (p *planner) placeSignals(ctx context.Context, key unitKey, g *group, main *stale.Process) bool {
	for _, process := range g.stale {
		if process.Verdict() == stale.Corrupt {
			return false
		}
	}
	if main != nil {
		if !canReexec(*main) {
			return false
		}
		p.placeSignal(ctx, *main, g.stale, key, g.rule, g.place)
		return true
	}
	for _, process := range g.stale {
		if !canReexec(process) {
			return false
		}
	}
	for _, process := range g.stale {
		p.placeSignal(ctx, process, nil, key, g.rule, g.place)
	}
	return true
}

// placeSignal plans the signal to one process; others are those that it will
// bring along.
func (p *planner) placeSignal(ctx context.Context, process stale.Process, others []stale.Process, key unitKey, rule *Rule, place int) {
	if why := p.notStartable(ctx, process); why != "" {
		p.leave(process, key.name, ForGone, "it could not replace itself: %s", why)
		for _, other := range others {
			if other.PID != process.PID {
				p.leave(other, key.name, ForGone, "its main process could not replace itself: %s", why)
			}
		}
		return
	}
	s := Step{
		Name: fmt.Sprintf("%s, process %d", shown(process.Comm), process.PID), Method: BySignal, Unit: key.name, Signal: process.Reexec.Signal,
		Foreign: p.isForeign(process), Processes: []Process{describe(process, key.name)}, home: key.home,
	}
	s.follow(rule, place)
	for _, other := range others {
		if other.PID != process.PID {
			s.Processes = append(s.Processes, describe(other, key.name))
		}
	}
	p.plan.Steps = append(p.plan.Steps, s)
}

// canReexec says that a process can replace itself when it gets its signal.
// SIGKILL and SIGSTOP nobody can have meant.
func canReexec(p stale.Process) bool {
	return p.Reexec != nil && p.Reexec.Signal > 0 && p.Reexec.Signal <= 64 &&
		p.Reexec.Signal != int(syscall.SIGKILL) && p.Reexec.Signal != int(syscall.SIGSTOP)
}

// placeManager decides about PID 1 and the systemd of a user. Restarting these
// would end everything; systemd can replace itself, if somebody wants it to.
func (p *planner) placeManager(process stale.Process) {
	allowed := false
	for _, pattern := range p.Allow {
		allowed = allowed || release.Wild(pattern, "init")
	}
	switch {
	case process.Comm == "(sd-pam)":
		p.leave(process, process.Unit.Name, ForHost, "it goes when its user's session ends")
		return
	case !allowed:
		p.leave(process, process.Unit.Name, ForHost, "it is init: systemctl daemon-reexec replaces it, and so does moult if init is allowed")
		return
	case process.Comm != "systemd":
		p.leave(process, process.Unit.Name, ForUnknown, "nobody knows how to restart this: it is an init, but not systemd")
		return
	}
	s := Step{Name: "systemd", Method: ByReexec, Foreign: true, Processes: []Process{describe(process, process.Unit.Name)}, order: len(p.Rules)}
	if process.PID != 1 {
		s.home = home{true, process.Unit.UID}
		s.User = &s.home.uid
		s.Name = s.home.String()
	}
	p.plan.Steps = append(p.plan.Steps, s)
}

// isUserManager says that a process is the systemd of a user, or the helper
// beside it.
func isUserManager(p stale.Process) bool { return p.Unit.User && p.Unit.Name == "init.scope" }

// notStartable says why a process could not be started again, "" if nothing is
// known against it. A library that is gone may be one that the new program does
// without: only where the program is the same, it is missed for sure.
func (p *planner) notStartable(ctx context.Context, process stale.Process) string {
	newProgram := false
	for _, f := range process.Files {
		if f.Kind == stale.KindExe && f.Verdict == stale.Stale {
			newProgram = true
		}
	}
	for _, f := range process.Files {
		if f.Verdict == stale.Gone && (f.Kind != stale.KindLibrary || p.Check == nil && !newProgram) {
			return shown(f.Path) + " is gone"
		}
	}
	if p.Check != nil {
		if err := p.Check(ctx, process); err != nil {
			return err.Error()
		}
	}
	return ""
}
