package deploy

import (
	"testing"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

// The seeded faults: each takes one step away from the engine, or moves it, and
// the crash test has to notice.
var mutants = []struct {
	name string
	job  string // on which it shows
	make func(disk.FS) disk.FS
}{
	{"the stage is not synced", "owned update", drop(disktest.OpSyncFS, "")},
	{"the stage is not synced", "shared update", drop(disktest.OpSyncFS, "")},
	{"the journal's bytes are not synced", "shared update", drop(disktest.OpSync, "journal.new")},
	{"the journal's name is not synced", "shared update", dropFirstSyncDir("*/.moult/app")},
	{"generations is not synced", "owned update", drop(disktest.OpSyncDir, "*/.moult/generations")},
	{"new links are not synced before the switch", "owned update", drop(disktest.OpSyncDir, "app")},
	{"the switch is not synced", "owned rollback", drop(disktest.OpSyncDir, "app/.moult")},
	{"directories are not synced after the exchange", "shared update", drop(disktest.OpSyncDir, "app/bin")},
	{"the staged list is not synced", "shared first", drop(disktest.OpSync, "staged.json.new")},
	{"the journal goes before the directories are synced", "shared rollback", delay(disktest.OpSyncDir, "app/bin", disktest.OpRemove, "journal")},
	{"live moves before the new links", "owned update", delay(disktest.OpSymlink, "app/extra", disktest.OpRemove, "journal")},
	{"adopted names are not synced", "adopt", drop(disktest.OpSyncDir, "app")},
	{"the name of what is removed is not synced", "owned gc", drop(disktest.OpSyncDir, "*/.moult/generations")},
	{"the name of what is made of an old one is not synced", "owned reuse", drop(disktest.OpSyncDir, "*/.moult/generations")},
	{"forgotten names are not synced", "owned forget", drop(disktest.OpSyncDir, "app/.moult/generations/2")},
}

func drop(kind disktest.Kind, pattern string) func(disk.FS) disk.FS {
	return func(fsys disk.FS) disk.FS { return disktest.Drop(fsys, disktest.Is(kind, pattern)) }
}

func dropFirstSyncDir(pattern string) func(disk.FS) disk.FS { return drop(disktest.OpSyncDir, pattern) }

func delay(kind disktest.Kind, pattern string, until disktest.Kind, name string) func(disk.FS) disk.FS {
	return func(fsys disk.FS) disk.FS {
		return disktest.Delay(fsys, disktest.Is(kind, pattern), disktest.Is(until, name))
	}
}

// TestMutants shows that the crash test can fail.
func TestMutants(t *testing.T) {
	t.Parallel()
	jobs := map[string]crashJob{}
	for _, job := range crashJobs(t) {
		jobs[job.name] = job
	}
	for _, m := range mutants {
		t.Run(m.name+", "+m.job, func(t *testing.T) {
			rec, o, err := recordMutant(t, jobs[m.job], m.make)
			if err != nil {
				return // the job itself noticed
			}
			result := disktest.TryUntilBad(t, rec.States(disktest.Options{Max: 600}), o.check)
			if len(result.Bad) == 0 {
				t.Errorf("not caught in %d states", result.States)
			}
			t.Logf("caught in the %dth state or before", result.States)
		})
	}
}
