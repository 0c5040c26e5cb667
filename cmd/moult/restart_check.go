package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"moult.example/internal/linkcheck"
	"moult.example/internal/stale"
)

// wouldStart says why a process's program would not load if it were started
// now, in its own root: who stops it then has neither the old nor the new. What
// cannot be found out is no reason.
func wouldStart(ctx context.Context, p stale.Process, places stale.Places) error {
	path := places.Live(strings.TrimSuffix(p.Exe, " (deleted)"))
	for _, f := range p.Files {
		if f.Kind == stale.KindExe {
			path = f.Path
		}
	}
	if !strings.HasPrefix(path, "/") {
		return nil
	}
	proc := fmt.Sprint("/proc/", p.PID)
	var o linkcheck.Options
	if !sameRoot(proc) {
		o.Root = proc + "/root"
	}
	o.LibraryPath = libraryPath(proc)
	rep, err := linkcheck.Check(ctx, []string{path}, o)
	if err != nil {
		return nil
	}
	for i := range rep.Findings {
		if f := &rep.Findings[i]; f.Severity == linkcheck.Break {
			return errors.New(oneLine(fmt.Sprintf("it would not start: %s: %s", f.Object, f.Why())))
		}
	}
	return nil
}

// sameRoot says whether a process sees the files that we see.
func sameRoot(proc string) bool {
	theirs, err := os.Readlink(proc + "/ns/mnt")
	ours, err2 := os.Readlink("/proc/self/ns/mnt")
	if err != nil || err2 != nil || theirs != ours {
		return false
	}
	root, err := os.Readlink(proc + "/root")
	return err == nil && root == "/"
}

// libraryPath is the LD_LIBRARY_PATH with which a process was started.
func libraryPath(proc string) []string {
	const most = 1 << 20
	f, err := os.Open(proc + "/environ")
	if err != nil {
		return nil
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return nil
	}
	for v := range bytes.SplitSeq(text, []byte{0}) {
		if dirs, ok := bytes.CutPrefix(v, []byte("LD_LIBRARY_PATH=")); ok && len(dirs) > 0 {
			return strings.FieldsFunc(string(dirs), func(r rune) bool { return r == ':' || r == ';' })
		}
	}
	return nil
}
