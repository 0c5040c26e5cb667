package destroytest

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk/disktest"
	"moult.example/internal/testneed"
)

// shutDown stops a file system at once, without its log being written: all that
// was not synced is lost, and whatever is asked of it from now on fails with
// EIO (XFS_IOC_GOINGDOWN, which ext4 has taken over; btrfs has none).
func shutDown(dir string) error {
	const goingDown, noLogFlush = 0x8004587d, 2
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.IoctlSetPointerInt(int(f.Fd()), goingDown, noLogFlush)
}

// TestShutDown takes the file system away from under moult, at random moments of
// an apply or a rollback. Moult meets the errors of a dead disk, and what its
// exit status says must be so after the disk is back: 0, the new release; 1, the
// old one; 4 or none at all, one of the two.
func TestShutDown(t *testing.T) {
	testneed.Root(t)
	for _, fsType := range []string{"ext4", "xfs"} {
		t.Run(fsType, func(t *testing.T) {
			t.Parallel()
			loop := disktest.LoopFS(t, fsType, 400)
			h := newHostIn(t, loop.Dir)
			src := disktest.TempDir(t) // what is to arrive is not on the disk that dies
			blackouts := []*blackout{newBlackout(h, "owned", src), newBlackout(h, "shared", src)}
			cuts, hits := number(t, "MOULT_CUTS", 30), map[string]int{}
			for n := range cuts {
				b := blackouts[n%2]
				status := b.cut(n)
				loop.Unmount(t)
				loop.Mount(t)
				hit := b.judge(n, status)
				hits[fmt.Sprintf("%s, %s", b.name, hit)]++
				if t.Failed() {
					return
				}
			}
			t.Logf("%d cuts: %v", cuts, hits)
		})
	}
}

// blackout is a target whose file system is shut down again and again.
type blackout struct {
	*campaign
	live, before *disktest.Tree           // what people see now, and what they saw before that
	next         int                      // the number of the next release
	took         map[string]time.Duration // by command, undisturbed
	args         []string                 // the last command
	said         string                   // what it has said
	after        *disktest.Tree           // what it was to bring
}

func newBlackout(h *host, layout, src string) *blackout {
	h.Helper()
	b := &blackout{campaign: newCampaign(h, layout, src), took: map[string]time.Duration{}}
	for n := range 3 {
		start := time.Now()
		h.ok("apply", "--packaged", "--layout", layout, b.release(n), layout)
		b.took["apply"] = time.Since(start)
	}
	start := time.Now()
	h.ok("rollback", layout)
	b.took["rollback"] = time.Since(start)
	b.live, b.before, b.next = b.releases[1], b.releases[2], 3
	return b
}

// cut runs a command and shuts the file system down meanwhile.
func (b *blackout) cut(n int) (status int) {
	b.Helper()
	for b.releases[b.next%steps] == b.live {
		b.next++
	}
	b.args, b.after = []string{"apply", "--packaged", b.release(b.next), b.name}, b.releases[b.next%steps]
	if n%5 == 4 {
		b.args, b.after = []string{"rollback", b.name}, b.before
	}
	b.next++
	cmd := b.command(b.args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	took := b.took[b.args[0]]
	must(b, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	pause := time.Duration(rand.Float64() * 1.1 * float64(took))
	if n%3 > 0 { // aimed at the commit
		for !b.decided() && len(ended) == 0 {
			time.Sleep(50 * time.Microsecond)
		}
		pause = time.Duration(rand.Int64N(int64(took) / 12))
	}
	time.Sleep(pause)
	if err := shutDown(b.dir); err == unix.ENOTTY {
		testneed.Skip(b, "this file system cannot be shut down")
	} else {
		must(b, err)
	}
	<-ended
	b.said = out.String()
	if status := cmd.ProcessState.ExitCode(); status != 0 && status != 1 && status != 4 {
		b.Errorf("cut %d, %v: exit status %d\n%s", n, b.args, status, b.said)
	}
	return cmd.ProcessState.ExitCode()
}

// judge looks at the file system after it is back.
func (b *blackout) judge(n, status int) (hit string) {
	b.Helper()
	old, new := b.live, b.after
	if b.name == "owned" {
		if err := isOneOf(view(b, b.path(b.name)), old, new); err != nil {
			b.Errorf("cut %d, %v: before recovery: %v", n, b.args, err)
		}
	}
	recovered := b.ok("recover", "--all")
	got := view(b, b.path(b.name))
	isNew := got.Equal(new)
	switch {
	case !isNew && !got.Equal(old):
		b.Errorf("cut %d, %v: %v", n, b.args, isOneOf(got, old, new))
	case status == 0 && !isNew, status == 1 && isNew:
		b.Errorf("cut %d, %v: exit status %d, but afterwards the new release is there: %v\n%s", n, b.args, status, isNew, b.said)
	}
	b.ok("verify", b.name)
	must(b, leftovers(b.path(b.name)))
	if isNew {
		b.live, b.before = new, old
	}
	return fmt.Sprintf("status %d, found %s", status, whatWasFound(recovered.stdout, b.path(b.name)))
}
