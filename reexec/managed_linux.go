package reexec

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// managedPrefix is put before the name of a systemd socket where that is handed
// to a child, for which LISTEN_PID does not hold.
const managedPrefix = "moult.systemd!"

// adoptManaged takes the sockets that systemd gave us, as in sd_listen_fds(3).
// Their numbers stay open: the variables are as true for the next generation.
func (p *Process) adoptManaged() {
	if p.secure || p.variable("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return
	}
	n, err := strconv.Atoi(p.variable("LISTEN_FDS"))
	if err != nil || n < 0 || n > 1<<16 {
		return
	}
	names := strings.Split(p.variable("LISTEN_FDNAMES"), ":")
	for i := range n {
		name := ""
		if i < len(names) {
			name = names[i]
		}
		named := func(k *keptFD) bool { return k.fd == 3+i }
		if closeOnExec(3+i) && !slices.ContainsFunc(p.kept, named) {
			p.kept = append(p.kept, &keptFD{name: name, fd: 3 + i, asked: true, system: true})
		}
	}
}

// variable is one of the first environment.
func (p *Process) variable(name string) string {
	for _, v := range p.env {
		if value, is := strings.CutPrefix(v, name+"="); is {
			return value
		}
	}
	return ""
}

// inheritedSocket returns a duplicate of the socket for a listener, and whether
// it is the service manager's; nil if there is none.
func (p *Process) inheritedSocket(name, network, address string) (*os.File, bool, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	inUse := slices.ContainsFunc(p.listens, func(l *Listener) bool { return l.name == name }) ||
		slices.ContainsFunc(p.packets, func(c *PacketConn) bool { return c.name == name })
	if inUse {
		return nil, false, syscall.EADDRINUSE
	}
	for _, k := range p.kept {
		if !k.system && k.name == name {
			f, err := k.file()
			return f, false, err
		}
	}
	for _, k := range p.kept {
		theirs, passed := strings.CutPrefix(k.name, managedPrefix)
		if (k.system || passed) && (theirs != "" && (theirs == name || theirs == storeName(name)) || isBound(k.fd, network, address)) {
			f, err := k.file()
			return f, true, err
		}
	}
	return nil, false, nil
}

// isBound says that a socket is one for the network, and bound to the address.
func isBound(fd int, network, address string) bool {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return false
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	if u, is := sa.(*unix.SockaddrUnix); is {
		want := map[string]int{"unix": unix.SOCK_STREAM, "unixgram": unix.SOCK_DGRAM}[network]
		return want == kind && u.Name == address
	}
	var ip net.IP
	var port int
	switch strings.TrimRight(network, "46") {
	case "tcp":
		a, err := net.ResolveTCPAddr(network, address)
		if err != nil || kind != unix.SOCK_STREAM {
			return false
		}
		ip, port = a.IP, a.Port
	case "udp":
		a, err := net.ResolveUDPAddr(network, address)
		if err != nil || kind != unix.SOCK_DGRAM {
			return false
		}
		ip, port = a.IP, a.Port
	}
	var has net.IP
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		has = net.IP(sa.Addr[:])
		if sa.Port != port || strings.HasSuffix(network, "6") {
			return false
		}
	case *unix.SockaddrInet6:
		has = net.IP(sa.Addr[:])
		if sa.Port != port || strings.HasSuffix(network, "4") {
			return false
		}
	}
	if port == 0 || has == nil {
		return false
	}
	if ip == nil || ip.IsUnspecified() {
		return has.IsUnspecified()
	}
	return has.Equal(ip)
}

// storeName makes a name that systemd takes as FDNAME: without colons and
// control characters, at most 255 bytes.
func storeName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r == ':' || r <= ' ' || r >= 127 {
			return '.'
		}
		return r
	}, name)
	return name[:min(len(name), 255)]
}

// storeDescriptors gives what is kept to the service manager (FDSTORE=1 of
// sd_notify(3)), which hands it to the next start after a crash.
func (p *Process) storeDescriptors() error {
	if !p.opts.FDStore {
		return nil
	}
	p.mu.Lock()
	kept := slices.Clone(p.kept)
	p.mu.Unlock()
	for _, k := range kept {
		if k.system || !k.asked {
			continue
		}
		// FDPOLL=0: without it systemd drops what reports a hang-up.
		state := fmt.Sprintf("FDSTORE=1\nFDPOLL=0\nFDNAME=%s", storeName(k.name))
		if err := p.notifyWith(state, k.fd); err != nil {
			return fmt.Errorf("store %s: %w", k.name, err)
		}
	}
	return nil
}
