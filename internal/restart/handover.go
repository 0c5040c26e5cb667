package restart

import (
	"bytes"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"moult.example/internal/stale"
)

// handover is what tells the process that takes over from one that replaces
// itself by starting another (docs/reexec-protocol.md, spawn). It begins after the
// signal, or is the old one's child by then (a program may see by itself that it
// was replaced), runs as the same user and in the same control group, and says that
// it is the next generation. Whose child it was is not to be seen any more when the
// old one is gone.
type handover struct {
	before  map[int]bool // processes that were there before the signal, but for its children
	user    uint32
	group   []byte
	counted int // the old one's generation
}

func (s *self) newHandover(pid int, before stale.Reexec) handover {
	h := handover{before: map[int]bool{}, counted: before.Generation}
	for _, n := range processes() {
		h.before[n] = s.parent(n) != pid
	}
	h.user, h.group = homeOf(pid)
	return h
}

// heir is the process that has taken over and is ready, 0 if there is none.
func (h *handover) heir() int {
	for _, pid := range processes() {
		if h.before[pid] {
			continue
		}
		if user, group := homeOf(pid); group == nil || user != h.user || !bytes.Equal(group, h.group) {
			continue
		}
		if says := stale.ReexecOf(pid); says != nil && !says.Starting && says.Generation == h.counted+1 {
			return pid
		}
	}
	return 0
}

// processes are those that can be seen.
func processes() (pids []int) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// homeOf is the user of a process and its control groups, nil if it is gone.
func homeOf(pid int) (user uint32, group []byte) {
	dir := "/proc/" + strconv.Itoa(pid)
	var st unix.Stat_t
	if unix.Stat(dir, &st) != nil {
		return 0, nil
	}
	group, err := os.ReadFile(dir + "/cgroup")
	if err != nil {
		return 0, nil
	}
	return st.Uid, group
}
