package hostfacts

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Profile is a mention of a directory in AppArmor's rules.
type Profile struct {
	File string // where: a file of /etc/apparmor.d, or the kernel's list of loaded profiles
	Line int    // in it, from 1
	Text string // the line, without blanks around it
}

const (
	profileDir     = "/etc/apparmor.d"
	loadedProfiles = "/sys/kernel/security/apparmor/profiles"
)

// AppArmorProfiles returns the profiles that name a directory or something
// below it. Profiles go by paths: behind a symbolic link the files have
// others, and a rule for the old ones no longer holds. Only names that are
// written out are found, not patterns and variables above the directory, such
// as /opt/*/bin. Where AppArmor is off there are none.
func AppArmorProfiles(o Options, dir string) ([]Profile, error) {
	on, err := os.ReadFile(o.path("/sys/module/apparmor/parameters/enabled"))
	if errors.Is(err, fs.ErrNotExist) || err == nil && strings.TrimSpace(string(on)) != "Y" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var found []Profile
	// The names of loaded profiles are their programs' paths, usually. Only
	// root may read them.
	loaded, err := os.ReadFile(o.path(loadedProfiles))
	if err == nil {
		found = mentions(found, loadedProfiles, loaded, dir)
	} else if !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return nil, err
	}
	err = filepath.WalkDir(o.path(profileDir), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrPermission) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(o.path("/"), path)
		found = mentions(found, "/"+rel, text, dir)
		return err
	})
	return found, err
}

// mentions adds the lines of a file that name the directory.
func mentions(found []Profile, file string, text []byte, dir string) []Profile {
	dir = strings.TrimSuffix(filepath.Clean(dir), "/")
	if !bytes.Contains(text, []byte(dir)) {
		return found
	}
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		line = strings.TrimSpace(line)
		comment := strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "#include")
		if !comment && names(line, dir) {
			found = append(found, Profile{file, n, line})
		}
	}
	return found
}

// names says whether the path stands in the line: not as the end or the
// beginning of a longer name.
func names(line, dir string) bool {
	for {
		i := strings.Index(line, dir)
		if i < 0 {
			return false
		}
		before, after := line[:i], line[i+len(dir):]
		if (before == "" || !partOfName(before[len(before)-1])) && (after == "" || !partOfName(after[0])) {
			return true
		}
		line = line[i+1:]
	}
}

// partOfName says that a byte goes on with a file's name, or the directory's
// own path: "/srv/opt/app" does not name /opt/app. Pattern characters do not.
func partOfName(c byte) bool {
	return c == '-' || c == '_' || c == '.' || c == '+' || c == '}' || c >= 0x80 ||
		'0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}
