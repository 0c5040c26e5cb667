package deploy_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
)

// A time that an int64 of nanoseconds cannot hold is kept all the same, as far
// as the file system can.
func TestInstallTimes(t *testing.T) {
	dir := t.TempDir()
	for _, sec := range []int64{-2147471999, -1, 1e9, 15032376000, 253402300800} { // to 2446, and to 10000
		put(t, dir+"/new", "new", 0o644)
		ts := []unix.Timespec{{Sec: 1e9}, {Sec: sec, Nsec: 5e8}}
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/new", ts, 0); err != nil {
			t.Fatal(err)
		}
		install(t, deploy.InstallOptions{Sources: []string{dir + "/new"}, Dest: dir + "/tool", Times: true})
		var want, got unix.Stat_t
		for path, st := range map[string]*unix.Stat_t{dir + "/new": &want, dir + "/tool": &got} {
			if err := unix.Stat(path, st); err != nil {
				t.Fatal(err)
			}
		}
		if got.Mtim != want.Mtim {
			t.Errorf("%d: got %v, want %v", sec, got.Mtim, want.Mtim)
		}
	}
}
