package restart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"moult.example/internal/restart/restarttest"
	"moult.example/internal/stale"
)

// limit is how long a test waits for what must come.
const limit = 5 * time.Minute

// inVain is how long it waits for what does not come: three seconds, and longer
// where a machine is so busy that a shell takes a hundredth part of that.
func inVain(t *testing.T) time.Duration {
	t.Helper()
	slowest := time.Duration(0)
	for range 3 {
		began := time.Now()
		if err := exec.Command("/bin/sh", "-c", "exit 0").Run(); err != nil {
			t.Fatal(err)
		}
		slowest = max(slowest, time.Since(began))
	}
	return max(3*time.Second, 100*slowest).Round(time.Second)
}

func TestMain(m *testing.M) {
	if text := os.Getenv("MOULT_TEST_PROBE"); text != "" {
		p, err := ParseProbe(text)
		if err == nil {
			err = p.Try(context.Background())
		}
		panic(err) // it was to be killed
	}
	status := m.Run()
	restarttest.RemoveServers()
	restarttest.RemoveGroups()
	os.Exit(status)
}

// host is a systemd of our own, programs in a directory, and the options to
// restart them. Everything in it is real but systemd itself and what the test
// says of units and containers.
type host struct {
	*restarttest.Systemd
	t    *testing.T
	dir  string
	opts Options

	alter func(*stale.Process) // what is said of a process that was found
}

func newHost(t *testing.T) *host {
	h := &host{Systemd: restarttest.Start(t, -1), t: t, dir: t.TempDir(), alter: func(*stale.Process) {}}
	h.opts = Options{
		Find: h.find, SystemBus: h.Address, Timeout: limit, HealthLimit: limit,
		Linger: limit, Proc: t.TempDir(), // nothing is known of ourselves
	}
	return h
}

// find is stale.Find for the programs of this host, with the units that its
// systemd knows.
func (h *host) find(ctx context.Context, pids []int) (*stale.Report, error) {
	report, err := stale.Find(ctx, stale.Options{PIDs: pids, Places: pinned{}})
	if err != nil {
		return nil, err
	}
	report.Processes = slices.DeleteFunc(report.Processes, func(p stale.Process) bool { return !below(p.Exe, h.dir) })
	for i := range report.Processes {
		p := &report.Processes[i]
		p.Unit, p.Container = stale.Unit{Name: h.UnitOf(p.PID)}, stale.Container{}
		h.alter(p)
	}
	return report, nil
}

// pinned stands for a target: what is below pinned should come from current.
type pinned struct{}

func (pinned) Live(path string) string {
	return strings.Replace(path, "/pinned/", "/current/", 1)
}
func (pinned) Origin(string) (stale.Origin, bool) { return stale.Origin{}, false }

// program puts a version of the server at a name of the host.
func (h *host) program(name, version string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.t.Fatal(err)
	}
	restarttest.Server(h.t, path, version, "200 OK")
	return path
}

// service adds a unit that runs version 1 of a program of its own.
func (h *host) service(name string, change func(*restarttest.Unit), verbs ...string) {
	h.t.Helper()
	path := h.program(strings.TrimSuffix(name, ".service"), "1")
	u := restarttest.Unit{Name: name, Argv: append([]string{path}, verbs...)}
	if change != nil {
		change(&u)
	}
	h.Add(u)
}

// upgrade replaces programs by version 2.
func (h *host) upgrade(names ...string) {
	h.t.Helper()
	for _, name := range names {
		h.program(name, "2")
	}
}

// start starts a program outside of systemd.
func (h *host) start(path string, verbs ...string) int {
	h.t.Helper()
	cmd := exec.Command(path, verbs...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	h.t.Cleanup(func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); <-ended })
	return cmd.Process.Pid
}

func (h *host) plan() *Plan {
	h.t.Helper()
	plan, err := MakePlan(h.t.Context(), h.opts)
	if err != nil {
		h.t.Fatal(err)
	}
	return plan
}

// run plans and runs.
func (h *host) run() (*Result, error) {
	h.t.Helper()
	return Run(h.t.Context(), h.opts, h.plan())
}

// steps are the steps of a plan: "unit a.service", "signal tool, process 7".
func steps(plan *Plan) string {
	var all []string
	for _, s := range plan.Steps {
		all = append(all, string(s.Method)+" "+s.Name)
	}
	return strings.Join(all, "; ")
}

// states are what has become of the steps.
func states(r *Result) string {
	var all []string
	for _, o := range r.Steps {
		all = append(all, o.Name+" "+string(o.State))
	}
	return strings.Join(all, "; ")
}

// left are who is left alone: "server unknown".
func left(plan *Plan) string {
	var all []string
	for _, l := range plan.Left {
		all = append(all, l.Comm+" "+string(l.Reason))
	}
	slices.Sort(all)
	return strings.Join(all, "; ")
}

// want compares texts.
func want(t *testing.T, what, got, wanted string) {
	t.Helper()
	if got != wanted {
		t.Errorf("%s: got %q, want %q", what, got, wanted)
	}
}

// wantErr compares an error with a sentinel, nil for none, and a part of its
// text.
func wantErr(t *testing.T, got, sentinel error, part string) {
	t.Helper()
	if !errors.Is(got, sentinel) || got != nil && !strings.Contains(got.Error(), part) {
		t.Errorf("got error %v, want %v with %q", got, sentinel, part)
	}
}

// runs wants a process to execute what is at path now, or what was.
func runs(t *testing.T, pid int, path string, now bool) {
	t.Helper()
	exe, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		t.Error(err)
		return
	}
	file, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if os.SameFile(exe, file) != now {
		t.Errorf("process %d executes what is at %s: %v, want %v", pid, path, !now, now)
	}
}
