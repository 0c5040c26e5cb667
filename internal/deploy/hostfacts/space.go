package hostfacts

import (
	"math"

	"golang.org/x/sys/unix"
)

// Space is what a file system has left for us.
type Space struct {
	Bytes     uint64 // free
	Inodes    uint64 // free; math.MaxUint64 where they are made as needed (btrfs)
	Block     uint64 // bytes; the size of a file is rounded up to it
	AllBytes  uint64 // of the file system, used and free
	AllInodes uint64 // 0 where they are made as needed
}

// FreeSpace says what is left for this process on the file system that the
// path is on. Quotas are not known; and on btrfs, where it depends on what is
// written, the number is the file system's estimate.
func FreeSpace(path string) (Space, error) {
	st, err := statfs(path)
	if err != nil {
		return Space{}, err
	}
	s := Space{
		Bytes:     st.Bavail * uint64(st.Frsize),
		Inodes:    st.Ffree,
		Block:     uint64(st.Bsize),
		AllBytes:  st.Blocks * uint64(st.Frsize),
		AllInodes: st.Files,
	}
	if st.Type == unix.EXT4_SUPER_MAGIC && mayUseReserve() { // ext2 and ext3, too
		s.Bytes = st.Bfree * uint64(st.Frsize)
	}
	if st.Files == 0 {
		s.Inodes = math.MaxUint64
	}
	return s, nil
}

// mayUseReserve says whether we get the blocks that ext4 keeps for root, a
// twentieth usually. It gives them to its reserve's owner, too, who is not
// known here.
func mayUseReserve() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if unix.Capget(&head, &data[0]) != nil {
		return false
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) != 0
}
