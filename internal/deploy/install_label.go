package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// InstallLabel says which SELinux label an installed file gets. The zero value
// is what the policy says for its path, as install(1) does, or with Keep that of
// the file that is replaced. Where SELinux is off, none is set.
type InstallLabel struct {
	Preserve bool   // the source's
	Policy   bool   // the policy's, with Keep too
	Context  string // this one
}

// prepareLabel warns, as install(1) does, where a label is asked for and
// SELinux is off.
func (in *installer) prepareLabel() {
	l := &in.o.Label
	if (l.Preserve || l.Context != "") && !hasSELinux() {
		in.warn("ignoring the security context, since SELinux is off")
		*l = InstallLabel{}
	}
}

func hasSELinux() bool { return unix.Access("/sys/fs/selinux/enforce", unix.F_OK) == nil }

// label returns the label for a file, or "" if it has none to be set: then it
// has the one that the kernel gives a new file in that directory.
//
// A file that is made under another name and renamed would keep the label that
// was right for that other name: the policy's rules for names do not see a
// rename. So the label for the path in public is set before.
func (in *installer) label(it *installItem) string {
	switch l := in.o.Label; {
	case l.Context != "":
		return l.Context + "\x00"
	case l.Preserve:
		real, err := filepath.EvalSymlinks(it.source)
		if err != nil {
			return "" // it goes away; to open it will say so
		}
		label, _ := attrOf(real, labelAttr)
		return label
	}
	return in.labelAt(in.dir, it.dest)
}

// labelAt is the policy's label for a path, or "" if the file system that the
// directory is on has none.
func (in *installer) labelAt(dir *os.File, path string) string {
	label := in.o.LabelFor(path)
	if label == "" || dir == nil {
		return label
	}
	if _, err := attrOf(fdPath(dir)+"/.", labelAttr); err != nil {
		return ""
	}
	return label
}

// policyLabel asks the policy for the label of a path, by the program that
// libselinux brings. Without SELinux, or without an answer, it is "".
func policyLabel(path string) string {
	if !hasSELinux() {
		return ""
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return ""
	}
	out, err := exec.Command("matchpathcon", "-n", abs).Output()
	label := strings.TrimSpace(string(out))
	if err != nil || label == "" || label == "<<none>>" {
		return ""
	}
	return label + "\x00"
}
