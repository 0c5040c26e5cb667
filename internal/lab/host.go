package lab

import (
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// fileSystem is the type of the one that dir is on: of the mount with the
// longest path above it, the last one where several are on top of each other.
func fileSystem(dir string) (string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	found, at := "", ""
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range strings.Lines(string(data)) {
		mount, source, ok := strings.Cut(line, " - ")
		left, right := strings.Fields(mount), strings.Fields(source)
		if !ok || len(left) < 5 || len(right) < 1 {
			continue
		}
		point := unescape.Replace(left[4])
		if point != "/" && dir != point && !strings.HasPrefix(dir, point+"/") {
			continue
		}
		if len(point) >= len(at) {
			found, at = right[0], point
		}
	}
	if found == "" {
		return "", &os.PathError{Op: "find the file system", Path: dir, Err: errors.New("no mount holds it")}
	}
	return found, nil
}

// quietCores keeps programs that die here from leaving core dumps, and returns
// what puts things back. The limit of one byte is the one that also stops the
// kernel from piping the dump to a program (core(5)).
func quietCores() func() {
	var was unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_CORE, &was) != nil {
		return func() {}
	}
	quiet := was
	quiet.Cur = min(1, was.Max)
	if unix.Setrlimit(unix.RLIMIT_CORE, &quiet) != nil {
		return func() {}
	}
	return func() { unix.Setrlimit(unix.RLIMIT_CORE, &was) }
}
