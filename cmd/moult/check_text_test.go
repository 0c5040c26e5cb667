package main

import (
	"bytes"
	"strings"
	"testing"

	"moult.example/internal/deploy"
	"moult.example/internal/linkcheck"
)

// What could not be read is not called whole.
func TestLinkReportUnread(t *testing.T) {
	unread := []deploy.LinkUnread{{Path: "lib/a.so", Why: "permission denied"}}
	breaks := []deploy.LinkFinding{{Path: "bin/x", Severity: linkcheck.Break, Why: "needs y"}}
	for _, tt := range []struct {
		r    deploy.LinkReport
		want string
	}{
		{deploy.LinkReport{Programs: 1}, "1 program and 0 libraries judged: nothing broken, 0 warnings"},
		{deploy.LinkReport{Programs: 1, Unread: unread}, "1 program and 0 libraries judged: 1 file could not be read, nothing broken in the rest, 0 warnings"},
		{deploy.LinkReport{Programs: 1, Unread: unread, Findings: breaks}, "1 program and 0 libraries judged: 1 file could not be read, 1 broken, 0 warnings"},
	} {
		var b bytes.Buffer
		writeLinkReport(&b, &tt.r, false)
		lines := strings.Split(strings.TrimSpace(b.String()), "\n")
		if got := lines[len(lines)-1]; got != tt.want {
			t.Errorf("got %q, want %q", got, tt.want)
		}
	}
}
