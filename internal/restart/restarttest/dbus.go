package restarttest

import (
	"fmt"
	"slices"
	"syscall"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

func unitPath(name string) dbus.ObjectPath {
	return dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + systemd.PathBusEscape(name))
}

// manager are the methods of org.freedesktop.systemd1.Manager.
type manager struct{ s *Systemd }

func failure(name, text string) *dbus.Error {
	return dbus.NewError("org.freedesktop."+name, []any{text})
}

func (m manager) ListUnits() ([]systemd.UnitStatus, *dbus.Error) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	list := []systemd.UnitStatus{}
	for _, u := range m.s.units {
		list = append(list, systemd.UnitStatus{
			Name: u.Name, LoadState: "loaded", ActiveState: u.active, SubState: u.sub, Path: unitPath(u.Name), JobPath: "/",
		})
	}
	return list, nil
}

func (m manager) GetUnitByPID(pid uint32) (dbus.ObjectPath, *dbus.Error) {
	name := m.s.UnitOf(int(pid))
	if name == "" {
		return "", failure("systemd1.NoUnitForPID", fmt.Sprintf("PID %d does not belong to any loaded unit.", pid))
	}
	return unitPath(name), nil
}

func (m manager) RestartUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	return m.s.job("start", name, mode)
}

func (m manager) ResetFailedUnit(name string) *dbus.Error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	if u := m.s.units[name]; u != nil {
		u.givenUp = false
		if u.active == "failed" {
			u.active, u.sub = "inactive", "dead"
		}
	}
	return nil
}

func (m manager) TryRestartUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	return m.s.job("restart", name, mode)
}

func (m manager) ReloadOrTryRestartUnit(name, mode string) (dbus.ObjectPath, *dbus.Error) {
	return m.s.job("reload-or-restart", name, mode)
}

func (m manager) Reexecute() *dbus.Error {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	m.s.calls = append(m.s.calls, "reexecute")
	return nil
}

func (s *Systemd) job(kind, name, mode string) (dbus.ObjectPath, *dbus.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.units[name]
	switch {
	case u == nil:
		return "", failure("systemd1.NoSuchUnit", "Unit "+name+" not found.")
	case mode != "replace":
		return "", failure("DBus.Error.InvalidArgs", "mode "+mode)
	case u.Refuses:
		return "", failure("systemd1.OnlyByDependency", "Operation refused, unit "+name+" may be requested by dependency only.")
	case u.Denied:
		return "", failure("DBus.Error.InteractiveAuthorizationRequired", "Interactive authentication required.")
	}
	s.calls = append(s.calls, kind+" "+name)
	s.jobs++
	u.job = s.jobs
	path := dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", u.job))
	if !u.JobHangs {
		go s.work(u, kind, u.job, path)
	}
	return path, nil
}

// work does a job and tells of its end.
func (s *Systemd) work(u *Unit, kind string, id uint32, path dbus.ObjectPath) {
	result := "done"
	s.mu.Lock()
	stopped := (u.active == "inactive" || u.active == "failed") && !u.Oneshot && kind != "start"
	fails := u.JobFails || u.givenUp
	reload, loses, wait := kind == "reload-or-restart" && u.CanReload, u.LosesSignal, u.StartsIn
	pid, begins := u.pid(), u.JobWaits
	s.mu.Unlock()
	if begins != nil {
		<-begins
	}
	switch {
	case stopped: // nothing to try
	case reload:
		syscall.Kill(pid, syscall.SIGHUP)
	default:
		s.stop(u)
		if fails || s.start(u) != nil {
			result = "failed"
		}
	}
	s.mu.Lock()
	if fails && !stopped {
		u.active, u.sub, u.result = "failed", "failed", "exit-code"
	} else if wait > 0 && result == "done" {
		u.active, u.sub = "activating", "start"
		time.AfterFunc(wait, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			u.active, u.sub = "active", "running"
		})
	}
	u.job = 0
	s.mu.Unlock()
	if !loses {
		s.conn.Emit("/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager.JobRemoved", id, path, u.Name, result)
	}
}

// properties are those of one unit.
type properties struct {
	s *Systemd
	u *Unit
}

type jobOfUnit struct {
	ID   uint32
	Path dbus.ObjectPath
}

func (p properties) GetAll(face string) (map[string]dbus.Variant, *dbus.Error) {
	p.s.mu.Lock()
	defer p.s.mu.Unlock()
	u := p.u
	all := map[string]any{}
	if face == "" || face == "org.freedesktop.systemd1.Unit" {
		job := jobOfUnit{0, "/"}
		if u.job != 0 {
			job = jobOfUnit{u.job, dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", u.job))}
		}
		all["Id"], all["ActiveState"], all["SubState"], all["Job"] = u.Name, u.active, u.sub, job
		all["CanStart"], all["CanReload"] = true, u.CanReload
		all["RequiredBy"], all["BoundBy"], all["ConsistsOf"] = append([]string{}, u.RequiredBy...), []string{}, []string{}
		all["RefuseManualStart"], all["RefuseManualStop"] = false, u.Refuses
	}
	if face == "" || face == "org.freedesktop.systemd1.Service" {
		kind := "simple"
		if u.Oneshot {
			kind = "oneshot"
		}
		all["MainPID"], all["NRestarts"], all["Type"], all["Result"] = uint32(u.pid()), u.restarts, kind, u.result
	}
	variants := map[string]dbus.Variant{}
	for name, value := range all {
		variants[name] = dbus.MakeVariant(value)
	}
	return variants, nil
}

func (p properties) Get(face, name string) (dbus.Variant, *dbus.Error) {
	all, err := p.GetAll(face)
	if v, ok := all[name]; ok {
		return v, err
	}
	return dbus.Variant{}, failure("DBus.Error.UnknownProperty", name)
}

// Restarted says how often a unit was restarted or reloaded.
func (s *Systemd) Restarted(name string) int {
	n := 0
	for _, call := range s.Calls() {
		if slices.Contains([]string{"start " + name, "restart " + name, "reload-or-restart " + name}, call) {
			n++
		}
	}
	return n
}
