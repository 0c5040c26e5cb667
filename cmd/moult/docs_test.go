package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// documents are the pages whose commands are tried and whose words are checked,
// seen from this directory.
func documents(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	return append(names, "../../README.md", "../../DESIGN.md", "../../CHANGELOG.md", "../../CONTRIBUTING.md")
}

// TestDocs runs the commands of the documents, as they stand there, and compares
// what they print with what the documents show.
//
// A block "```console run" holds commands after "$ ", and after each what it
// prints; a line "..." stands for any lines. A command has to end with status 0,
// or with that of a comment "# status N" at its end. A block "```sh run" holds
// commands only. A comment "<!-- run" holds commands that the reader does not
// see, which lay out what the others need. All blocks below one heading are one
// shell in one empty directory, where /opt, /usr/local and the like are
// directories of its own.
func TestDocs(t *testing.T) {
	tried := 0
	for _, name := range documents(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range docSections(string(text)) {
			tried += len(s.commands)
			t.Run(filepath.Base(name)+"/"+s.heading, func(t *testing.T) {
				t.Parallel()
				s.try(t)
			})
		}
	}
	if tried < 20 {
		t.Errorf("%d commands to try in the documents, want more: are the blocks still marked?", tried)
	}
}

// docCommand is one command of a document.
type docCommand struct {
	line   int    // where it stands
	text   string // as it stands there
	want   string // what the document shows
	quiet  bool   // nothing is shown, since it is no "console" block
	status int
}

// docSection are the commands below one heading.
type docSection struct {
	heading  string
	commands []docCommand
}

var docStatus = regexp.MustCompile(`# status (\d+)$`)

// docSections finds the commands of a document.
func docSections(text string) []docSection {
	var sections []docSection
	now := docSection{}
	end := func() {
		if len(now.commands) > 0 {
			sections = append(sections, now)
		}
	}
	kind := ""     // of the block that we are in
	var body []int // its lines
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		switch {
		case kind == "" && strings.HasPrefix(line, "#"):
			end()
			now = docSection{heading: strings.Trim(line, "# ")}
		case kind == "" && (strings.HasPrefix(line, "```") || line == "<!-- run"):
			kind, body = line, nil
		case kind != "" && (line == "```" || line == "-->" && kind == "<!-- run"):
			now.commands = append(now.commands, docBlock(kind, lines, body)...)
			kind = ""
		case kind != "":
			body = append(body, i)
		}
	}
	end()
	return sections
}

// docBlock takes a block apart.
func docBlock(kind string, lines []string, body []int) (commands []docCommand) {
	switch kind {
	case "<!-- run", "```sh run":
		var text []string
		for _, i := range body {
			text = append(text, lines[i])
		}
		return []docCommand{{line: body[0] + 1, text: strings.Join(text, "\n"), quiet: true}}
	case "```console run":
		for _, i := range body {
			text, isCommand := strings.CutPrefix(lines[i], "$ ")
			if isCommand {
				c := docCommand{line: i + 1, text: text}
				if m := docStatus.FindStringSubmatch(text); m != nil {
					c.status, _ = strconv.Atoi(m[1])
				}
				commands = append(commands, c)
			} else if len(commands) > 0 {
				commands[len(commands)-1].want += lines[i] + "\n"
			}
		}
	}
	return commands
}

// docRoots are the directories of the host that the commands get their own of.
var docRoots = regexp.MustCompile(`(^|[\s"'=(>:])(/opt|/usr/local|/srv|/etc)\b`)

