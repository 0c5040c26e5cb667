package deploy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

// TestFaults fails each operation of each job in turn. A job that reports an
// ordinary error must have changed nothing that anybody sees, even before
// recovery; one that says it is unfinished must be finished, or taken back, by
// recovery; one that succeeds all the same (a cache could not be written) must
// have done its work.
func TestFaults(t *testing.T) {
	errnos := []syscall.Errno{unix.EIO, unix.ENOSPC, unix.EXDEV, unix.EROFS}
	for _, job := range crashJobs(t) {
		t.Run(job.name, func(t *testing.T) {
			t.Parallel()
			_, o, err := recordJob(t, job, asIs)
			must(t, err)
			plain, unfinished, anyway := 0, 0, 0
			for n := 1; ; n++ {
				errno := errnos[n%len(errnos)]
				base := disktest.TempDir(t)
				job.before(t, base)
				in, under := injected(t, base, disktest.Fault{At: n, Errno: errno, On: n%2 == 0})
				err := with(base, under, job.run)
				what, hit := in.Hit()
				if !hit {
					break
				}
				switch {
				case err == nil:
					anyway++
				case errors.Is(err, ErrUnfinished) || errors.Is(err, ErrAfter):
					unfinished++
				default:
					plain++
				}
				if err := o.afterFault(base, err); err != nil {
					t.Errorf("%s at operation %d, %s: %v", errno, n, what, err)
				}
			}
			t.Logf("%d refused with nothing changed, %d unfinished, %d done anyway", plain, unfinished, anyway)
		})
	}
}

// afterFault checks what a job that ended with cause has left.
func (o oracle) afterFault(base string, cause error) error {
	got, err := view(base)
	if err != nil {
		return err
	}
	switch {
	case cause == nil && got != o.after:
		return fmt.Errorf("success was reported, but:\n%s", got)
	case cause != nil && !errors.Is(cause, ErrUnfinished) && !errors.Is(cause, ErrAfter) && got != o.before:
		return fmt.Errorf("the error says that nothing has changed (%v), but:\n%s", cause, got)
	}
	if err := recovered(base); err != nil {
		return err
	}
	after, err := view(base)
	if err != nil {
		return err
	}
	if after != o.before && after != o.after {
		return fmt.Errorf("after recovery (%v) neither the old release nor the new one:\n%s", cause, after)
	}
	if got == o.after && o.after != o.before && after != o.after {
		return fmt.Errorf("recovery took back what was visible (%v)", cause)
	}
	return leftovers(base)
}

// injected is one disk, on which one operation fails, for all the directories
// that a job opens.
func injected(t testing.TB, base string, f disktest.Fault) (*disktest.Injector, func(path string) (disk.FS, error)) {
	t.Helper()
	root, err := disk.Open(base)
	must(t, err)
	t.Cleanup(func() { root.Close() })
	in := disktest.Inject(disktest.NoSync(root), f)
	return in, func(path string) (disk.FS, error) {
		if _, err := os.Stat(path); err != nil {
			return nil, err
		}
		rel, err := filepath.Rel(base, path)
		return renamed{in, rel}, err
	}
}
