package release

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// RestartRule says how processes are brought to new code. A rule belongs to a
// process that everything in it matches which is not "": it has to have one
// pattern at least.
type RestartRule struct {
	Path    string `toml:"path" json:"path,omitempty"`       // pattern of its executable or a stale file: "bin/*", as in [FileRule]
	Unit    string `toml:"unit" json:"unit,omitempty"`       // pattern of its systemd unit: * stands for any text, ? for a letter
	Command string `toml:"command" json:"command,omitempty"` // likewise of its arguments, joined by spaces

	Run    []string `toml:"run" json:"run,omitempty"`       // the command that does it, without a shell; none leaves it to the unit or the program itself
	Reload bool     `toml:"reload" json:"reload,omitempty"` // the unit is to be reloaded if it can
	Leave  bool     `toml:"leave" json:"leave,omitempty"`   // it is to be left alone

	Timeout string   `toml:"timeout" json:"timeout,omitempty"` // how long it may take, as [time.ParseDuration] reads it; "" is the default
	Health  []string `toml:"health" json:"health,omitempty"`   // what has to hold afterwards; each as --health takes it
}

// Limits of rules: far beyond what anyone writes.
const (
	maxRules     = 256
	maxRule      = 4096     // bytes of each text
	maxRuleBytes = 64 << 10 // of all rules of a kind in a manifest
)

// Limit is how long it may take; 0 if the rule does not say.
func (r *RestartRule) Limit() time.Duration {
	d, _ := time.ParseDuration(r.Timeout) // check has refused what it cannot read
	return d
}

// Matches says that a process is the rule's: paths are those of its executable
// and of its stale files, of which one has to match, in the form that the
// patterns have.
func (r *RestartRule) Matches(paths []string, unit string, args []string) bool {
	pattern := strings.TrimPrefix(r.Path, "/")
	return (r.Path != "" || r.Unit != "" || r.Command != "") &&
		(r.Path == "" || slices.ContainsFunc(paths, func(p string) bool { return glob(pattern, strings.TrimPrefix(p, "/")) })) &&
		(r.Unit == "" || Wild(r.Unit, unit)) &&
		(r.Command == "" || Wild(r.Command, strings.Join(args, " ")))
}

// Wild says that a pattern matches a whole text: * stands for any bytes, none
// included, and ? for one. It takes at most as many steps as the product of
// their lengths.
func Wild(pattern, text string) bool {
	p, t := 0, 0
	star, mark := -1, 0 // the last *, and how much of the text it has taken
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == text[t]):
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// check returns the key that is wrong, and why.
func (r *RestartRule) check() (key string, err error) {
	for _, s := range []struct{ key, value string }{
		{"path", r.Path}, {"unit", r.Unit}, {"command", r.Command}, {"timeout", r.Timeout},
	} {
		if err := checkRuleText(s.value); err != nil {
			return s.key, err
		}
	}
	for _, list := range []struct {
		key    string
		values []string
	}{{"run", r.Run}, {"health", r.Health}} {
		if len(list.values) > maxRules {
			return list.key, fmt.Errorf("it has more than %d parts", maxRules)
		}
		for _, s := range list.values {
			if err := checkRuleText(s); err != nil {
				return list.key, err
			}
		}
	}
	switch {
	case r.Path == "" && r.Unit == "" && r.Command == "":
		return "", errors.New("it needs path, unit or command, or it would be for everything")
	case r.Leave && (r.Reload || len(r.Run) > 0):
		return "leave", errors.New("what is left alone is neither reloaded nor run")
	case r.Reload && len(r.Run) > 0:
		return "reload", errors.New("it is either reload or run")
	case len(r.Run) > 0 && r.Run[0] == "":
		return "run", errors.New("the program has no name")
	}
	if r.Path != "" {
		if err := checkGlob(strings.TrimPrefix(r.Path, "/")); err != nil {
			return "path", fmt.Errorf("%.80q: %w", r.Path, err)
		}
	}
	if r.Timeout != "" {
		if d, err := time.ParseDuration(r.Timeout); err != nil || d <= 0 {
			return "timeout", fmt.Errorf("%.40q is not a time such as \"30s\" or \"5m\"", r.Timeout)
		}
	}
	return "", nil
}

func checkRuleText(s string) error {
	if len(s) > maxRule || strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("a text has up to %d bytes and no NUL", maxRule)
	}
	return nil
}

// checkRules checks the rules of a release: their paths are those of the
// release, so they do not begin with a slash.
func checkRules(rules []RestartRule) (i int, key string, err error) {
	if len(rules) > maxRules {
		return 0, "", fmt.Errorf("there are more than %d rules", maxRules)
	}
	for i := range rules {
		if key, err := rules[i].check(); err != nil {
			return i, key, err
		}
		if strings.HasPrefix(rules[i].Path, "/") {
			return i, "path", fmt.Errorf("%.80q: a path of a release is relative to its target", rules[i].Path)
		}
	}
	return 0, "", nil
}

// ParseRestart reads rules that belong to no release: a TOML file with tables
// [[restart]] and nothing else, whose paths are absolute. Errors name path and
// line.
func ParseRestart(path string, text []byte) ([]RestartRule, error) {
	c := &Config{Path: path, lines: scanTOML(string(text))}
	var file struct {
		Restart []RestartRule `toml:"restart"`
	}
	md, err := toml.Decode(string(text), &file)
	if err != nil {
		return nil, c.tomlError(text, err)
	}
	if unknown := md.Undecoded(); len(unknown) > 0 {
		return nil, c.unknown(unknown[0], file)
	}
	if len(file.Restart) > maxRules {
		return nil, c.at(1, "there are more than %d rules", maxRules)
	}
	for i := range file.Restart {
		r := &file.Restart[i]
		if key, err := r.check(); err != nil {
			return nil, c.ruleError("restart", i, key, err)
		}
		if r.Path != "" && !strings.HasPrefix(r.Path, "/") && !strings.HasPrefix(r.Path, "**/") {
			return nil, c.ruleError("restart", i, "path", fmt.Errorf("%.80q: it begins with / or **/", r.Path))
		}
		if len(r.Run) > 0 && !strings.HasPrefix(r.Run[0], "/") {
			return nil, c.ruleError("restart", i, "run", fmt.Errorf("%.80q: the program's path is absolute", r.Run[0]))
		}
	}
	return file.Restart, nil
}
