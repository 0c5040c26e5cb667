package deploy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
	"moult.example/internal/release"
)

// The crash test: each job is recorded once, then every disk that a kill or a
// power cut can leave at any moment of it is built, recovered, and must show
// the old release or the new one, byte for byte, and never a third.

// A crash job works in a base directory that holds the target ("app") and the
// registry ("state").
type crashJob struct {
	name   string
	before func(t testing.TB, base string) // brings the target to where the job begins
	run    func(t *Target) error
}

func applyDir(dir string, o ApplyOptions) func(*Target) error {
	return func(t *Target) error {
		rel, err := release.Open(context.Background(), dir, release.Options{})
		if err != nil {
			return err
		}
		defer rel.Close()
		_, err = t.Apply(context.Background(), rel, o)
		return err
	}
}

func rollback(n int) func(*Target) error {
	return func(t *Target) error {
		_, err := t.Rollback(context.Background(), RollbackOptions{Generation: n})
		return err
	}
}

var ticks atomic.Int64

// crashOptions are the engine's options for a base directory on a disk. The
// clock goes on by a second at every look.
func crashOptions(base string, under func(path string) (disk.FS, error)) Options {
	return Options{
		StateDir: filepath.Join(base, "state"), Disk: under, Grace: time.Nanosecond, Command: "test",
		Now: func() time.Time { return time.Date(2026, 11, 21, 12, 0, int(ticks.Add(1)), 0, time.UTC) },
	}
}

func quiet(path string) (disk.FS, error) {
	fsys, err := disk.Open(path)
	if err != nil {
		return nil, err
	}
	return closing{disktest.NoSync(fsys), fsys}, nil
}

// closing is a wrapped disk that can be closed.
type closing struct {
	disk.FS
	root *disk.Root
}

func (c closing) Close() error { return c.root.Close() }

func with(base string, under func(string) (disk.FS, error), run func(*Target) error) error {
	t, err := Open(filepath.Join(base, "app"), crashOptions(base, under))
	if err != nil {
		return err
	}
	defer t.Close()
	return run(t)
}

// recordJob runs a job on a recorded disk.
func recordJob(t testing.TB, job crashJob, wrap func(disk.FS) disk.FS) (*disktest.Recorder, oracle, error) {
	t.Helper()
	return recordOn(t, job, func(rec *disktest.Recorder, rel string, fsys disk.FS) disk.FS {
		return wrap(rec.Sub(rel, disktest.NoSync(fsys)))
	})
}

// recordMutant runs a job of which the mutant, whose names are those below the
// base, takes something away before it reaches the recorder.
func recordMutant(t testing.TB, job crashJob, mutant func(disk.FS) disk.FS) (*disktest.Recorder, oracle, error) {
	t.Helper()
	return recordOn(t, job, func(rec *disktest.Recorder, rel string, fsys disk.FS) disk.FS {
		return renamed{mutant(rec), rel}
	})
}

func recordOn(t testing.TB, job crashJob, wrap func(rec *disktest.Recorder, rel string, fsys disk.FS) disk.FS) (*disktest.Recorder, oracle, error) {
	t.Helper()
	base := disktest.TempDir(t)
	job.before(t, base)
	o := oracle{always: !strings.HasPrefix(job.name, "shared")}
	var err error
	if o.before, err = view(base); err != nil {
		t.Fatal(err)
	}
	root, err := disk.Open(base)
	must(t, err)
	t.Cleanup(func() { root.Close() })
	rec := disktest.Record(t, base, disktest.NoSync(root))
	under := func(path string) (disk.FS, error) {
		fsys, err := disk.Open(path)
		if err != nil {
			return nil, err
		}
		rel, err := filepath.Rel(base, path)
		if err != nil {
			return nil, err
		}
		return closing{wrap(rec, rel, fsys), fsys}, nil
	}
	err = with(base, under, job.run)
	rec.Mark("done")
	if err == nil {
		if o.after, err = view(base); err != nil {
			t.Fatal(err)
		}
	}
	return rec, o, err
}

func asIs(fsys disk.FS) disk.FS { return fsys }

func writeTrees(t testing.TB) (dir1, dir2 string) {
	return v1.write(t, t.TempDir()), v2.write(t, t.TempDir())
}

func prepared(jobs ...func(*Target) error) func(t testing.TB, base string) {
	return func(t testing.TB, base string) {
		t.Helper()
		for _, job := range jobs {
			must(t, with(base, quiet, job))
		}
	}
}

// present makes a target of a directory with files in it.
func withFiles(then ...func(*Target) error) func(t testing.TB, base string) {
	return func(t testing.TB, base string) {
		t.Helper()
		tree{"bin/tool": "0755:tool 0", "bin/other": "other", "lib/old": "old", "etc/conf": "conf"}.write(t, filepath.Join(base, "app"))
		prepared(then...)(t, base)
	}
}