// try runs the commands of a section.
func (s docSection) try(t *testing.T) {
	base := t.TempDir()
	for _, dir := range []string{"work", "out", "opt", "usr", "srv", "etc"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// One shell for all, in which each command leaves what it prints and how it
	// ends.
	var script strings.Builder
	for i, c := range s.commands {
		text := docRoots.ReplaceAllString(c.text, "${1}"+base+"${2}")
		if c.quiet {
			text = "set -e\n" + text + "\nset +e"
		}
		fmt.Fprintf(&script, "{\n%s\n} >%s/out/%d 2>&1 </dev/null\necho $? >%[2]s/out/%[3]d.status\n", text, base, i)
	}
	script.WriteString("exit 0\n")
	sh := exec.Command("bash", "-c", script.String())
	sh.Dir = filepath.Join(base, "work")
	// With the race detector a program sleeps a second before it ends, unless
	// GORACE says otherwise.
	sh.Env = append(os.Environ(), "MOULT_STATE_DIR="+base+"/state", "SUDO_USER=ann", "TZ=UTC", "LC_ALL=C.UTF-8", "TERM=dumb",
		"MAKEFLAGS=", "GORACE=atexit_sleep_ms=0")
	sh.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	sh.WaitDelay = time.Second
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}
	// What runs in the background ends with the section.
	defer syscall.Kill(-sh.Process.Pid, syscall.SIGKILL)
	timer := time.AfterFunc(2*limit, func() { syscall.Kill(-sh.Process.Pid, syscall.SIGKILL) })
	defer timer.Stop()
	_ = sh.Wait() // a command that has ended it has left no status
	for i, c := range s.commands {
		out, _ := os.ReadFile(fmt.Sprintf("%s/out/%d", base, i))
		status, err := os.ReadFile(fmt.Sprintf("%s/out/%d.status", base, i))
		got := strings.ReplaceAll(string(out), base, "")
		if err != nil || strings.TrimSpace(string(status)) != strconv.Itoa(c.status) {
			t.Fatalf("line %d: %s\nended with status %q, want %d, and printed:\n%s", c.line, c.text, strings.TrimSpace(string(status)), c.status, got)
		}
		if !c.quiet && !sameDoc(got, c.want) {
			t.Errorf("line %d: %s\nprinted:\n%s\nwant:\n%s", c.line, c.text, got, c.want)
		}
	}
}

// What may differ between the document's run and this one: the release ids
// (which follow from this host's programs), times, sizes, process ids, and the
// width of columns.
var docVaries = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "DIGEST"},
	{regexp.MustCompile(`\b[0-9a-f]{12,13}\b`), "ID"},
	{regexp.MustCompile(`\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?Z?`), "TIME"},
	{regexp.MustCompile(`\b\d+(\.\d+)? (B|kB|MB|GB)\b`), "SIZE"},
	{regexp.MustCompile(`("(copy_)?bytes": )\d+`), "${1}N"},
	{regexp.MustCompile(`/proc/\d+/`), "/proc/PID/"},
	{regexp.MustCompile(`\bpid \d+`), "pid PID"},
	{regexp.MustCompile(`(?m)^ *PID  .*$`), "COLUMNS"}, // there is one more where processes have a unit
	{regexp.MustCompile(`(?m)^ *\d+  \S+ +\d+[smhd] ago .*$`), "A PROCESS"},
	{regexp.MustCompile(`\b\d+[smhd] ago\b`), "AGO"},
	{regexp.MustCompile(`\b\d+ looked at\b`), "N looked at"},
	{regexp.MustCompile(` that could be looked into runs`), " runs"}, // to others than root
	{regexp.MustCompile(`\bbuild [0-9a-f]{8} → [0-9a-f]{8}\b`), "build ID → ID"},
	{regexp.MustCompile(`[ \t]+`), " "},
}

func docNormal(text string) []string {
	for _, v := range docVaries {
		text = v.what.ReplaceAllString(text, v.with)
	}
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		lines = append(lines, strings.TrimSpace(line))
	}
	return lines
}

// sameDoc compares what was printed with what the document shows.
func sameDoc(got, want string) bool { return matchLines(docNormal(got), docNormal(want)) }

func matchLines(got, want []string) bool {
	for len(want) > 0 {
		if want[0] == "..." {
			for i := range len(got) + 1 {
				if matchLines(got[i:], want[1:]) {
					return true
				}
			}
			return false
		}
		if len(got) == 0 || got[0] != want[0] {
			return false
		}
		got, want = got[1:], want[1:]
	}
	return len(got) == 0
}

