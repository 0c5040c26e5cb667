package restart

import (
	"os"
	"path"
	"strconv"
	"strings"
)

// self is what this process needs to live.
type self struct {
	proc      string
	pid       int
	ancestors map[int]bool    // this process and those that started it, but not PID 1
	homes     map[string]bool // control groups of units and sessions in which they are
	units     map[string]bool // the last part of each
}

// maxAncestors bounds the walk up, should /proc change while it is read.
const maxAncestors = 1024

func lookAtSelf(o Options) self {
	s := self{proc: o.Proc, pid: o.Self, ancestors: map[int]bool{}, homes: map[string]bool{}, units: map[string]bool{}}
	if s.pid == 0 {
		s.pid = os.Getpid()
	}
	for pid := s.pid; pid > 1 && len(s.ancestors) < maxAncestors && !s.ancestors[pid]; pid = s.parent(pid) {
		s.ancestors[pid] = true
		if home := s.home(pid); home != "" {
			s.homes[home] = true
			s.units[path.Base(home)] = true
		}
	}
	return s
}

// needs says why a process must not be touched, "" if it may.
func (s self) needs(pid int) string {
	switch {
	case pid == s.pid:
		return "it is moult itself"
	case s.ancestors[pid]:
		return "moult was started from it"
	case s.homes[s.home(pid)]:
		return "moult runs in the same unit or session"
	}
	return ""
}

// parent reads /proc/PID/stat, where the name in parentheses may hold anything
// (proc_pid_stat(5)); 0 if there is none.
func (s self) parent(pid int) int {
	text, err := os.ReadFile(s.proc + "/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(fields[1])
	return parent
}

// home is the control group of the unit or session of a process: its path up to
// the last part that is a service or a scope. "" if it is in none, or cannot be
// read.
func (s self) home(pid int) string {
	text, err := os.ReadFile(s.proc + "/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		// "0::PATH" is the unified hierarchy, name=systemd the one of old.
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, _ := strings.Cut(rest, ":")
		if controllers != "" && controllers != "name=systemd" {
			continue
		}
		parts := strings.Split(group, "/")
		for i := len(parts) - 1; i > 0; i-- {
			if strings.HasSuffix(parts[i], ".service") || strings.HasSuffix(parts[i], ".scope") {
				return strings.Join(parts[:i+1], "/")
			}
		}
	}
	return ""
}
