package release

import (
	"errors"
	"path"
	"strings"
)

// glob says that a pattern matches a whole path. Its parts are those of
// [path.Match], and the part ** stands for any number of directories, none
// included: "bin/*", "**/*.debug", "share/doc/**". There is no pattern that
// matches a name wherever it is without saying so: patterns can give
// privileges.
func glob(pattern, name string) bool {
	// After a ** has been passed, a mismatch goes back to it and lets it take
	// one directory more; an earlier ** need not be tried again.
	retryPattern, retryName, retry := "", "", false
	for {
		part, rest, more := strings.Cut(pattern, "/")
		if part == "**" {
			if !more {
				return true // also for what is directly there; name is never empty here
			}
			retryPattern, retryName, retry = rest, name, true
			pattern = rest
			continue
		}
		base, below, deeper := strings.Cut(name, "/")
		ok, _ := path.Match(part, base)
		if ok && more && deeper {
			pattern, name = rest, below
			continue
		}
		if ok && !more && !deeper {
			return true
		}
		if !retry {
			return false
		}
		_, next, deeper := strings.Cut(retryName, "/")
		if !deeper {
			return false
		}
		pattern, name, retryName = retryPattern, next, next
	}
}

// checkGlob says what is wrong with a pattern.
func checkGlob(pattern string) error {
	for part := range strings.SplitSeq(pattern, "/") {
		switch {
		case part == "":
			return errors.New("a pattern is the path of something in the release, without a slash at either end")
		case part == "." || part == "..":
			return errDotName
		case part != "**" && strings.Contains(part, "**"):
			return errors.New("** stands for whole directories: it can only be between slashes")
		}
		if _, err := path.Match(part, ""); err != nil {
			return errors.New("a bracket or a backslash in it is not closed")
		}
	}
	return nil
}
