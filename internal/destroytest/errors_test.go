package destroytest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk/disktest"
)

// stride is how many operations lie between two that fail, in the short run.
const stride = 3

type namedErrno struct {
	name  string
	errno syscall.Errno
}

var errnos = []namedErrno{{"eio", unix.EIO}, {"enospc", unix.ENOSPC}, {"exdev", unix.EXDEV}, {"erofs", unix.EROFS}}

// TestErrors fails operations of each job, one or all from there on, and holds
// moult to what its exit status says: 1, and nothing has changed, also before a
// recovery; 4, and a recovery makes it whole; 0, and the job is done (what
// failed was a cache). The message has to name the job, the file and the cause.
func TestErrors(t *testing.T) {
	for k, j := range jobs() {
		t.Run(j.name, func(t *testing.T) {
			t.Parallel()
			b := j.prepare(t)
			bad, statuses := faults{}, map[int]int{}
			for _, p := range b.points(k) {
				n, e, on := p.n, p.errno, ""
				if p.on {
					on = "-"
				}
				b.again()
				env := []string{fmt.Sprintf("MOULT_FAULT=%s:%d%s", e.name, n, on), "MOULT_FAULT_LOG=" + b.path("log")}
				got := b.finish(b.faulty(env, j.do...))
				statuses[got.status]++
				ops := b.log()
				if len(ops) < n {
					continue // workers come in another order, and there were fewer
				}
				failed := ops[n-1 : n]
				if on != "" {
					failed = ops[n-1:]
				}
				if err := b.afterError(got, failed, e.errno); err != nil {
					bad.add(b.host, n, fmt.Errorf("%s%s at %s: %w", e.name, on, ops[n-1], err))
				}
			}
			bad.report(t, "operation")
			t.Logf("exit statuses: %v", statuses)
		})
	}
}

// point is one operation that fails, and whether all do from there on.
type point struct {
	n     int
	errno namedErrno
	on    bool
}

// points are every few operations, each with another error; and a disk that dies
// at each step of writing the journal, when it is not sure what is decided.
func (b *bench) points(first int) (all []point) {
	for n := 1 + first%stride; n <= len(b.operations); n += stride {
		k := n / stride
		all = append(all, point{n, errnos[k%len(errnos)], k/len(errnos)%2 == 1})
	}
	if at := b.decision(); at > 0 {
		for n := at - 1; n <= at+2; n++ {
			all = append(all, point{n, errnos[0], true})
		}
	}
	return all
}

// afterError judges a job of which one operation, or all from it on, failed.
func (b *bench) afterError(got ended, failed []string, errno syscall.Errno) error {
	b.Helper()
	now, err := viewOf(b.app)
	if err != nil {
		return err
	}
	switch got.status {
	case 0:
		if !now.Equal(b.new) {
			return fmt.Errorf("status 0, but:\n%s", b.new.Diff(now))
		}
	case 1:
		if !now.Equal(b.old) {
			return fmt.Errorf("status 1, but it has changed something:\n%s%v", b.old.Diff(now), got)
		}
		if gone := b.goneGenerations(); len(gone) > 0 {
			return fmt.Errorf("status 1, but there is no way back to %v any more: %v", gone, got)
		}
	case 4:
	default:
		return fmt.Errorf("%v", got)
	}
	var errs []error
	if got.status != 0 {
		errs = append(errs, b.names(got, failed, errno))
	}
	decided := b.decided()
	if decided && got.status != 4 {
		errs = append(errs, fmt.Errorf("there is a journal: %v", got))
	}
	_, err = b.recovered()
	errs = append(errs, err)
	after, err := viewOf(b.app)
	switch {
	case err != nil:
		errs = append(errs, err)
	case got.status == 1 && !after.Equal(b.old):
		errs = append(errs, fmt.Errorf("status 1, and recovery brought something else:\n%s%v", b.old.Diff(after), got))
	case decided && !after.Equal(b.new), !decided && !after.Equal(now):
		errs = append(errs, fmt.Errorf("after recovery:\n%s%v", b.new.Diff(after), got))
	}
	errs = append(errs, b.doneAgain())
	return errors.Join(errs...)
}

// goneGenerations are those that were there when the job began.
func (b *bench) goneGenerations() (gone []string) {
	b.Helper()
	if b.start["app"] == nil {
		return nil
	}
	for name := range b.start["app"].Entries {
		generation, err := filepath.Match("generations/[0-9]*", strings.TrimPrefix(strings.TrimPrefix(name, ".moult/"), "app/"))
		must(b, err)
		if _, err := os.Lstat(filepath.Join(b.app, name)); err != nil && generation {
			gone = append(gone, name)
		}
	}
	slices.Sort(gone)
	return gone
}

