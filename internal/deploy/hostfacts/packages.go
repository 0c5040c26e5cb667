package hostfacts

import (
	"context"
	"os"
	"path/filepath"
	"strings"
)

// Packages says which of these absolute paths belong to a package of the
// host's package manager, dpkg or rpm, and to which; others are not in the
// result. A path counts as the file that its directory leads to: where /bin is
// a link to /usr/bin, both ways to write it are the same. Ask for files and
// symbolic links: a directory may be many packages', and one of them is named.
func Packages(ctx context.Context, o Options, paths []string) (map[string]string, error) {
	owners := map[string]string{}
	if len(paths) == 0 {
		return owners, nil
	}
	a := o.aliases()
	w := wanted{}
	resolved := map[string]string{}
	for _, path := range paths {
		w.add(a.canonical(path), path)
		// The directory may be reached through any link, not only an alias.
		dir, name := filepath.Split(path)
		if _, ok := resolved[dir]; !ok {
			resolved[dir] = o.resolve(dir)
		}
		if to := resolved[dir]; to != "" {
			w.add(a.canonical(filepath.Join(to, name)), path)
		}
	}
	if err := o.dpkg(ctx, a, w, owners); err != nil {
		return nil, err
	}
	if err := o.rpm(ctx, a, w, owners); err != nil {
		return nil, err
	}
	return owners, nil
}

// resolve follows the links of a directory's path; "" if it is not there.
func (o Options) resolve(dir string) string {
	to, err := filepath.EvalSymlinks(o.path(dir))
	if err != nil {
		return ""
	}
	below, err := filepath.Rel(o.path("/"), to)
	if err != nil {
		return ""
	}
	return filepath.Join("/", below)
}

// wanted are the paths that are asked for: the canonical path, and the ways in
// which the caller wrote it.
type wanted map[string][]string

func (w wanted) add(canonical, asked string) {
	for _, have := range w[canonical] {
		if have == asked {
			return
		}
	}
	w[canonical] = append(w[canonical], asked)
}

func (w wanted) found(canonical, pkg string, owners map[string]string) {
	for _, asked := range w[canonical] {
		owners[asked] = pkg
	}
}

// aliases are the directories at the top that are links into /usr where it is
// merged. Packages list their files under the one or the other name.
type aliases map[string]string // "bin" -> "usr/bin"

func (o Options) aliases() aliases {
	a := aliases{}
	for _, name := range []string{"bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"} {
		to, err := os.Readlink(o.path(name))
		if to = strings.TrimPrefix(to, "/"); err == nil && strings.HasPrefix(to, "usr/") {
			a[name] = to
		}
	}
	if to, err := os.Readlink(o.path("usr/sbin")); err == nil && to == "bin" { // merged once more
		a["usr/sbin"] = "usr/bin"
		if a["sbin"] != "" {
			a["sbin"] = "usr/bin"
		}
	}
	return a
}

// canonical replaces an alias at the beginning of a clean absolute path.
func (a aliases) canonical(path string) string {
	if !strings.HasPrefix(path, "/") {
		return path
	}
	first, rest, ok := strings.Cut(path[1:], "/")
	if !ok {
		return path
	}
	if first == "usr" && a["usr/sbin"] != "" {
		if rest, ok := strings.CutPrefix(rest, "sbin/"); ok {
			return "/" + a["usr/sbin"] + "/" + rest
		}
	}
	if to := a[first]; to != "" {
		return "/" + to + "/" + rest
	}
	return path
}

// written are all the ways to write a canonical prefix of paths.
func (a aliases) written(prefix string) []string {
	ways := []string{prefix}
	for from, to := range a {
		if rest, ok := strings.CutPrefix(prefix, "/"+to+"/"); ok {
			ways = append(ways, "/"+from+"/"+rest)
		} else if strings.HasPrefix("/"+to+"/", prefix) {
			ways = append(ways, "/"+from+"/") // all of it is below the prefix
		}
	}
	return ways
}
