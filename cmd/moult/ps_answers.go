package main

import (
	"os"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// servers are the file systems that programs serve, of which it is asked whether
// they answer.
type servers struct {
	mu      sync.Mutex
	hanging map[string]<-chan struct{} // closed when the child that has asked is over
}

// answersFlag is for our own child.
const answersFlag = "ask-file-system"

// answer lets a child ask, since whoever asks a file system that hangs can only
// end when the mount goes. The child is left behind then. A path that is still
// being asked is not asked again.
func (s *servers) answer(path string, within time.Duration) bool {
	s.mu.Lock()
	over := s.hanging[path]
	s.mu.Unlock()
	if over == nil {
		self, err := os.Executable()
		if err != nil {
			return false
		}
		child := exec.Command(self, "ps", "--"+answersFlag, path)
		child.Args[0] = os.Args[0]
		child.Dir = "/"
		if child.Start() != nil {
			return false
		}
		ended := make(chan struct{})
		go func() {
			_ = child.Wait() // any end is an answer
			close(ended)
		}()
		over = ended
		defer func() { _ = child.Process.Kill() }() // of no use if it hangs, until it does no more
	}
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case <-over:
		s.remember(path, nil)
		return true
	case <-timer.C:
		s.remember(path, over)
		return false
	}
}

func (s *servers) remember(path string, over <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hanging == nil {
		s.hanging = map[string]<-chan struct{}{}
	}
	if over == nil {
		delete(s.hanging, path)
		return
	}
	s.hanging[path] = over
}

// askFileSystem is what the child does. Statfs is never answered from a cache.
func askFileSystem(path string) error {
	var st unix.Statfs_t
	return unix.Statfs(path, &st)
}
