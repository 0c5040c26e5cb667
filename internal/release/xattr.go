package release

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// The extended attributes that a release can carry, beside user.*.
const (
	xattrAccess  = "system.posix_acl_access"
	xattrDefault = "system.posix_acl_default"
	xattrCaps    = "security.capability"
)

// shipped says that an extended attribute is part of a release. Labels
// (security.selinux, security.ima) are the policy of a host, trusted.* is the
// state of file systems.
func shipped(name string) bool {
	return name == xattrAccess || name == xattrDefault || name == xattrCaps ||
		strings.HasPrefix(name, "user.") && len(name) > len("user.")
}

// checkXattr says what is wrong with one attribute of an entry.
func checkXattr(e *Entry, name, value string) error {
	switch {
	case !shipped(name) || len(name) > maxName || strings.IndexByte(name, 0) >= 0:
		return errors.New("it is not one that a release can carry")
	case len(value) > maxXattr:
		return fmt.Errorf("its value has more than %d bytes", maxXattr)
	case e.Type == Symlink:
		return errors.New("a symbolic link has no attributes of its own")
	case name == xattrDefault && e.Type != Dir:
		return errors.New("only a directory has a default ACL")
	case name == xattrCaps && e.Type != File:
		return errors.New("only a file has capabilities")
	case name == xattrCaps:
		return checkCapsValue(value)
	}
	return nil
}

// checkCapsValue checks the form of capability(7), "File capability extended
// attribute versioning": version 2, or 3, which has the root of a namespace.
func checkCapsValue(value string) error {
	if len(value) >= 4 {
		magic := binary.LittleEndian.Uint32([]byte(value))
		switch version := magic >> 24; {
		case magic&0xfffffe != 0:
		case version == 2 && len(value) == 20, version == 3 && len(value) == 24:
			return nil
		}
	}
	return errors.New("the value is not one of file capabilities")
}
