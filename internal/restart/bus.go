package restart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	systemd "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

// home names one systemd of this host: the system's, or a user's.
type home struct {
	user bool
	uid  int
}

func (h home) String() string {
	if h.user {
		return fmt.Sprintf("the systemd of user %d", h.uid)
	}
	return "systemd"
}

// buses are the connections of one run, made when they are first needed. They
// may be used by several goroutines.
type buses struct {
	opts Options

	mu   sync.Mutex
	open map[home]*manager
}

// manager is one systemd.
type manager struct {
	home
	err   error         // why it cannot be asked
	conn  *systemd.Conn // its units and jobs
	raw   *dbus.Conn    // for what go-systemd has not
	units map[string]systemd.UnitStatus
}

func newBuses(o Options) *buses { return &buses{opts: o, open: map[home]*manager{}} }

func (b *buses) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for h, m := range b.open {
		if m.conn != nil {
			m.conn.Close()
		}
		delete(b.open, h)
	}
}

// of connects to a systemd, once, and asks it for its units, once.
func (b *buses) of(ctx context.Context, h home) (*manager, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m := b.open[h]
	if m == nil {
		m = &manager{home: h}
		if m.err = m.connect(ctx, b.address(h)); m.err != nil {
			m.err = fmt.Errorf("%s: %w", h, m.err)
		}
		b.open[h] = m
	}
	return m, m.err
}

// address is where a systemd can be reached.
func (b *buses) address(h home) string {
	if h.user {
		if b.opts.UserBus != nil {
			return b.opts.UserBus(h.uid)
		}
		return fmt.Sprintf("unix:path=/run/user/%d/bus", h.uid)
	}
	if b.opts.SystemBus != "" {
		return b.opts.SystemBus
	}
	if address := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"); address != "" {
		return address
	}
	return "unix:path=/run/dbus/system_bus_socket"
}

func (m *manager) connect(ctx context.Context, address string) error {
	uid := os.Geteuid()
	if m.user {
		uid = m.uid
	}
	conn, err := systemd.NewConnection(func() (*dbus.Conn, error) {
		c, err := dialBus(ctx, address, uid)
		if m.raw == nil {
			m.raw = c
		}
		return c, err
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, busLimit)
	defer cancel()
	list, err := conn.ListUnitsContext(ctx)
	if err != nil {
		conn.Close()
		return fmt.Errorf("list its units: %w", err)
	}
	m.units = make(map[string]systemd.UnitStatus, len(list))
	for _, u := range list {
		m.units[u.Name] = u
	}
	m.conn = conn
	return nil
}

// unitOf asks for the unit of a process whose control group does not tell; ""
// if it has none.
func (m *manager) unitOf(ctx context.Context, pid int) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, busLimit)
	defer cancel()
	name, err := m.conn.GetUnitNameByPID(ctx, uint32(pid))
	var refused dbus.Error
	if errors.As(err, &refused) && refused.Name == "org.freedesktop.systemd1.NoUnitForPID" {
		return "", nil
	}
	return name, err
}

// unit is what is asked of a unit.
type unit struct {
	name              string
	active, sub       string // ActiveState, SubState
	result            string // of its last run: success, exit-code, …
	kind              string // its Type: simple, notify, oneshot, …
	mainPID           int
	restarts          int // how often systemd itself has restarted it
	job               bool
	canStart, refuses bool     // refuses: its file forbids to stop or start it by hand
	with              []string // units that systemd stops or restarts with it
}

// look asks for a unit's properties.
func (m *manager) look(ctx context.Context, name string) (unit, error) {
	ctx, cancel := context.WithTimeout(ctx, busLimit)
	defer cancel()
	u := unit{name: name}
	props, err := m.conn.GetUnitPropertiesContext(ctx, name)
	if err != nil {
		return u, fmt.Errorf("%s: %w", name, err)
	}
	u.active, _ = props["ActiveState"].(string)
	u.sub, _ = props["SubState"].(string)
	u.canStart, _ = props["CanStart"].(bool)
	for _, key := range []string{"RefuseManualStart", "RefuseManualStop"} {
		refuses, _ := props[key].(bool)
		u.refuses = u.refuses || refuses
	}
	for _, key := range []string{"RequiredBy", "BoundBy", "ConsistsOf"} { // systemd.unit(5): Requires=, BindsTo=, PartOf=
		names, _ := props[key].([]string)
		u.with = append(u.with, names...)
	}
	if job, ok := props["Job"].([]any); ok && len(job) > 0 {
		id, _ := job[0].(uint32)
		u.job = id != 0
	}
	if !strings.HasSuffix(name, ".service") {
		return u, nil
	}
	if props, err = m.conn.GetUnitTypePropertiesContext(ctx, name, "Service"); err != nil {
		return u, fmt.Errorf("%s: %w", name, err)
	}
	pid, _ := props["MainPID"].(uint32)
	restarts, _ := props["NRestarts"].(uint32)
	u.mainPID, u.restarts = int(pid), int(restarts)
	u.kind, _ = props["Type"].(string)
	u.result, _ = props["Result"].(string)
	return u, nil
}

// reexecute makes a systemd replace itself. It gives no answer, as the one who
// was asked is gone (org.freedesktop.systemd1(5), Reexecute).
func (m *manager) reexecute(ctx context.Context) error {
	call := m.raw.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1").
		GoWithContext(ctx, "org.freedesktop.systemd1.Manager.Reexecute", dbus.FlagNoReplyExpected, nil)
	return call.Err
}
