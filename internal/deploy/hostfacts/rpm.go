package hostfacts

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Where rpm has its database: on older and on newer hosts.
var rpmDatabases = []string{"/var/lib/rpm", "/usr/lib/sysimage/rpm"}

// rpm finds the owners among rpm's packages. It asks twice at most: which
// packages own any of the paths (none, usually), since rpm does not say which
// path an answer is for, and what these have.
func (o Options) rpm(ctx context.Context, a aliases, w wanted, owners map[string]string) error {
	if !slices.ContainsFunc(rpmDatabases, o.hasRPMDatabase) {
		return nil
	}
	var paths []string
	for path := range w {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	packages := map[string]bool{}
	for _, batch := range batches(paths) {
		err := o.queryRPM(ctx, "-qf", "%{NEVRA}", batch, func(nevra string) { packages[nevra] = true })
		if errors.Is(err, exec.ErrNotFound) {
			return nil // a database of a host that has no rpm any more
		}
		if err != nil {
			return err
		}
	}
	var names []string
	for nevra := range packages {
		names = append(names, nevra)
	}
	slices.Sort(names)
	for _, batch := range batches(names) {
		err := o.queryRPM(ctx, "-q", "%{=NAME}\t%{FILENAMES}", batch, func(line string) {
			if pkg, path, ok := strings.Cut(line, "\t"); ok {
				w.found(a.canonical(path), pkg, owners)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// hasRPMDatabase says whether there is a database in the directory: of SQLite,
// Berkeley DB or rpm's own kind. An empty directory comes with the program.
func (o Options) hasRPMDatabase(dir string) bool {
	return slices.ContainsFunc([]string{"rpmdb.sqlite", "Packages", "Packages.db"}, func(name string) bool {
		fi, err := os.Stat(o.path(dir + "/" + name))
		return err == nil && fi.Size() > 0
	})
}

// queryRPM runs one query and calls add with each line of the format. A path
// that no package owns, or that does not exist, is a failure to rpm.
func (o Options) queryRPM(ctx context.Context, query, format string, args []string, add func(string)) error {
	const mark = "moult:" // tells our lines from its messages
	full := []string{query, "--queryformat", "[" + mark + format + `\n]`}
	if query == "-qf" {
		full[2] = mark + format + `\n`
	}
	if o.Root != "" {
		for _, dir := range rpmDatabases {
			if o.hasRPMDatabase(dir) {
				full = append(full, "--dbpath", o.path(dir))
				break
			}
		}
	}
	out, messages, err := o.run(ctx, "rpm", append(append(full, "--"), args...)...)
	var status *exec.ExitError
	if err != nil && !errors.As(err, &status) {
		return said("rpm", nil, err)
	}
	for line := range strings.Lines(string(messages)) {
		if err != nil && strings.HasPrefix(line, "error:") && !strings.HasPrefix(line, "error: file ") {
			return said("rpm", []byte(line), err)
		}
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), mark); ok {
			add(rest)
		}
	}
	return nil
}
