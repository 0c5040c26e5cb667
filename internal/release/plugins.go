package release

import (
	"fmt"
	"slices"
	"strings"
)

// PluginRule says which programs load files by name while they run: nothing in
// the files tells it.
type PluginRule struct {
	Path  string   `toml:"path" json:"path"`   // pattern of the plugins, as in [FileRule]: "lib/app/*.so"
	Hosts []string `toml:"hosts" json:"hosts"` // patterns of the programs that load them
}

// maxPairs is how many plugins are followed, counted once for each of their
// hosts.
const maxPairs = 10_000

// PluginHosts are the files of the release that its rules call plugins, and the
// programs that load each, both by their paths.
func (m *Manifest) PluginHosts() map[string][]string {
	if len(m.Plugins) == 0 {
		return nil
	}
	found, pairs := map[string][]string{}, 0
	for i := range m.Plugins {
		r := &m.Plugins[i]
		var hosts []string
		for k := range m.Entries {
			e := &m.Entries[k]
			if e.Type == File && slices.ContainsFunc(r.Hosts, func(h string) bool { return glob(h, e.Path) }) {
				hosts = append(hosts, e.Path)
			}
		}
		for k := range m.Entries {
			if e := &m.Entries[k]; e.Type == File && glob(r.Path, e.Path) {
				for _, h := range hosts {
					if h != e.Path && pairs < maxPairs && !slices.Contains(found[e.Path], h) {
						pairs++
						found[e.Path] = append(found[e.Path], h)
					}
				}
			}
		}
	}
	return found
}

func checkPlugins(rules []PluginRule) (i int, key string, err error) {
	if len(rules) > maxRules {
		return 0, "", fmt.Errorf("there are more than %d rules", maxRules)
	}
	for i, r := range rules {
		if len(r.Hosts) == 0 || len(r.Hosts) > maxRules {
			return i, "hosts", fmt.Errorf("it needs 1 to %d programs that load the plugin", maxRules)
		}
		for n, p := range append([]string{r.Path}, r.Hosts...) {
			key := "hosts"
			if n == 0 {
				key = "path"
			}
			if err := checkRuleText(p); err != nil {
				return i, key, err
			}
			if strings.HasPrefix(p, "/") {
				return i, key, fmt.Errorf("%.80q: a path of a release is relative to its target", p)
			}
			if err := checkGlob(p); err != nil {
				return i, key, fmt.Errorf("%.80q: %w", p, err)
			}
		}
	}
	return 0, "", nil
}
