package deploy_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

// installJob is an installation that a crash may cut short anywhere. What may be
// under each name then is told by the first letter of the bytes: o old, n new, e
// even older (a backup), - nothing.
type installJob struct {
	name  string
	want  map[string]string // name: what may be there; the last letter is what must be there in the end
	mode  map[string]uint32 // of directories, if there
	check func(got map[string]string) error
	o     func(src, dir string) deploy.InstallOptions
	via   func(disk.FS) disk.FS // what lies between the job and the disk; nil is nothing
}

// noLinks is a disk that refuses hard links.
func noLinks(under disk.FS) disk.FS {
	return disktest.Inject(under, disktest.Fault{At: 1, On: true, Errno: unix.EPERM, Match: disktest.Is(disktest.OpLink, "")})
}

var installJobs = []installJob{
	{
		name: "one", want: map[string]string{"x": "on"},
		o: func(src, dir string) deploy.InstallOptions {
			return deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: dir + "/x", Mode: "4711"}
		},
	},
	{
		name: "one that is new", want: map[string]string{"z": "-n", "x": "o"},
		o: func(src, dir string) deploy.InstallOptions {
			return deploy.InstallOptions{Sources: []string{src + "/z"}, Dest: dir, Mode: "4711"}
		},
	},
	{
		name: "several", want: map[string]string{"x": "on", "y": "on", "z": "-n"},
		o: func(src, dir string) deploy.InstallOptions {
			return deploy.InstallOptions{Sources: []string{src + "/x", src + "/y", src + "/z"}, TargetDir: dir, Mode: "4711"}
		},
	},
	{
		name: "with directories", want: map[string]string{"n/o/x": "-n"}, mode: map[string]uint32{"n": 0o755, "n/o": 0o755},
		o: func(src, dir string) deploy.InstallOptions {
			return deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: dir + "/n/o/x", Mode: "4711", MakeLeading: true}
		},
	},
	{
		name: "directories", mode: map[string]uint32{"n": 0o755, "n/o": 0o2750, "p": 0o2750},
		o: func(_, dir string) deploy.InstallOptions {
			return deploy.InstallOptions{Sources: []string{dir + "/n/o", dir + "/p"}, Directories: true, Mode: "2750"}
		},
	},
	{
		name: "backup", want: map[string]string{"x": "on", "x~": "eo"}, check: keptBackup,
		o: func(src, dir string) deploy.InstallOptions {
			return deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: dir, Mode: "4711", Backup: deploy.BackupSimple}
		},
	},
	{
		name: "numbered backups", want: map[string]string{"x": "on", "y": "on", "x.~1~": "-o", "y.~1~": "-o"}, check: keptNumbered,
		o: func(src, dir string) deploy.InstallOptions {
			return deploy.InstallOptions{Sources: []string{src + "/x", src + "/y"}, TargetDir: dir, Mode: "4711", Backup: deploy.BackupNumbered}
		},
	},
	{
		name: "backup without links", want: map[string]string{"x": "on", "x.~1~": "-no"}, via: noLinks, check: keptSwapped,
		o: func(src, dir string) deploy.InstallOptions {
			return deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: dir, Mode: "4711", Backup: deploy.BackupNumbered}
		},
	},
}

// Where the new file is in place, the old one is under the backup's name.
func keptBackup(got map[string]string) error {
	if got["x"] == "n" && got["x~"] != "o" {
		return fmt.Errorf("x is new and x~ is %q: the old one is lost", got["x~"])
	}
	return nil
}

func keptNumbered(got map[string]string) error {
	for _, name := range []string{"x", "y"} {
		if got[name] == "n" && got[name+".~1~"] != "o" {
			return fmt.Errorf("%s is new and its backup is %q: the old one is lost", name, got[name+".~1~"])
		}
	}
	return nil
}

func keptSwapped(got map[string]string) error {
	if got["x"] == "n" && got["x.~1~"] != "o" {
		return fmt.Errorf("x is new and x.~1~ is %q: the old one is lost", got["x.~1~"])
	}
	return nil
}

const installBytes = 300 // of each file, all its first letter

func installTrees(t testing.TB) (src, dir string) {
	t.Helper()
	src, dir = disktest.TempDir(t), disktest.TempDir(t)
	for _, name := range []string{"x", "y", "z"} {
		put(t, filepath.Join(src, name), strings.Repeat("n", installBytes), 0o600)
	}
	for _, name := range []string{"x", "y"} {
		put(t, filepath.Join(dir, name), strings.Repeat("o", installBytes), 0o644)
	}
	put(t, dir+"/x~", strings.Repeat("e", installBytes), 0o644)
	return src, dir
}

