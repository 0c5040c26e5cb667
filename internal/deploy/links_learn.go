package deploy

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"moult.example/internal/stale"
)

// plugins are those that the release declares and those that running programs of
// the target have loaded, of which either side is judged.
func (c *linkCheck) plugins(ctx context.Context, paths []string) map[string][]string {
	found := c.learned(ctx, paths)
	for plugin, hosts := range c.p.m.PluginHosts() {
		plugin = c.base + "/" + plugin
		delete(found, plugin) // whose hosts are known
		_, changed := slices.BinarySearch(paths, plugin)
		for _, h := range hosts {
			h = c.base + "/" + h
			if _, ok := slices.BinarySearch(paths, h); ok || changed {
				found[plugin] = append(found[plugin], h)
			}
		}
	}
	return found
}

// How many processes are asked what they have loaded: workers of one program
// have loaded the same, and an apply waits for it.
const (
	maxAsked     = 100
	maxAskedEach = 8 // of one program
)

// learned are plugins by their hosts: what programs of the target that run have
// loaded beside what they need. Hosts elsewhere are for moult check --against,
// which asks every process; here, one question tells whose program each runs.
func (c *linkCheck) learned(ctx context.Context, paths []string) map[string][]string {
	proc := c.p.s.t.opts.Proc
	pids := runsBelow(c.p.s.t.path, proc)
	if len(pids) == 0 {
		return map[string][]string{}
	}
	processes, err := stale.Loaded(ctx, stale.Options{Proc: proc, PIDs: pids})
	if err != nil {
		return map[string][]string{} // as where nothing runs
	}
	l := &Laid{paths: paths, target: c.p.s.t.path, base: c.base}
	return l.loadedByName(processes)
}

// runsBelow are some of the processes whose program is below a directory.
func runsBelow(dir, proc string) (pids []int) {
	d, err := os.Open(proc)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	each := map[string]int{}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		exe, err := os.Readlink(filepath.Join(proc, name, "exe"))
		if err != nil || !strings.HasPrefix(exe, strings.TrimSuffix(dir, "/")+"/") {
			continue
		}
		if each[exe]++; each[exe] <= maxAskedEach && len(pids) < maxAsked {
			pids = append(pids, pid)
		}
	}
	return pids
}
