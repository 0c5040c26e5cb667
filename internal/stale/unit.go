package stale

import (
	"bytes"
	"cmp"
	"strconv"
	"strings"
)

// home finds the process's unit and container from its control group.
func (l *visit) home() (Unit, Container) {
	id, ok := uint64(0), false
	if !l.search.many.Load() {
		if id, ok = l.controlGroupID(); ok {
			if h := l.search.homeOf(id); h != nil {
				return h.unit, h.container
			}
		}
	}
	text, err := l.read("cgroup", 16<<10)
	if err != nil {
		return Unit{}, Container{}
	}
	u, c := parseHome(controlGroup(text))
	switch {
	case bytes.Count(text, []byte("\n")) > 1:
		l.search.many.Store(true)
	case ok && bytes.HasPrefix(text, []byte("0::")):
		// There is one hierarchy only, so that its number says it all.
		l.search.mu.Lock()
		defer l.search.mu.Unlock()
		l.search.homes[id] = &home{u, c}
	}
	return u, c
}

// home is what the path of a control group says.
type home struct {
	unit      Unit
	container Container
}

func (s *search) homeOf(cgroup uint64) *home {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.homes[cgroup]
}

// controlGroup is the path that systemd gave: of the hierarchy of its own where
// it has one, else of the one that all share (cgroups(7)). Where there is no
// systemd these may say nothing, and then any counts: engines put their containers
// into those that they need.
func controlGroup(text []byte) string {
	var own, common, other string
	for line := range bytes.Lines(text) {
		_, rest, _ := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte(":"))
		controllers, at, ok := bytes.Cut(rest, []byte(":"))
		switch {
		case !ok || string(at) == "/":
		case string(controllers) == "name=systemd":
			own = string(at)
		case len(controllers) == 0:
			common = string(at)
		case other == "":
			other = string(at)
		}
	}
	return cmp.Or(own, common, other)
}

// parseHome reads the path of a control group as systemd does: the first
// part that is no slice is the unit, and what follows in user@UID.service is
// that user's.
func parseHome(path string) (u Unit, c Container) {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i, p := range parts {
		if c = containerOf(p, parts[:i]); c.Engine != "" {
			break
		}
	}
	rest := unitIn(parts, &u)
	if uid, ok := userOf(u.Name); ok {
		var inner Unit
		unitIn(rest, &inner)
		if inner.Name != "" {
			u = Unit{inner.Name, true, uid}
		}
	}
	return u, c
}

// unitIn finds the first part that is a unit and no slice, and returns what
// follows.
func unitIn(parts []string, u *Unit) []string {
	for i, p := range parts {
		name := strings.TrimPrefix(p, "_") // set before names that the kernel has use for
		if strings.HasSuffix(name, ".slice") {
			continue
		}
		if strings.HasSuffix(name, ".service") || strings.HasSuffix(name, ".scope") || strings.HasSuffix(name, ".socket") || strings.HasSuffix(name, ".mount") || strings.HasSuffix(name, ".swap") {
			u.Name = name
			return parts[i+1:]
		}
		return nil
	}
	return nil
}

// userOf is the user of a unit user@UID.service.
func userOf(unit string) (uid int, ok bool) {
	text, ok := strings.CutPrefix(unit, "user@")
	if !ok {
		return 0, false
	}
	uid, err := strconv.Atoi(strings.TrimSuffix(text, ".service"))
	return uid, err == nil
}

// scopes are the units in which container engines put a container, by what
// stands before its id.
var scopes = []struct{ prefix, engine string }{
	{"docker-", "docker"}, {"libpod-", "podman"}, {"cri-containerd-", "containerd"}, {"crio-", "cri-o"},
	{"nerdctl-", "containerd"}, {"lxc.payload.", "lxc"}, {"machine-", "machined"},
}

// containerOf recognises a part of a control group's path as a container.
func containerOf(part string, before []string) Container {
	name, scope := strings.CutSuffix(part, ".scope")
	for _, s := range scopes {
		id, ok := strings.CutPrefix(name, s.prefix)
		switch {
		case !ok || id == "":
		case s.engine == "lxc":
			return Container{"lxc", unescape(strings.TrimPrefix(part, s.prefix))}
		case s.engine == "machined":
			// machine-qemu-… is a virtual machine, whose process is the host's.
			if id = unescape(id); scope && !strings.HasPrefix(id, "qemu-") {
				return Container{"machined", id}
			}
		case hexadecimal(id): // and no monitor, such as libpod-conmon-…
			return Container{s.engine, id}
		}
	}
	if name, ok := strings.CutPrefix(part, "systemd-nspawn@"); ok {
		return Container{"machined", unescape(strings.TrimSuffix(name, ".service"))}
	}
	if len(before) == 0 {
		return Container{}
	}
	parent := before[len(before)-1]
	switch {
	case parent == "lxc" && len(before) == 1:
		return Container{"lxc", part}
	case !hexadecimal(part):
	case parent == "docker":
		return Container{"docker", part}
	case strings.HasPrefix(parent, "pod") && strings.HasPrefix(before[0], "kubepods"):
		return Container{"kubernetes", part}
	case parent == "default" || parent == "k8s.io":
		return Container{"containerd", part}
	}
	return Container{}
}

// hexadecimal says that a text is the id of a container.
func hexadecimal(s string) bool {
	return len(s) >= 12 && strings.Trim(s, "0123456789abcdef") == ""
}

// unescape undoes systemd's \xNN.
func unescape(s string) string {
	var b strings.Builder
	for {
		i := strings.Index(s, `\x`)
		if i < 0 || len(s) < i+4 {
			return b.String() + s
		}
		c, err := strconv.ParseUint(s[i+2:i+4], 16, 8)
		if err != nil {
			b.WriteString(s[:i+2])
			s = s[i+2:]
			continue
		}
		b.WriteString(s[:i])
		b.WriteByte(byte(c))
		s = s[i+4:]
	}
}
