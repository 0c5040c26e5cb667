package linkcheck

import (
	"debug/elf"
	"os"
	"strings"
)

// subdirs are the subdirectories for kinds of processors that a directory has,
// in the loader's order.
func (c *checker) subdirs(sys *system, dir string) []string {
	k := subdirsKey{sys, dir}
	subs, known := c.subs[k]
	if known {
		return subs
	}
	has := func(sub string) bool { return c.tree.dir(dir+"/"+sub, 0).err == nil }
	if sys.levels && has("glibc-hwcaps") {
		for _, level := range c.hwcaps(sys.machine) {
			subs = append(subs, dir+"/glibc-hwcaps/"+level)
		}
	}
	for _, sub := range sys.legacy {
		if has(sub) {
			subs = append(subs, dir+"/"+sub)
		}
	}
	c.subs[k] = subs
	return subs
}

type subdirsKey struct {
	sys *system
	dir string
}

// legacyDirs are what glibc before 2.37 looks at in each directory for x86-64,
// besides names of some of Intel's processors.
var legacyDirs = []string{"tls/x86_64/x86_64", "tls/x86_64", "tls", "x86_64/x86_64", "x86_64"}

// hwcaps are the names of the processor's levels, best first.
func (c *checker) hwcaps(machine elf.Machine) []string {
	if c.o.HWCaps != nil || machine != elf.EM_X86_64 {
		return c.o.HWCaps
	}
	if !c.hwcapsKnown {
		c.hwcapsKnown = true
		c.ownHWCaps = x86Levels(processorFlags())
	}
	return c.ownHWCaps
}

// processorFlags are the flags of this host's first processor.
func processorFlags() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, 16<<10)
	n, _ := f.Read(b) // the first processor is enough, and others cost time
	for line := range strings.Lines(string(b[:n])) {
		if name, flags, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "flags" {
			return flags
		}
	}
	return ""
}

// x86Levels are the levels of the x86-64 psABI that a processor with these
// flags of /proc/cpuinfo serves, best first.
func x86Levels(flags string) (levels []string) {
	has := map[string]bool{}
	for _, f := range strings.Fields(flags) {
		has[f] = true
	}
	levels = []string{}
	for i, need := range []string{
		"cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3",
		"avx avx2 bmi1 bmi2 f16c fma abm movbe xsave",
		"avx512f avx512bw avx512cd avx512dq avx512vl",
	} {
		for _, f := range strings.Fields(need) {
			if !has[f] {
				return levels
			}
		}
		levels = append([]string{"x86-64-v" + string(rune('2'+i))}, levels...)
	}
	return levels
}
