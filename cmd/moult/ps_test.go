package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"moult.example/internal/stale"
)

// psNow is the time of the reports below.
var psNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// psReport is what Find could say of a busy host.
func psReport() stale.Report {
	before := func(d time.Duration) time.Time { return psNow.Add(-d) }
	was := stale.Origin{Target: "/opt/app", Product: "app", Version: "1.0", Generation: 1, Release: strings.Repeat("a", 64)}
	is := was
	is.Version, is.Generation = "2.0", 2
	app := func(kind stale.Kind, name string) stale.File {
		return stale.File{
			Path: "/opt/app/" + name, Mapped: "/opt/app/.moult/generations/1/" + name, Kind: kind, Verdict: stale.Stale, Since: before(3 * time.Minute),
			Why: "generation 1 is not live", Runs: was, Gets: is,
		}
	}
	worker := func(pid int) stale.Process {
		return stale.Process{
			PID: pid, Ticks: 100, Start: before(26 * time.Hour), UID: 33, User: "www-data", Comm: "server", Command: []string{"/opt/app/bin/server", "--worker", "--port=8080"},
			Unit: stale.Unit{Name: "app.service"}, Runs: was, Gets: is,
			Files: []stale.File{app(stale.KindExe, "bin/server"), app(stale.KindLibrary, "lib/libapp.so.1"), app(stale.KindLibrary, "lib/libjson.so.3"), app(stale.KindLibrary, "lib/plugin.so")},
		}
	}
	return stale.Report{
		Scanned: 214, Unreadable: []int{1, 2, 3},
		Processes: []stale.Process{
			worker(4711), worker(4712), worker(4713),
			{
				PID: 900, Ticks: 50, Start: before(72 * time.Hour), UID: 0, User: "root", Comm: "sshd", Command: []string{"sshd: /usr/sbin/sshd -D [listener]"},
				Unit: stale.Unit{Name: "ssh.service"}, Reexec: &stale.Reexec{Signal: 12, Generation: 2, Rejected: 1, Starting: true},
				Files: []stale.File{
					{Path: "/usr/lib/x86_64-linux-gnu/libcrypto.so.3", Mapped: "/usr/lib/x86_64-linux-gnu/libcrypto.so.3 (deleted)", Kind: stale.KindLibrary, Verdict: stale.Stale, Since: before(5 * time.Hour), Why: "another file has its name", RunsBuildID: "3f2a91c04b1e", GetsBuildID: "8e11b02d33c0"},
					{Path: "/usr/lib/libold.so", Mapped: "/usr/lib/libold.so (deleted)", Kind: stale.KindLibrary, Verdict: stale.Gone, Why: "there is no such file any more", RunsBuildID: "0123456789"},
				},
			},
			{
				PID: 5000, Ticks: 60, Start: before(10 * time.Second), UID: 1000, User: "", Comm: "evil\x1b[2J", Command: []string{"x\x1b[31m\nPID"}, Container: stale.Container{Engine: "docker", Name: strings.Repeat("4f", 32)},
				Files: []stale.File{{Path: "/app/lib\n.so", Mapped: "/app/lib\n.so", Kind: stale.KindLibrary, Verdict: stale.Corrupt, Why: "the file ends before what is mapped of it: touching the rest is SIGBUS"}},
			},
			{
				PID: 6000, Ticks: 61, Start: before(50 * 24 * time.Hour), UID: 1000, User: "ann", Comm: "python3", Command: []string{"python3", "/srv/app/main.py"},
				Hints:  []stale.Hint{{Kind: stale.KindScript, Path: "/srv/app/main.py", Since: before(time.Hour), Why: "changed after the process was started"}},
				Reexec: &stale.Reexec{Signal: 12, Generation: 1},
			},
		},
		Held:      []stale.HeldFile{{Path: "/usr/lib/x86_64-linux-gnu/libcrypto.so.3 (deleted)", Bytes: 4700000, PIDs: []int{900}, Since: before(5 * time.Hour)}},
		HeldBytes: 4700000,
	}
}

// TestPSView compares the whole text, as on a terminal of eighty columns.
func TestPSView(t *testing.T) {
	for file, v := range map[string]psView{
		"table.txt":   {width: 80},
		"wide.txt":    {width: 160},
		"pipe.txt":    {},
		"verbose.txt": {width: 80, verbose: true},
		"space.txt":   {width: 80, space: true},
	} {
		var f psFlags
		f.sort = "verdict"
		text := strings.Join(v.lines(f.pick(psReport(), psNow), &f), "\n") + "\n"
		golden(t, "testdata/ps/"+file, text)
		for line := range strings.Lines(text) {
			line = strings.TrimSuffix(line, "\n")
			if n := utf8.RuneCountInString(line); v.width > 0 && !v.verbose && n > v.width {
				t.Errorf("%s: %d columns, want %d at most: %q", file, n, v.width, line)
			}
			if plain(line) != line && strings.IndexFunc(line, notShown) >= 0 {
				t.Errorf("%s: %q can do something to a terminal", file, line)
			}
		}
	}
}