func crashJobs(t testing.TB) []crashJob {
	d1, d2 := writeTrees(t)
	d3 := tree{"bin/tool": "0755:tool 3", "VERSION": "3"}.write(t, t.TempDir())
	up1, up2, up3 := applyDir(d1, ApplyOptions{}), applyDir(d2, ApplyOptions{}), applyDir(d3, ApplyOptions{Retention: Retention{Generations: 9}})
	forget := func(t *Target) error {
		_, err := t.Forget(context.Background(), ForgetOptions{Force: true})
		return err
	}
	gc := func(t *Target) error {
		_, err := t.GC(context.Background(), GCOptions{Retention: Retention{Generations: -1, Unreadable: true}})
		return err
	}
	keep := func(d string) func(*Target) error {
		return applyDir(d, ApplyOptions{Retention: Retention{Generations: 9}})
	}
	return []crashJob{
		{"owned first", prepared(), up1},
		{"owned update", prepared(up1), up2},
		{"owned rollback", prepared(up1, up2), rollback(-1)},
		{"owned gc", prepared(keep(d1), keep(d2), up3), gc},
		{"owned reuse", prepared(keep(d1), keep(d2), up3), applyDir(d1, few)},
		{"owned forget", prepared(up1, up2), forget},
		{"adopt", withFiles(), applyDir(d1, ApplyOptions{Adopt: true})},
		{"adopt rollback", withFiles(applyDir(d1, ApplyOptions{Adopt: true})), rollback(0)},
		{"shared first", withFiles(), up1},
		{"shared update", withFiles(up1), up2},
		{"shared rollback", withFiles(up1, up2), rollback(-1)},
		{"shared rollback to 0", withFiles(up1, up2), rollback(0)},
		{"shared gc", withFiles(keep(d1), keep(d2), up3), gc},
		{"shared forget", withFiles(up1, up2), forget},
	}
}

func TestCrash(t *testing.T) {
	t.Parallel()
	for _, job := range crashJobs(t) {
		t.Run(job.name, func(t *testing.T) {
			rec, o, err := recordJob(t, job, asIs)
			must(t, err)
			states := rec.States(disktest.Options{Max: crashStates(t)})
			result := disktest.Try(t, states, o.check)
			t.Logf("%d operations, %d states", len(rec.Log()), result.States)
			if len(result.Bad) > 0 {
				t.Error(result)
			}
		})
	}
}

// crashStates bounds the states of one job: a sample in the short run, which
// the race detector slows down, all of them with MOULT_CRASH=all.
func crashStates(t testing.TB) int {
	if os.Getenv("MOULT_CRASH") == "all" {
		return 0
	}
	return 400
}

// TestCrashInRecovery cuts recovery itself short, at every kill state of a job,
// and lets another one finish.
func TestCrashInRecovery(t *testing.T) {
	t.Parallel()
	for _, job := range crashJobs(t) {
		t.Run(job.name, func(t *testing.T) {
			rec, o, err := recordJob(t, job, asIs)
			must(t, err)
			log := rec.Log()
			states := 0
			for s := range disktest.Kills(rec.Initial(), log) {
				if s.First%crashStride(t) != 0 {
					continue
				}
				again, err := recordRecovery(t, s)
				must(t, err)
				both := append(append([]disktest.Op{}, log[:s.First]...), again...)
				cuts := disktest.States(rec.Initial(), both, disktest.Options{From: s.First, Random: 2, Singles: 40, Max: 60})
				result := disktest.Try(t, slices.Collect(cuts), o.check)
				states += result.States
				if len(result.Bad) > 0 {
					t.Fatalf("recovery after %s:\n%v", s, result)
				}
			}
			t.Logf("%d states", states)
		})
	}
}

// crashStride is how many of the kills are looked at in the short run.
func crashStride(t testing.TB) int {
	if os.Getenv("MOULT_CRASH") == "all" {
		return 1
	}
	return 11
}

// recordRecovery recovers from a kill and returns what that did.
func recordRecovery(t testing.TB, s disktest.State) ([]disktest.Op, error) {
	base := disktest.TempDir(t)
	if err := s.Materialize(base); err != nil {
		return nil, err
	}
	root, err := disk.Open(base)
	must(t, err)
	defer root.Close()
	rec := disktest.Record(t, base, root)
	under := func(path string) (disk.FS, error) {
		fsys, err := disk.Open(path)
		if err != nil {
			return nil, err
		}
		rel, err := filepath.Rel(base, path)
		return closing{rec.Sub(rel, disktest.NoSync(fsys)), fsys}, err
	}
	err = with(base, under, func(t *Target) error {
		_, err := t.Recover(context.Background())
		if errors.Is(err, ErrNoTarget) {
			return nil
		}
		return err
	})
	return rec.Log(), err
}
