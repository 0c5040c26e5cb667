package stale

import (
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Limits for what is looked at of one program's modules.
const (
	mostModules  = 2000 // names
	deepModules  = 3    // directories below that of the script
	mostHints    = 16
	mostJarParts = 256
)

// interpreters by the beginning of their names: the endings of what their
// scripts load, and the options that take an argument of their own or that take
// the place of a script.
var interpreters = []interpreterKind{
	{"python", []string{".py"}, "WX", "cm"},
	{"pypy", []string{".py"}, "WX", "cm"},
	{"perl", []string{".pm", ".pl"}, "", "eE"},
	{"ruby", []string{".rb"}, "IrC", "e"},
	{"php", []string{".php", ".inc"}, "cdz", "r"},
	{"node", []string{".js", ".mjs", ".cjs", ".json"}, "rC", "ep"},
	{"lua", []string{".lua"}, "l", "e"},
	{"tclsh", []string{".tcl"}, "", ""},
	{"bash", []string{".sh", ".bash"}, "oO", "c"},
	{"dash", []string{".sh"}, "o", "c"},
	{"ksh", []string{".sh"}, "o", "c"},
	{"zsh", []string{".sh", ".zsh"}, "o", "c"},
	{"sh", []string{".sh"}, "o", "c"},
	{"busybox", []string{".sh"}, "o", "c"},
}

type interpreterKind struct {
	name     string
	modules  []string
	argument string // options with an argument
	instead  string // options in place of a script
}

// hints are the files that an interpreter has probably read, and that are
// younger than the process. Nothing is executed to find out, and no search path
// is followed: only the script, what lies beside it, and Java's archives.
func (l *visit) hints() []Hint {
	kind, java := l.interpreter()
	if kind == nil && !java && l.script == nil {
		return nil
	}
	start, err := l.started()
	if err != nil {
		return nil
	}
	if java {
		return l.jarHints(start)
	}
	t := l.script
	if t == nil {
		name, ok := kind.script(l.arguments())
		if !ok {
			return nil
		}
		if t = l.fromHere(name); t == nil {
			return nil
		}
	}
	hints := l.hint(nil, KindScript, t, start)
	if kind != nil && t.root != nil {
		hints = l.moduleHints(hints, t, kind, start)
	}
	return hints
}

// interpreter recognises the executable by its name.
func (l *visit) interpreter() (kind *interpreterKind, java bool) {
	i := slices.IndexFunc(l.files, func(u used) bool { return u.kind == KindExe })
	if i < 0 {
		return nil, false
	}
	base := path.Base(strings.TrimSuffix(l.files[i].node.text, deletedSuffix))
	if base == "java" {
		return nil, true
	}
	for i := range interpreters {
		rest, ok := strings.CutPrefix(base, interpreters[i].name)
		if ok && strings.Trim(rest, "0123456789.-") == "" {
			return &interpreters[i], false
		}
	}
	return nil, false
}

// script finds the script among an interpreter's arguments.
func (k *interpreterKind) script(args []string) (string, bool) {
	if k.name == "busybox" && (len(args) == 0 || path.Base(args[0]) == "busybox") {
		args = args[min(1, len(args)):]
	}
	for i := 1; i < len(args); i++ {
		a := args[i]
		switch {
		case a == "" || a == "-":
			return "", false
		case a == "--":
			if i+1 < len(args) {
				return args[i+1], true
			}
			return "", false
		case strings.HasPrefix(a, "--") || a[0] == '+':
		case a[0] != '-':
			return a, true
		case strings.ContainsAny(a[1:], k.instead):
			return "", false
		case strings.Contains(k.argument, a[len(a)-1:]) && len(a) == 2:
			i++
		}
	}
	return "", false
}

// fromHere looks up a name that may start from the working directory.
func (l *visit) fromHere(name string) *target {
	relative := !strings.HasPrefix(name, "/")
	if relative {
		cwd, err := l.p.link("cwd")
		if err != nil {
			return nil
		}
		inside, ok := l.root.inside(cwd)
		if !ok {
			return nil
		}
		name = path.Join(inside, name)
	}
	if !loadable(name) {
		return nil
	}
	if l.Places != nil {
		name = l.Places.Live(name)
	}
	t, _ := l.lookUp(l.root, name)
	if relative && t != nil && missing(t.err) {
		return nil // the process may have gone elsewhere
	}
	return t
}

// hint adds one if the file is younger than the process, or gone.
func (l *visit) hint(hints []Hint, kind Kind, t *target, start int64) []Hint {
	h := Hint{Kind: kind, Path: t.path}
	switch {
	case len(hints) == mostHints:
		return hints
	case missing(t.err):
		h.Why = "it is not there any more"
	case t.err != nil || !t.regular():
		return hints
	case t.written > start:
		h.Since, h.Why = clock(t.written), "it was written to after the start of the process"
	case t.born > start:
		h.Since, h.Why = clock(t.born), "it was made after the start of the process"
	default:
		return hints
	}
	return append(hints, h)
}

// moduleHints looks at what lies beside the script and below. A directory of
// programs has no modules.
func (l *visit) moduleHints(hints []Hint, t *target, kind *interpreterKind, start int64) []Hint {
	dir := path.Dir(t.path)
	if base := path.Base(dir); base == "bin" || base == "sbin" || dir == "/" || strings.HasPrefix(dir+"/", "/tmp/") && strings.Count(dir, "/") == 1 {
		return hints
	}
	left := mostModules
	return l.modulesIn(hints, t, dir, kind, start, deepModules, &left)
}

func (l *visit) modulesIn(hints []Hint, script *target, dir string, kind *interpreterKind, start int64, deep int, left *int) []Hint {
	fd, err := script.root.open(dir, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return hints
	}
	defer unix.Close(fd)
	here, err := inspect(fd, "", 0)
	if err != nil {
		return hints
	}
	var below []string
	for e, err := range entries(fd) {
		if *left--; err != nil || *left < 0 || len(hints) == mostHints {
			break
		}
		name := string(e.name)
		full := path.Join(dir, name)
		f, err := inspect(fd, name, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case err != nil || name[0] == '.' || full == script.path:
		case f.mode&unix.S_IFMT == unix.S_IFDIR:
			if f.id.Dev == here.id.Dev { // what is mounted there may hang, and is not the script's
				below = append(below, full)
			}
		case slices.Contains(kind.modules, path.Ext(name)):
			hints = l.hint(hints, KindModule, &target{root: script.root, path: full, facts: f}, start)
		}
	}
	for _, sub := range below {
		if deep > 0 && *left > 0 && len(hints) < mostHints {
			hints = l.modulesIn(hints, script, sub, kind, start, deep-1, left)
		}
	}
	return hints
}

// jarHints looks at the archives that a Java program was started with.
func (l *visit) jarHints(start int64) (hints []Hint) {
	args := l.arguments()
	for i := 1; i < len(args); i++ {
		switch a := args[i]; {
		case a == "-jar" && i+1 < len(args):
			if t := l.fromHere(args[i+1]); t != nil {
				hints = l.hint(hints, KindScript, t, start)
			}
			return hints
		case (a == "-cp" || a == "-classpath" || a == "--class-path" || a == "-p" || a == "--module-path") && i+1 < len(args):
			i++
			for n, part := range strings.Split(args[i], ":") {
				if n == mostJarParts {
					break
				}
				if !strings.HasSuffix(part, ".jar") {
					continue
				}
				if t := l.fromHere(part); t != nil {
					hints = l.hint(hints, KindModule, t, start)
				}
			}
		case !strings.HasPrefix(a, "-"):
			return hints
		}
	}
	return hints
}