// state tells what is under the names of a job, and fails on what is neither old
// nor new, whole and with the right mode.
func (job installJob) state(dir string, done bool) error {
	got := map[string]string{}
	for name, may := range job.want {
		letter, err := wholeFile(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if !strings.Contains(may, letter) || done && letter != may[len(may)-1:] {
			return fmt.Errorf("%s is %q, want one of %q (done: %v)", name, letter, may, done)
		}
		got[name] = letter
	}
	for name, mode := range job.mode {
		st, err := os.Stat(filepath.Join(dir, name))
		if err != nil && (done || !errors.Is(err, fs.ErrNotExist)) {
			return err
		}
		var raw unix.Stat_t
		if err == nil && st.IsDir() && (unix.Stat(filepath.Join(dir, name), &raw) != nil || raw.Mode&0o7777 != mode) {
			return fmt.Errorf("directory %s has mode %04o, want %04o", name, raw.Mode&0o7777, mode)
		}
	}
	if job.check != nil {
		return job.check(got)
	}
	return nil
}

// wholeFile returns the letter of which a file is made, "-" if there is none.
func wholeFile(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err == unix.ENOENT {
		return "-", nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if len(text) != installBytes || strings.Trim(string(text), string(text[:1])) != "" {
		return "", fmt.Errorf("%s is torn: %d bytes, %.20q", path, len(text), text)
	}
	mode := uint32(0o644)
	if text[0] == 'n' {
		mode = 0o4711
	}
	if st.Mode&0o7777 != mode {
		return "", fmt.Errorf("%s is %c with mode %04o, want %04o", path, text[0], st.Mode&0o7777, mode)
	}
	return string(text[:1]), nil
}

// options are a job's, on a disk that record sees and wrap changes.
func (job installJob) options(src, dir string, see func(rel string, under disk.FS) disk.FS) deploy.InstallOptions {
	o := job.o(src, dir)
	o.Disk = func(path string) (disk.FS, error) {
		root, err := disk.Open(path)
		if err != nil {
			return nil, err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return nil, err
		}
		under := see(rel, root)
		if job.via != nil {
			under = job.via(under)
		}
		return under, nil
	}
	return o
}

// crashStates runs a job and returns what a crash can leave at any moment of it.
func (job installJob) crashStates(t testing.TB, mutant func(disk.FS) disk.FS) (src string, states []disktest.State) {
	t.Helper()
	src, dir := installTrees(t)
	root, err := disk.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	rec := disktest.Record(t, dir, root)
	_, err = deploy.Install(t.Context(), job.options(src, dir, func(rel string, under disk.FS) disk.FS {
		return mutant(rec.Sub(rel, under))
	}))
	if err != nil {
		t.Fatal(err)
	}
	rec.Mark("done")
	if err := job.state(dir, true); err != nil {
		t.Fatal(err)
	}
	states = rec.States(disktest.Options{})
	if len(states) < 5 {
		t.Fatalf("only %d states: %v", len(states), kinds(rec.Log()))
	}
	return src, states
}

// recheck looks at a state, and installs again: then all is there, and nothing
// else.
func (job installJob) recheck(src string) func(dir string, s disktest.State) error {
	return func(dir string, s disktest.State) error {
		if err := job.state(dir, s.After("done")); err != nil {
			return err
		}
		again := job.o(src, dir)
		again.NoSync, again.Backup = true, deploy.BackupNone
		if _, err := deploy.Install(context.Background(), again); err != nil {
			return fmt.Errorf("installing again: %w", err)
		}
		// Where nothing was left to be made, nobody has looked into dir.
		sweep := deploy.InstallOptions{Sources: []string{src + "/x"}, Dest: dir + "/other", NoSync: true}
		if _, err := deploy.Install(context.Background(), sweep); err != nil {
			return err
		}
		for name, may := range job.want {
			if letter, err := wholeFile(filepath.Join(dir, name)); err != nil || strings.HasSuffix(may, "n") && letter != "n" {
				return fmt.Errorf("after installing again %s is %q (%w)", name, letter, err)
			}
		}
		return leftBehind(dir)
	}
}

func unchanged(under disk.FS) disk.FS { return under }

// TestInstallCrash kills and cuts the power at every step of every job.
func TestInstallCrash(t *testing.T) {
	for _, job := range installJobs {
		t.Run(job.name, func(t *testing.T) {
			src, states := job.crashStates(t, unchanged)
			r := disktest.Try(t, states, job.recheck(src))
			if len(r.Bad) > 0 {
				t.Error(r)
			}
			t.Logf("%d states", r.States)
		})
	}
}

// TestInstallMutants seeds faults into the installation that the crash test must
// catch.
func TestInstallMutants(t *testing.T) {
	dropped := func(kind disktest.Kind) func(disk.FS) disk.FS {
		return func(under disk.FS) disk.FS { return disktest.Drop(under, disktest.Is(kind, "")) }
	}
	late := func(kind, until disktest.Kind) func(disk.FS) disk.FS {
		return func(under disk.FS) disk.FS {
			return disktest.Delay(under, disktest.Is(kind, ""), disktest.Is(until, ""))
		}
	}
	for _, mutant := range []struct {
		name string
		jobs []string
		make func(disk.FS) disk.FS
	}{
		{"the file is not synced", []string{"one", "one that is new", "several", "backup"}, dropped(disktest.OpSync)},
		{"the directory is not synced", []string{"one", "several", "with directories", "directories", "backup"}, dropped(disktest.OpSyncDir)},
		{"the directory is synced before the rename", []string{"one"}, func(under disk.FS) disk.FS {
			return disktest.Delay(under, disktest.Is(disktest.OpRename, ""), disktest.Is(disktest.OpSyncDir, ""))
		}},
		{"the backup is not synced first", []string{"backup", "numbered backups"}, func(under disk.FS) disk.FS {
			return disktest.Drop(under, disktest.Nth(1, disktest.Is(disktest.OpSyncDir, "")))
		}},
		{"mode and owner come after the sync", []string{"one", "several"}, late(disktest.OpFileMeta, disktest.OpSync)},
	} {
		for _, job := range installJobs {
			if !slices.Contains(mutant.jobs, job.name) {
				continue
			}
			t.Run(mutant.name+", "+job.name, func(t *testing.T) {
				src, states := job.crashStates(t, mutant.make)
				if r := disktest.TryUntilBad(t, states, job.recheck(src)); len(r.Bad) == 0 {
					t.Errorf("the crash test does not see it in %d states", r.States)
				}
			})
		}
	}
}
