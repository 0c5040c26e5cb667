package lab

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"moult.example/internal/testneed"
)

// callName is a system call in the left column of an explanation. How the data
// is copied depends on the file system: ioctl(FICLONE) or copy_file_range.
var callName = regexp.MustCompile(`(?m)(?:^|\s)(open|unlink|rename|renameat2|link|write|ftruncate|chmod|chown|` +
	`utimensat|fsync|syncfs|mkdir|symlink)(?:\(|,|\s\s|$)`)

// Each explanation fits eighty columns, and every system call that it names is
// made by the real tool, in that order.
func TestExplain(t *testing.T) {
	for _, name := range Names() {
		t.Run(name, func(t *testing.T) {
			e, err := Explain(name)
			if err != nil {
				t.Fatal(err)
			}
			calls, why, found := strings.Cut(e.Text, "\n\n")
			if !found || why == "" || calls == "" {
				t.Errorf("want calls, an empty line and reasons, got %q", e.Text)
			}
			for line := range strings.SplitSeq(e.Text, "\n") {
				if n := utf8.RuneCountInString(line); n > 80 {
					t.Errorf("%d columns, want at most 80: %s", n, line)
				}
			}
			testneed.Tool(t, "strace")
			trace, err := Trace(t.Context(), name, Options{Dir: t.TempDir(), Moult: moultFor(t, name)})
			if err != nil {
				t.Fatal(err)
			}
			at := 0
			for _, match := range callName.FindAllStringSubmatch(calls, -1) {
				want := match[1]
				// open is openat(2) here and chmod fchmodat(2), on another
				// machine perhaps not
				for at < len(trace) && !strings.Contains(strings.SplitN(trace[at], "(", 2)[0], want) {
					at++
				}
				if at == len(trace) {
					t.Errorf("no %s in the trace, or not in this order:\n%s", want, strings.Join(trace, "\n"))
					break
				}
			}
		})
	}
	if _, err := Explain("scp"); err == nil {
		t.Error("scp is explained, want an error")
	}
}

// moultFor is the moult of this tree for the methods that need one.
func moultFor(t *testing.T, method string) string {
	t.Helper()
	if !strings.HasPrefix(method, "moult") {
		return ""
	}
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
