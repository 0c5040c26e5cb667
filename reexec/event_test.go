package reexec_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"moult.example/reexec"
)

// TestEventText wants events to read well in a log, and nothing in it that they
// do not have.
func TestEventText(t *testing.T) {
	for want, e := range map[string]reexec.Event{
		"generation 0: warning: odd":                                    {Kind: reexec.Warning, Err: errors.New("odd")},
		"generation 3: rejected: /opt/app/server: it is a script":       {Kind: reexec.Rejected, Generation: 3, Path: "/opt/app/server", Err: errors.New("it is a script")},
		"generation 4: ready: /server, after 1.235ms without accepting": {Kind: reexec.Readied, Generation: 4, Path: "/server", Gap: 1234567 * time.Nanosecond},
		"generation 4: ready: /server":                                  {Kind: reexec.Readied, Generation: 4, Path: "/server"},
	} {
		if got := fmt.Sprint(e); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
