package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// Host is where it was measured.
type Host struct {
	Kernel     string  `json:"kernel"`
	CPUs       int     `json:"cpus"`
	FileSystem string  `json:"file_system"` // type and mount options of the work directory's
	Load       float64 `json:"load"`        // the average of a minute, before the first job
	Warning    string  `json:"warning,omitempty"`
}

func thisHost(dir string) Host {
	h := Host{CPUs: runtime.NumCPU()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = "Linux " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
	}
	kind := ""
	kind, h.FileSystem = fileSystem(dir)
	switch kind {
	case "tmpfs", "ramfs":
		h.Warning = kind + " keeps nothing: syncing costs nothing here, and the ratios flatter whoever syncs; give --dir"
	case "overlay":
		h.Warning = "overlay copies and exchanges in ways of its own; give --dir on a disk's own file system"
	}
	if data, err := os.ReadFile("/proc/loadavg"); err == nil {
		fmt.Sscan(string(data), &h.Load)
	}
	if h.Warning == "" && h.Load > 0.5 {
		h.Warning = fmt.Sprintf("others are at work on this machine (load average %.1f): what they take is in every figure", h.Load)
	}
	return h
}

// fileSystem is the type of the file system that a directory is on, and how one
// names it.
func fileSystem(dir string) (kind, name string) {
	var st unix.Stat_t
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || unix.Stat(dir, &st) != nil {
		return "", "unknown file system"
	}
	// "36 35 98:0 / /mnt rw,noatime - ext4 /dev/sda1 rw": the longest mount
	// point that the directory is below, and of those the last.
	best := ""
	for line := range strings.Lines(string(data)) {
		left, right, ok := strings.Cut(line, " - ")
		l, r := strings.Fields(left), strings.Fields(right)
		if !ok || len(l) < 6 || len(r) < 3 {
			continue
		}
		at := strings.TrimSuffix(l[4], "/") + "/"
		if strings.HasPrefix(dir+"/", at) && len(at) >= len(best) {
			best, kind, name = at, r[0], r[0]+" ("+l[5]+","+r[2]+")"
		}
	}
	return kind, name
}