// The comparison can fail.
func TestSameDoc(t *testing.T) {
	for _, c := range []struct {
		got, want string
		same      bool
	}{
		{"a 12 kB\nb\n", "a 7 B\nb", true},
		{"release 0123456789ab\n", "release ba9876543210\n", true},
		{"generation 1\n", "generation 2\n", false},
		{"a\nb\nc\n", "a\n...\nc\n", true},
		{"a\nb\n", "a\n...\nc\n", false},
		{"a\nb\n", "a\n", false},
		{"a\n", "a\nb\n", false},
		{"", "", true},
		{"a\n", "", false},
	} {
		if got := sameDoc(c.got, c.want); got != c.same {
			t.Errorf("%q for %q: the same is %v, want %v", c.got, c.want, got, c.same)
		}
	}
}

// planned are commands that the documents may speak of and that are not there
// yet; a document has to say so.
var planned = []string{}

var (
	docCall = regexp.MustCompile("(?:^|[`\\s(|&;=\"/])moult ([a-z]+)([^`\"|&;)\n]*)")
	docFlag = regexp.MustCompile(`(?:^|[\s\[])(--?[a-zA-Z][a-z-]*)`)
	docLink = regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]*)?\)`)
)

// Commands and flags that the documents name are there.
func TestDocsNames(t *testing.T) {
	root := newRootCommand(newApp(nil, nil, nil, nil), "")
	root.InitDefaultHelpCmd()
	for _, name := range documents(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(string(text), "\n") {
			// In prose only what is set as code is a command.
			if !strings.HasPrefix(line, "$ ") && !strings.HasPrefix(line, "    ") {
				line = strings.Join(inlineCode.FindAllString(line, -1), " ")
			}
			for _, call := range docCall.FindAllStringSubmatch(line, -1) {
				if slices.Contains(planned, call[1]) {
					continue
				}
				cmd, _, err := root.Find([]string{call[1]})
				if err != nil || cmd == root {
					t.Errorf("%s:%d: there is no command %s", name, i+1, call[1])
					continue
				}
				args, _, _ := strings.Cut(call[2], "#")
				for _, flag := range docFlag.FindAllStringSubmatch(args, -1) {
					if !knowsFlag(cmd, flag[1]) {
						t.Errorf("%s:%d: moult %s has no flag %s", name, i+1, call[1], flag[1])
					}
				}
			}
		}
	}
}

var inlineCode = regexp.MustCompile("`[^`]+`")

func knowsFlag(cmd *cobra.Command, flag string) bool {
	name := strings.TrimLeft(flag, "-")
	if strings.HasPrefix(flag, "--") {
		return cmd.Flags().Lookup(name) != nil || cmd.Root().PersistentFlags().Lookup(name) != nil
	}
	for _, c := range name {
		if cmd.Flags().ShorthandLookup(string(c)) == nil && cmd.Root().PersistentFlags().ShorthandLookup(string(c)) == nil {
			return false
		}
	}
	return true
}

// Links between the documents lead somewhere.
func TestDocsLinks(t *testing.T) {
	for _, name := range documents(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, link := range docLink.FindAllStringSubmatch(string(text), -1) {
			if strings.Contains(link[1], "://") {
				continue
			}
			to := name
			if link[1] != "" {
				to = filepath.Join(filepath.Dir(name), link[1])
			}
			if _, err := os.Stat(to); err != nil {
				t.Errorf("%s: the link to %s leads nowhere", name, link[1])
			}
			if page, err := os.ReadFile(to); link[2] != "" && (err != nil || !slices.Contains(anchors(string(page)), link[2][1:])) {
				t.Errorf("%s: %s has no heading for %s", name, to, link[2])
			}
		}
	}
}

// anchors are what the headings of a page are called in links.
func anchors(page string) []string {
	var all []string
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "#") {
			continue
		}
		heading := strings.ToLower(strings.Trim(line, "# \n"))
		heading = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(heading, "")
		all = append(all, strings.ReplaceAll(heading, " ", "-"))
	}
	return all
}
