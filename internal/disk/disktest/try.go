package disktest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// TempDir is t.TempDir in memory where there is such a place (/dev/shm), because
// thousands of small trees are made and thrown away.
func TempDir(t testing.TB) string {
	t.Helper()
	where := "/dev/shm"
	var st unix.Statfs_t
	if unix.Statfs(where, &st) != nil || st.Type != unix.TMPFS_MAGIC || unix.Access(where, unix.W_OK) != nil {
		where = t.TempDir()
	}
	above, err := os.MkdirTemp(where, "moult-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeAll(above); err != nil {
			t.Error(err)
		}
	})
	dir := filepath.Join(above, "0") // as t.TempDir does: the directory above is the test's, too
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// removeAll removes a tree, directories that only root may write too.
func removeAll(dir string) error {
	if os.RemoveAll(dir) == nil {
		return nil
	}
	filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			os.Chmod(path, 0o700)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// Result is how a set of states went.
type Result struct {
	States int
	Bad    []Failure // by the order of the states
}

// Failure is a state on which the check failed.
type Failure struct {
	State State
	Err   error
}

// Try makes each state in a directory of its own and checks it, on all
// processors at once. It returns the failures.
func Try(t testing.TB, states []State, check func(dir string, s State) error) Result {
	t.Helper()
	return try(t, states, check, false)
}

// TryUntilBad is Try that ends with the first failure: for a test of the seeded
// faults, which wants one. States is how many were tried.
func TryUntilBad(t testing.TB, states []State, check func(dir string, s State) error) Result {
	t.Helper()
	return try(t, states, check, true)
}

func try(t testing.TB, states []State, check func(dir string, s State) error, untilBad bool) Result {
	t.Helper()
	top := TempDir(t)
	var result Result
	var bad atomic.Bool
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for n := range next {
				if err := tryOne(top, n, states[n], check); err != nil {
					bad.Store(true)
					mu.Lock()
					result.Bad = append(result.Bad, Failure{states[n], err})
					mu.Unlock()
				}
			}
		})
	}
	for n := range states {
		if untilBad && bad.Load() {
			break
		}
		result.States++
		next <- n
	}
	close(next)
	wg.Wait()
	slices.SortStableFunc(result.Bad, func(a, b Failure) int { return a.State.First - b.State.First })
	return result
}

func tryOne(top string, n int, s State, check func(dir string, s State) error) error {
	above := filepath.Join(top, fmt.Sprint(n)) // its own, so that the check may work beside the tree
	dir := filepath.Join(above, "tree")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	defer removeAll(above)
	if err := s.Materialize(dir); err != nil {
		return err
	}
	return check(dir, s)
}

// String tells the number of states and the first failures.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d states, %d bad", r.States, len(r.Bad))
	for _, f := range r.Bad[:min(len(r.Bad), 5)] {
		fmt.Fprintf(&b, "\n%s\n\t%s", f.State, strings.ReplaceAll(f.Err.Error(), "\n", "\n\t"))
	}
	return b.String()
}
