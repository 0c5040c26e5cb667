package release

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// capNames are the capabilities of Linux by number (include/uapi/linux/
// capability.h, as of 5.9; there has been none since).
var capNames = []string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid",
	"setpcap", "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw",
	"ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct",
	"sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod",
	"lease", "audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog",
	"wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf", "checkpoint_restore",
}

// capSets are the three sets of capabilities(7), a bit for each capability.
type capSets struct{ effective, permitted, inheritable uint64 }

// parseCaps turns the text that setcap(8) takes (cap_from_text(3)) into the
// value of security.capability: clauses such as "cap_net_raw,cap_kill=ep",
// separated by spaces, with =, + and -. "" is no capabilities, and "".
func parseCaps(text string) (string, error) {
	var c capSets
	if strings.TrimSpace(text) == "" {
		return "", nil
	}
	for _, clause := range strings.Fields(text) {
		if err := c.clause(clause); err != nil {
			return "", err
		}
	}
	// A file has one effective bit for all its capabilities.
	if c.effective != 0 && (c.permitted|c.inheritable)&^c.effective != 0 {
		return "", fmt.Errorf("%q: on a file either all capabilities are effective or none", text)
	}
	magic := uint32(0x02000000)
	if c.effective != 0 {
		magic |= 1
	}
	b := binary.LittleEndian.AppendUint32(nil, magic)
	for _, shift := range []int{0, 32} {
		b = binary.LittleEndian.AppendUint32(b, uint32(c.permitted>>shift))
		b = binary.LittleEndian.AppendUint32(b, uint32(c.inheritable>>shift))
	}
	return string(b), nil
}

// clause applies one clause: names, then operators with flags.
func (c *capSets) clause(clause string) error {
	at := strings.IndexAny(clause, "=+-")
	if at < 0 {
		return fmt.Errorf("%q: after the capabilities come =, + or - and e, i, p", clause)
	}
	names, ops := clause[:at], clause[at:]
	mask, err := capMask(names)
	if err != nil {
		return err
	}
	if names == "" && ops[0] != '=' {
		return fmt.Errorf("%q: %c needs the names of capabilities before it", clause, ops[0])
	}
	for first := true; ops != ""; first = false {
		op := ops[0]
		ops = ops[1:]
		flags := ops[:len(ops)-len(strings.TrimLeft(ops, "eip"))]
		ops = ops[len(flags):]
		if ops != "" && strings.IndexByte("+-", ops[0]) < 0 || flags == "" && op != '=' || op == '=' && !first {
			return fmt.Errorf("%q: after =, + and - come e, i and p", clause)
		}
		if op == '=' {
			c.set(mask, "eip", false)
		}
		c.set(mask, flags, op != '-')
	}
	return nil
}

func (c *capSets) set(mask uint64, flags string, on bool) {
	for _, f := range flags {
		set := map[rune]*uint64{'e': &c.effective, 'i': &c.inheritable, 'p': &c.permitted}[f]
		if *set &^= mask; on {
			*set |= mask
		}
	}
}

// capMask returns the bits of a list of names; of all if it is empty or "all".
func capMask(names string) (uint64, error) {
	if names == "" || strings.EqualFold(names, "all") {
		return 1<<len(capNames) - 1, nil
	}
	var mask uint64
	for name := range strings.SplitSeq(names, ",") {
		short, ok := strings.CutPrefix(strings.ToLower(name), "cap_")
		i := slices.Index(capNames, short)
		if !ok || i < 0 {
			return 0, fmt.Errorf("%.40q is not a capability", name)
		}
		mask |= 1 << i
	}
	return mask, nil
}
