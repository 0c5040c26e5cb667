package lab

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
)

//go:embed explain
var explanations embed.FS

// Explanation is what a method does and why that has the effect that it has.
type Explanation struct {
	Method  string `json:"method"`
	Title   string `json:"title"`
	Command string `json:"command"`
	Text    string `json:"text"` // the system calls, an empty line, the reasons
}

// Explain returns the explanation of a method, by name or title. The calls are
// those of GNU coreutils 9.1 and rsync 3.5.0; Trace shows those of this host.
func Explain(name string) (Explanation, error) {
	m := find(name)
	if m == nil {
		return Explanation{}, &UnknownMethodError{Name: name}
	}
	text, err := explanations.ReadFile("explain/" + m.name + ".txt")
	if err != nil {
		return Explanation{}, err
	}
	return Explanation{m.name, m.title, m.people(), strings.TrimRight(string(text), "\n")}, nil
}

// Trace replaces a small file, or release, by the method under strace, and
// returns the calls that touched it, as strace prints them. Nothing is
// running meanwhile.
func Trace(ctx context.Context, name string, opt Options) ([]string, error) {
	m := find(name)
	if m == nil {
		return nil, &UnknownMethodError{Name: name}
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		return nil, err
	}
	l := &lab{opt: opt, method: m}
	if err := l.open(); err != nil {
		return nil, err
	}
	defer os.RemoveAll(l.dir)
	if err := l.survey(ctx); err != nil {
		return nil, err
	}
	if why := l.missing(ctx, m); why != "" {
		return nil, fmt.Errorf("%s: %s", m.title, why)
	}
	script, one, two, err := l.small(ctx)
	if err != nil {
		return nil, err
	}
	log := filepath.Join(l.dir, "trace")
	out, err := l.tool(ctx, strace, "-f", "-qq", "-y", "-o", log, "-s", "16", "-e", "trace=%file,%desc",
		"sh", "-euc", "umask 022; "+script, "sh", one, two)
	if err != nil {
		return nil, fmt.Errorf("strace: %s", reason(out, err))
	}
	data, err := os.ReadFile(log)
	if err != nil {
		return nil, err
	}
	return l.changes(string(data)), nil
}

// small makes two small files, or two small releases of which the first is
// applied, and returns the script and its arguments.
func (l *lab) small(ctx context.Context) (script, one, two string, err error) {
	for i, tree := range []string{"old", "new"} {
		dir := filepath.Join(l.dir, tree)
		for _, file := range []string{exeFile, libFile} {
			path := filepath.Join(dir, file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return "", "", "", err
			}
			if err := os.WriteFile(path, []byte(strings.Repeat(tree+" ", 5000*(i+1))), 0o755); err != nil {
				return "", "", "", err
			}
		}
	}
	if l.method.layout == "" {
		return l.method.one, filepath.Join(l.dir, "new", libFile), filepath.Join(l.dir, "old", libFile), nil
	}
	target := filepath.Join(l.dir, "target")
	out, err := l.shell(ctx, `"$MOULT" apply --layout `+l.method.layout+` "$1" "$2"`, filepath.Join(l.dir, "old"), target)
	if err != nil {
		return "", "", "", fmt.Errorf("first apply: %s", reason(out, err))
	}
	return l.method.set, filepath.Join(l.dir, "new"), target, nil
}

// pattern compiles an expression when it is first needed, not at every start of
// moult.
func pattern(text string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })
}

// looks are the calls that change nothing and move no data.
var looks = pattern(`^(execve|access|faccessat2?|[a-z]*stat[a-z0-9]*|statx|readlink(at)?|getdents64|` +
	`lseek|fadvise64|read|pread64|mmap|fcntl|flock|dup[23]?|[fl]?getxattr|[fl]?listxattr|[fl]?removexattr|close|epoll_[a-z_0-9]*|` +
	`getcwd|chdir|fchdir|poll|open(at2?)?\(.*O_PATH|open(at2?)?\([^"]*"[^"]*", (\{flags=)?O_RDONLY)\b`)

// vain are attempts to make what is there and to remove what is not.
var vain = pattern(`^(mkdir|unlink)(at)?\(.* = -1 E(EXIST|NOENT)\b`)

// noise and times are what strace adds to a call and nobody reads.
var noise = strings.NewReplacer("AT_FDCWD, ", "", " <unfinished ...>", "")
var times = pattern(`\[\{tv_sec.*\}( /\*.*\*/)?\]`)

// changes are the calls below the work directory that change something, with
// names as seen from there.
func (l *lab) changes(log string) []string {
	var calls []string
	for line := range strings.Lines(log) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), " ") // the process number
		line = strings.TrimSpace(line)
		if looks().MatchString(line) || vain().MatchString(line) || !strings.Contains(line, l.dir+"/") || strings.HasPrefix(line, "<...") {
			continue
		}
		line = strings.ReplaceAll(line, l.dir+"/", "")
		line = strings.ReplaceAll(line, "AT_FDCWD<"+l.dir+">", "AT_FDCWD")
		calls = append(calls, times().ReplaceAllString(noise.Replace(line), "[times]"))
	}
	return calls
}