// names wants the message to say which job failed, at which file, and why. Of
// several failures it may name any: some are of no consequence.
func (b *bench) names(got ended, failed []string, errno syscall.Errno) error {
	b.Helper()
	var errs []error
	if want := "moult: " + b.do[0] + ": "; !strings.HasPrefix(lastError(got), want) {
		errs = append(errs, fmt.Errorf("the message does not begin with %q", want))
	}
	if !strings.Contains(got.stderr, errno.Error()) {
		errs = append(errs, fmt.Errorf("the message does not say %q", errno.Error()))
	}
	if !slices.ContainsFunc(failed, func(op string) bool { return b.named(got, op) }) {
		errs = append(errs, errors.New("the message does not name the file"))
	}
	if len(errs) > 0 {
		errs = append(errs, fmt.Errorf("%v", got))
	}
	return errors.Join(errs...)
}

// named says whether a message names the file of an operation. The name of a
// temporary says nothing to anybody: then it has to be that of a file which the
// release has, or had.
func (b *bench) named(got ended, op string) bool {
	words := strings.Fields(op)
	if len(words) < 2 || words[1] == "." {
		return true // syncfs(2) has no file
	}
	if !strings.HasPrefix(filepath.Base(words[1]), tempPrefix) {
		return strings.Contains(got.stderr, filepath.Base(words[1]))
	}
	for _, view := range []*disktest.Tree{b.old, b.new} {
		for name := range view.Entries {
			if strings.Contains(got.stderr, name) {
				return true
			}
		}
	}
	return false
}

// lastError is the line that says why a command ended.
func lastError(got ended) string {
	last := ""
	for line := range strings.Lines(got.stderr) {
		if !strings.HasPrefix(line, "moult: hint:") {
			last = line
		}
	}
	return last
}

// TestInstallErrors does the same to moult install, at each operation.
func TestInstallErrors(t *testing.T) {
	for _, i := range installs {
		t.Run(i.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			installFiles.write(t, h.dir)
			start := capture(t, h.path("dst"))
			h.ok(i.do...)
			end := capture(t, h.path("dst"))
			bad, statuses := faults{}, map[int]int{}
			for n := 1; ; n++ {
				e := errnos[n%len(errnos)]
				must(t, os.RemoveAll(h.path("dst")))
				must(t, os.Mkdir(h.path("dst"), 0o755))
				must(t, start.Materialize(h.path("dst")))
				must(t, os.WriteFile(h.path("log"), nil, 0o644))
				env := []string{fmt.Sprintf("MOULT_FAULT=%s:%d", e.name, n), "MOULT_FAULT_LOG=" + h.path("log")}
				got := h.finish(h.faulty(env, i.do...))
				log, err := os.ReadFile(h.path("log"))
				must(t, err)
				ops := strings.Split(string(log), "\n")
				if len(ops) <= n {
					break
				}
				statuses[got.status]++
				if err := h.afterInstallError(got, ops[n-1], start, end, e.errno); err != nil {
					bad.add(h, n, fmt.Errorf("%s: %w", ops[n-1], err))
				}
			}
			bad.report(t, "operation")
			t.Logf("exit statuses: %v", statuses)
		})
	}
}

func (h *host) afterInstallError(got ended, op string, start, end *disktest.Tree, errno syscall.Errno) error {
	h.Helper()
	now := withoutInstallTemps(capture(h, h.path("dst")))
	var err error
	switch {
	case got.status == 0 && !now.Equal(end):
		err = fmt.Errorf("status 0, but:\n%s", end.Diff(now))
	case got.status == 1 && !now.Equal(start):
		err = fmt.Errorf("status 1, but it has changed something:\n%s%v", start.Diff(now), got)
	case got.status == 4:
		err = eachIsOneOf(now, start, end)
	case got.status > 1 || got.status < 0:
		err = fmt.Errorf("%v", got)
	}
	if got.status == 0 {
		return err
	}
	for _, words := range []string{"moult: install: ", "dst", errno.Error()} {
		if words == "dst" && isInstallDir(op) {
			continue // the disk that fails names directories as it was asked, without its own path
		}
		if !strings.Contains(got.stderr, words) {
			err = errors.Join(err, fmt.Errorf("the message does not say %q: %v", words, got))
		}
	}
	return err
}

// isInstallDir says that an operation is on a directory that files are installed
// into, or on one that is made.
func isInstallDir(op string) bool {
	return len(strings.Fields(op)) > 2 && !strings.Contains(op, ".moult-install") && !strings.Contains(op, "/")
}
