package realtest

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

// service makes a release of a service of one version.
func (b *booted) service(version byte, config string) (release string) {
	b.Helper()
	release = b.path("service-" + itoa(int(version)))
	stamp(b, compile(b, "service", "service.c"), release+"/bin/app", version)
	writeFile(b, release+"/moult.toml", "name = \"app\"\n"+config, 0o644)
	return release
}

// TestSystemd: a systemd that really runs as process 1 recovers at boot, restarts
// what is stale, goes back, and follows a service that replaces itself.
func TestSystemd(t *testing.T) {
	b := newBooted(t)
	target := b.path("target")
	recovery, err := os.ReadFile("../../packaging/moult-recover.service")
	must(t, err)
	tree{
		"etc/units/basic.target.wants/moult-recover.service": "->../moult-recover.service",
		"etc/units/moult-recover.service":                    strings.ReplaceAll(string(recovery), "@bindir@", buildDir),
		"etc/units/app.service":                              "[Service]\nExecStart=" + target + "/bin/app\n",
		"etc/user-units/mine.service":                        "[Service]\nExecStart=" + target + "/bin/app\n",
		"etc/units/self.service":                             "[Service]\nType=notify\nNotifyAccess=all\nExecStart=" + b.path("self") + " -S -p 8080\n",
	}.write(t, b.dir)

	// The power fails when the new release is live and its hook runs.
	one := b.service(1, "")
	two := b.service(2, "[hooks]\nafter = \"test -e "+b.path("up")+" || kill -9 $PPID\"\n")
	b.ok("apply", one, target)
	if got := b.moult("apply", two, target); got.status != -1 {
		t.Fatalf("%v, want it killed", got)
	}
	b.status(4, "status", target)
	writeFile(t, b.path("up"), "", 0o644)
	b.boot()
	b.wantRecovered(target)

	b.ok("apply", one, target)
	b.wantRuns("before the restart", 2, 2)
	got := b.ok("restart", target)
	if !strings.Contains(got.stdout, "app.service") || !strings.Contains(got.stdout, "mine.service") {
		t.Errorf("%v, want it to name both services", got)
	}
	b.wantRuns("after the restart", 1, 1)
	b.ok("ps", "--check", target)

	// What does not start is not live in the end.
	b.status(4, "apply", b.service(9, ""), target, "--restart", "--health", "systemctl is-active app.service", "--health-timeout", "1s")
	b.wantRuns("after going back", 1, 1)
	b.ok("ps", "--check", target)

	// Who is not root restarts what is his own.
	b.ok("apply", two, target)
	if got := finish(t, b.user(moultBinary, "restart")); !strings.Contains(got.stdout, "mine.service") || strings.Contains(got.stdout, "app.service") {
		t.Errorf("%v, want mine.service restarted alone", got)
	}
	b.wantRuns("after a restart by the user", 1, 2)

	b.wantFollowed()
}

// wantRecovered wants the commit that was cut short to have been finished at boot,
// before the services of the target started.
func (b *booted) wantRecovered(target string) {
	b.Helper()
	if got := b.show("moult-recover.service", "Result"); got != "success" {
		b.Errorf("recovery at boot: %s", got)
	}
	var at [2]int // microseconds
	for i, property := range []string{"ExecMainExitTimestampMonotonic", "ExecMainStartTimestampMonotonic"} {
		var err error
		at[i], err = strconv.Atoi(b.show([]string{"moult-recover.service", "app.service"}[i], property))
		must(b, err)
	}
	if at[0] == 0 || at[0] > at[1] {
		b.Errorf("recovery ended at %d µs, the service began at %d", at[0], at[1])
	}
	b.ok("status", target)
	b.wantRuns("after the boot", 2, 2)
}

// wantRuns wants the services to run these versions: the system's, the user's.
func (b *booted) wantRuns(when string, app, mine int) {
	b.Helper()
	if a, m := b.runs("app.service"), b.runs("mine.service"); a != app || m != mine {
		b.Errorf("%s: the system's service runs version %d, the user's %d, want %d and %d", when, a, m, app, mine)
	}
}

// wantFollowed wants systemd to follow a service that hands over to a new process
// (sd_notify(3), MAINPID=), and not to start it again.
func (b *booted) wantFollowed() {
	b.Helper()
	for _, version := range []string{"1", "2"} {
		compile(b, "self-"+version, "../../../examples/c-server/server.c", "-I../../include", "-pthread", "-DVERSION=\""+version+"\"")
	}
	b.ok("install", buildDir+"/self-1", b.path("self"))
	if got := finish(b, b.inside("systemctl", "start", "self.service")); got.status != 0 {
		b.Fatal(got)
	}
	old := b.mainPID("self.service")
	b.ok("install", buildDir+"/self-2", b.path("self"))
	b.ok("restart")
	eventually(b, "systemd has followed", func() bool { return b.mainPID("self.service") != old })
	for property, want := range map[string]string{"ActiveState": "active", "NRestarts": "0", "StatusText": "generation 1"} {
		if got := b.show("self.service", property); got != want {
			b.Errorf("%s of the service: %q, want %q", property, got, want)
		}
	}
	if got := finish(b, b.inside("readlink", "/proc/"+old+"/exe")); got.status == 0 {
		b.Errorf("the old process still runs %s", got.stdout)
	}
}