// TestPSFilters wants that a target, a unit and an order pick and sort.
func TestPSFilters(t *testing.T) {
	for _, c := range []struct {
		flags psFlags
		want  string
	}{
		{psFlags{sort: "verdict"}, "5000 900 4711 4712 4713 | 6000"},
		{psFlags{sort: "pid"}, "900 4711 4712 4713 5000 | 6000"},
		{psFlags{sort: "start"}, "900 4711 4712 4713 5000 | 6000"},
		{psFlags{sort: "user"}, "5000 900 4711 4712 4713 | 6000"},
		{psFlags{sort: "unit"}, "5000 4711 4712 4713 900 | 6000"},
		{psFlags{sort: "pid", unit: "app"}, "4711 4712 4713 |"},
		{psFlags{sort: "pid", unit: "app.service"}, "4711 4712 4713 |"},
		{psFlags{sort: "pid", unit: "s*"}, "900 |"},
		{psFlags{sort: "pid", targets: []string{"/opt/app"}}, "4711 4712 4713 |"},
		{psFlags{sort: "pid", targets: []string{"/srv"}}, "| 6000"},
		{psFlags{sort: "pid", targets: []string{"/usr/lib"}}, "900 |"},
		{psFlags{sort: "pid", targets: []string{"/us"}}, "|"},
	} {
		found := c.flags.pick(psReport(), psNow)
		var parts []string
		for _, p := range found.old {
			parts = append(parts, itoa(p.PID))
		}
		parts = append(parts, "|")
		for _, p := range found.suspect {
			parts = append(parts, itoa(p.PID))
		}
		if got := strings.Join(parts, " "); got != c.want {
			t.Errorf("%+v: %s, want %s", c.flags, got, c.want)
		}
	}
}

func itoa(n int) string { b, _ := json.Marshal(n); return string(b) }

// TestPSDocument wants a document whose names come back as the bytes that they
// were.
func TestPSDocument(t *testing.T) {
	report := psReport()
	report.Processes[4].Files[0].Path = "/a\xff\\b"
	f := psFlags{sort: "verdict"}
	text, err := document(psDocumentOf(f.pick(report, psNow), &f))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/ps/document.json", string(text))
	var d struct {
		Schema    int
		Processes []struct {
			PID   int
			Files []psFile
		}
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	if got := string(d.Processes[0].Files[0].Path); d.Schema != 1 || d.Processes[0].PID != 5000 || got != "/a\xff\\b" {
		t.Errorf("schema %d, first process %d, path %q", d.Schema, d.Processes[0].PID, got)
	}
}

// TestPSChanges wants each process marked by what has happened to it.
func TestPSChanges(t *testing.T) {
	p := func(pid int, ticks uint64, path string) stale.Process {
		return stale.Process{PID: pid, Ticks: ticks, Files: []stale.File{{Path: path, Verdict: stale.Stale}}}
	}
	last := []stale.Process{p(1, 1, "/a"), p(2, 1, "/a"), p(3, 1, "/a"), p(4, 1, "/a")}
	now := []stale.Process{p(1, 1, "/a"), p(2, 1, "/b"), p(3, 9, "/a"), p(5, 1, "/a")}
	over, marks := psChanges(last, now)
	want := map[psID]psMark{{2, 1}: markOther, {3, 9}: markNew, {5, 1}: markNew, {3, 1}: markOver, {4, 1}: markOver}
	if len(over) != 2 || len(marks) != len(want) {
		t.Errorf("%d processes over, marks %v, want 2 and %v", len(over), marks, want)
	}
	for id, m := range want {
		if marks[id] != m {
			t.Errorf("%v is marked %d, want %d", id, marks[id], m)
		}
	}
	// What is over is shown, and no longer counted.
	v := psView{width: 80, marks: marks, over: over, order: "pid"}
	text := strings.Join(v.lines(psFound{Report: stale.Report{Scanned: 9}, old: now, at: psNow}, &psFlags{}), "\n")
	for _, want := range []string{"\n      1  ", "\n~     2  ", "\n-     3  ", "\n+     3  ", "\n-     4  ", "\n+     5  ", "\n4 processes run old code: 4 STALE; 9 looked at."} {
		if !strings.Contains(text, want) {
			t.Errorf("the view has no %q:\n%s", want, text)
		}
	}
}

// TestPSFileView compares what is said of a file that is in use.
func TestPSFileView(t *testing.T) {
	r := &stale.FileReport{
		Path: "/usr/lib/libfoo.so.1", Links: 2, Unreadable: []int{7},
		Users: []stale.FileUser{
			{PID: 4711, Start: psNow.Add(-time.Hour), UID: 33, User: "www-data", Command: []string{"server"}, Uses: []stale.FileUse{{Way: stale.WayLibrary, FD: -1}, {Way: stale.WayRead, FD: 3}, {Way: stale.WayRead, FD: 4}}},
			{PID: 4712, Start: psNow.Add(-time.Hour), UID: 0, User: "root", Command: []string{"cp"}, Uses: []stale.FileUse{{Way: stale.WayWrite, FD: 4, Lock: "FLOCK WRITE"}}},
		},
		Overwrite: stale.Advice{Why: "1 process runs code of it, which would change below it: it would crash"},
		Rename:    stale.Advice{Safe: true, Why: "who has it keeps the old file"},
		Delete:    stale.Advice{Safe: true, Why: "who has it keeps it; but what is started later does not find it"},
	}
	v := psView{width: 80}
	older := psEarlier{pids: []int{4600, 4601}}
	golden(t, "testdata/ps/file.txt", strings.Join(v.fileLines(r, older, psNow), "\n")+"\n")
	text, err := document(psFileDocumentOf([]*stale.FileReport{r}, []psEarlier{older}, psNow))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/ps/file.json", string(text))
}
