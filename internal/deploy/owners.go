package deploy

import (
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"

	"moult.example/internal/disk"
	"moult.example/internal/release"
)

// owners turns the owners of a manifest into this host's numbers.
type owners struct {
	uid, gid int // for entries that name none
	users    map[string]int
	groups   map[string]int
}

// newOwners resolves for who applies now; for a generation that is there
// already, its Info says who that was.
func newOwners() *owners { return ownersOf(Info{UID: os.Geteuid(), GID: os.Getegid()}) }

func ownersOf(info Info) *owners {
	return &owners{uid: info.UID, gid: info.GID, users: map[string]int{}, groups: map[string]int{}}
}

// of returns the numbers of an entry's owner and group.
func (o *owners) of(e *release.Entry) (uid, gid int, err error) {
	uid, gid = o.uid, o.gid
	if e.Owner != "" {
		if uid, err = lookUp(o.users, e.Owner, userID); err != nil {
			return 0, 0, err
		}
	}
	if e.Group != "" {
		if gid, err = lookUp(o.groups, e.Group, groupID); err != nil {
			return 0, 0, err
		}
	}
	return uid, gid, nil
}

// number returns a copy of a manifest with numbers for owners. One that this
// host does not know stays as it is.
func (o *owners) number(m *release.Manifest) *release.Manifest {
	c := *m
	c.Entries = slices.Clone(m.Entries)
	for i := range c.Entries {
		if uid, gid, err := o.of(&c.Entries[i]); err == nil {
			c.Entries[i] = fixOwners(c.Entries[i], uid, gid)
		}
	}
	return &c
}

func lookUp(known map[string]int, name string, ask func(string) (int, error)) (int, error) {
	if id, ok := known[name]; ok {
		return id, nil
	}
	id, err := strconv.Atoi(name)
	if err != nil || id < 0 {
		if id, err = ask(name); err != nil {
			return 0, err
		}
	}
	if id > disk.MaxID {
		return 0, fmt.Errorf("%s is beyond the highest id, %d", name, int64(disk.MaxID))
	}
	known[name] = id
	return id, nil
}

func userID(name string) (int, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("there is no user %q on this host", name)
	}
	return strconv.Atoi(u.Uid)
}

func groupID(name string) (int, error) {
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("there is no group %q on this host", name)
	}
	return strconv.Atoi(g.Gid)
}
