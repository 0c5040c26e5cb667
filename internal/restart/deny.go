package restart

import (
	"path"
	"slices"
	"strings"

	"moult.example/internal/release"
	"moult.example/internal/stale"
)

// hostUnits are the units on which a whole host, or all that somebody does on
// it, hangs. They are restarted only if they are named (Options.Allow, or a rule
// of the administrator). Each line says what would go.
var hostUnits = []string{
	"dbus.service", "dbus-broker.service", "dbus@*.service", // every service that talks to another
	"systemd-logind.service", "elogind.service", "user@*.service", // all sessions
	"display-manager.service", "gdm.service", "gdm3.service", "lightdm.service", "sddm.service", "lxdm.service",
	"xdm.service", "slim.service", "greetd.service", "ly.service", "nodm.service", // all desktops
	"getty@*.service", "serial-getty@*.service", "console-getty.service", "container-getty@*.service", "autovt@*.service", // who is logged in there
	"docker.service", "containerd.service", "podman.service", "crio.service", "cri-o.service", "kubelet.service",
	"lxc.service", "lxd.service", "incus.service", // all containers, unless they are kept alive
	"libvirtd.service", "virtqemud.service", "virtlogd.service", "virtlockd.service", "xen*.service", // all virtual machines
	"NetworkManager.service", "systemd-networkd.service", "networking.service", "ifup@*.service", "network.service",
	"wpa_supplicant*.service", "iwd.service", "dhcpcd*.service", "connman.service", "wickedd*.service", "openvpn*.service", // the way to the host
	"multipathd.service", "iscsid.service", "open-iscsi.service", "lvm2-*.service", // its disks
	"emergency.service", "rescue.service", "debug-shell.service", // who repairs it
	"apt-daily*.service", "unattended-upgrades.service", "packagekit.service", "dnf-automatic*.service", // the upgrade that is under way
}

// hostPrograms are the same by the names of their executables, for hosts and
// containers without systemd.
var hostPrograms = []string{
	"init", "systemd", "dbus-daemon", "dbus-broker", "dbus-broker-launch", "systemd-logind", "elogind",
	"gdm*", "lightdm", "sddm*", "lxdm*", "xdm", "slim", "greetd", "Xorg", "Xwayland", "gnome-shell", "kwin_*", "sway",
	"getty", "agetty", "mingetty", "login", "dockerd", "docker-proxy", "containerd", "containerd-shim*", "conmon", "crio",
	"kubelet", "lxcfs", "libvirtd", "virtqemud", "virtlogd", "virtlockd", "qemu-system-*",
	"NetworkManager", "systemd-networkd", "wpa_supplicant", "iwd", "dhclient", "dhcpcd", "connmand", "openvpn",
	"multipathd", "iscsid", "dpkg", "apt-get", "apt", "rpm", "dnf", "dnf5", "yum", "zypper", "pacman",
}

// named finds the pattern that names a process: by its unit, the name that it
// gives itself, or the path or last part of the path of its executable.
func named(patterns []string, p stale.Process, unit string) string {
	exe := exePath(p)
	i := slices.IndexFunc(patterns, func(pattern string) bool {
		return unit != "" && release.Wild(pattern, unit) ||
			exe != "" && (release.Wild(pattern, exe) || release.Wild(pattern, PublicPath(exe)) || release.Wild(pattern, path.Base(exe))) ||
			p.Comm != "" && release.Wild(pattern, p.Comm)
	})
	if i < 0 {
		return ""
	}
	return patterns[i]
}

// ofHost says that a whole host hangs on a process. The name that it gives
// itself does not count: anybody can be called init.
func ofHost(p stale.Process, unit string) bool {
	byUnit := func(pattern string) bool { return unit != "" && release.Wild(pattern, unit) }
	exe := exePath(p)
	byProgram := func(pattern string) bool { return exe != "" && release.Wild(pattern, path.Base(exe)) }
	// A program in a unit of its own is what the unit says, such as a qemu that
	// is a service.
	if strings.HasSuffix(unit, ".service") {
		return slices.ContainsFunc(hostUnits, byUnit)
	}
	return slices.ContainsFunc(hostUnits, byUnit) || slices.ContainsFunc(hostPrograms, byProgram)
}
