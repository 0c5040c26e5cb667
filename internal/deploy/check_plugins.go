package deploy

import (
	"context"
	"errors"
	"path/filepath"
	"slices"

	"moult.example/internal/linkcheck"
	"moult.example/internal/stale"
)

// setPlugins adds what processes have loaded to what was declared.
func (l *Laid) setPlugins(ctx context.Context, r *LinkReport, o CheckOptions) {
	learned := map[string]bool{}
	if o.Learn && o.Root == "" {
		for plugin, hosts := range l.learn(ctx, "") {
			if l.plugins[plugin] == nil {
				l.plugins[plugin], learned[plugin] = hosts, true
			}
		}
	}
	for _, plugin := range sortedKeys(l.plugins) {
		r.Plugins = append(r.Plugins, LinkPlugin{l.shown(plugin), l.allShown(l.plugins[plugin]), learned[plugin]})
	}
}

// NamedError is a plugin or a host of [CheckOptions] that cannot be judged.
type NamedError struct {
	Path Path  // in the release, or absolute
	Err  error // why not
}

func (e *NamedError) Error() string { return e.Path.Quoted() + ": " + e.Err.Error() }

// Unwrap is why not.
func (e *NamedError) Unwrap() error { return e.Err }

var errNoObject = errors.New("neither a program nor a library")

// checkNamed says whether the plugins and hosts that somebody has named are
// there. One that a release declares, or that a process has, may be gone: that
// is told and is no reason to judge nothing.
func (l *Laid) checkNamed(ctx context.Context, o CheckOptions, lo linkcheck.Options) error {
	var named []string
	for _, plugin := range sortedKeys(o.Plugins) {
		named = append(named, l.abs(plugin))
		for _, h := range o.Plugins[plugin] {
			named = append(named, l.abs(h))
		}
	}
	if len(named) == 0 {
		return nil
	}
	lo.Plugins = nil
	r, err := linkcheck.Check(ctx, named, lo)
	if err != nil {
		return err
	}
	var errs []error
	for _, u := range r.Unread {
		if slices.Contains(named, u.Path) {
			errs = append(errs, &NamedError{l.shown(u.Path), u.Err})
		}
	}
	for _, path := range r.Skipped {
		errs = append(errs, &NamedError{l.shown(path), errNoObject})
	}
	return errors.Join(errs...)
}

// learn asks all processes for plugins.
func (l *Laid) learn(ctx context.Context, proc string) map[string][]string {
	processes, err := stale.Loaded(ctx, stale.Options{Proc: proc})
	if err != nil {
		return nil
	}
	return l.loadedByName(processes)
}

// loadedByName finds in the lists of processes' loaders what the programs that
// are judged have loaded beside what they need: each is a plugin. A process of an
// older generation counts for the same program of the live one; so do its
// plugins.
func (l *Laid) loadedByName(processes []stale.Loads) map[string][]string {
	judged := make(map[string]bool, len(l.paths))
	for _, p := range l.paths {
		judged[p] = true
	}
	found := map[string][]string{}
	static := map[string]map[string]bool{} // of each program: the names that it needs, directly or not
	for _, p := range processes {
		host := l.now(p.Exe)
		if len(found) > maxLearned {
			break
		}
		if !judged[host] && !slices.ContainsFunc(p.Libraries, func(m string) bool { return judged[l.now(m)] }) {
			continue
		}
		if static[host] == nil {
			static[host] = l.needed(host, p.Libraries)
		}
		for _, m := range p.Libraries {
			plugin := l.now(m)
			if static[host][filepath.Base(m)] || !judged[host] && !judged[plugin] || slices.Contains(found[plugin], host) {
				continue
			}
			found[plugin] = append(found[plugin], host)
		}
	}
	return found
}

const maxLearned = 10_000 // plugins: what processes say has bounds

// now is the path at which a file that a process has is judged; any other stays.
func (l *Laid) now(path string) string {
	if target, _, rest, ok := cutGeneration(path); ok && target == l.target {
		return l.base + rest
	}
	return path
}

// needed are the file names and sonames of what a program needs of the files
// that it has mapped, by way of each other: what it was started with.
func (l *Laid) needed(host string, mapped []string) map[string]bool {
	by := map[string][]string{} // name → paths of who has it
	infos := map[string]linkcheck.Info{}
	for _, m := range mapped {
		info, err := needsOfPath(m)
		if err != nil {
			continue
		}
		infos[m] = info
		for _, name := range []string{filepath.Base(m), info.Soname} {
			by[name] = append(by[name], m)
		}
	}
	info, _ := needsOfPath(host)
	found, todo := map[string]bool{}, slices.Clone(info.Needed)
	for len(todo) > 0 {
		name := filepath.Base(todo[0])
		todo = todo[1:]
		for _, m := range by[name] {
			if base := filepath.Base(m); !found[base] {
				found[base] = true
				todo = append(todo, infos[m].Needed...)
			}
		}
	}
	return found
}
