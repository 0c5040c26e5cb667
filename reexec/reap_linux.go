package reexec

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxReaped bounds the threads that wait for inherited children.
const maxReaped = 64

// reapInherited waits for the children of our predecessor, which are ours and of
// which the new code knows nothing: without it they would stay as zombies. It
// runs before the program can have children of its own.
func (p *Process) reapInherited() {
	// An exec leaves one thread, the first, which has the children of all. The
	// number is that of this /proc, whosever PID namespace it shows.
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return
	}
	text, _ := os.ReadFile(filepath.Join("/proc/self/task", self, "children"))
	n := 0
	for _, word := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(word)
		if err != nil || n == maxReaped {
			continue
		}
		n++
		go func() {
			if proc, err := os.FindProcess(pid); err == nil {
				proc.Wait()
			}
		}()
	}
	if n == maxReaped {
		p.tell(Event{Kind: Warning, Err: fmt.Errorf("more than %d children were inherited; not all are waited for", maxReaped)})
	}
}
