package release

import (
	"fmt"
	"maps"
	"strings"
)

// excludes says that an entry, and what is below it, is not shipped.
func (c *Config) excludes(path string) bool {
	if c == nil {
		return false
	}
	for _, pattern := range c.Exclude {
		if glob(pattern, path) {
			return true
		}
	}
	return false
}

// excludesBelow says that an entry or a directory above it is not shipped.
func (c *Config) excludesBelow(path string) bool {
	if c == nil || len(c.Exclude) == 0 {
		return false
	}
	for i := range path {
		if path[i] == '/' && c.excludes(path[:i]) {
			return true
		}
	}
	return c.excludes(path)
}

// settle gives the manifest what the options and moult.toml say, and checks it.
func (r *Release) settle(opt Options) error {
	m := r.Manifest
	if c := r.Config; c != nil {
		m.Name, m.Version, m.Times = c.Name, c.Version, c.Times
		m.Hooks = Hooks{Before: c.Hooks.Before, After: c.Hooks.After, Timeout: int64(c.Hooks.timeout)}
		m.Restart = c.Restart
		m.Plugins = c.Plugins
		for i := range m.Entries {
			e := &m.Entries[i]
			if c.Owner != "" {
				e.Owner = c.Owner
			}
			if c.Group != "" {
				e.Group = c.Group
			}
		}
		for i := range c.Files {
			if !c.Files[i].apply(m.Entries) {
				line := c.lines.find(i, "file", "match")
				r.Notes = append(r.Notes, fmt.Sprintf("%s:%d: %q matches nothing", c.Path, line, c.Files[i].Match))
			}
		}
	}
	if opt.Name != "" {
		m.Name = opt.Name
	}
	if opt.Version != "" {
		m.Version = opt.Version
	}
	m.Times = m.Times || opt.Times
	return m.Check()
}

// apply changes the entries that match, and says whether there were any that it
// could mean something to.
func (f *FileRule) apply(entries []Entry) bool {
	// Capabilities and keep are for files only; a rule of nothing else that
	// matches no file is most likely a slip.
	filesOnly := f.Owner == nil && f.Group == nil && f.Mode == nil
	matched := false
	for i := range entries {
		e := &entries[i]
		if filesOnly && e.Type != File || !glob(f.Match, e.Path) {
			continue
		}
		matched = true
		if f.Owner != nil {
			e.Owner = *f.Owner
		}
		if f.Group != nil {
			e.Group = *f.Group
		}
		if f.Mode != nil && e.Type != Symlink {
			e.Mode = f.mode
		}
		if f.Keep != nil && e.Type == File {
			e.Keep = *f.Keep
		}
		if f.Caps != nil && e.Type == File {
			e.setXattr(xattrCaps, f.caps)
		}
	}
	return matched
}

// setXattr sets one attribute, or removes it if value is "". The map may be
// shared with another entry.
func (e *Entry) setXattr(name, value string) {
	x := maps.Clone(e.Xattrs)
	if x == nil {
		x = map[string]string{}
	}
	if x[name] = value; value == "" {
		delete(x, name)
	}
	if e.Xattrs = x; len(x) == 0 {
		e.Xattrs = nil
	}
}

// tomlLines are where the keys of a TOML text stand, which the parser does not
// tell. A key of the nth table of an array of tables begins with "table#n.".
type tomlLines map[string]int

// find returns the line of a key: of the nth table of an array, or of any if n
// is negative. What is inside an inline table has the line of the table.
func (l tomlLines) find(n int, key ...string) int {
	if n >= 0 {
		table := fmt.Sprintf("%s#%d", key[0], n)
		for k := len(key); k > 0; k-- {
			if line, ok := l[strings.Join(append([]string{table}, key[1:k]...), ".")]; ok {
				return line
			}
		}
	}
	for k := len(key); k > 0; k-- {
		if line, ok := l[strings.Join(key[:k], ".")]; ok {
			return line
		}
	}
	return 1
}
