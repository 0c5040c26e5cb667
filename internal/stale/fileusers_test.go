package stale

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/testneed"
)

// Who uses one file, and what is safe to do with it.
func TestFileUsers(t *testing.T) {
	if err := compileParts(); err != nil {
		t.Fatal(err)
	}
	hold := filepath.Join(programs, "hold")
	dir := t.TempDir()
	file := func(name string) string {
		copyFile(t, filepath.Join(programs, "hold"), filepath.Join(dir, name))
		return filepath.Join(dir, name)
	}
	lib := filepath.Join(dir, "lib.so")
	copyFile(t, filepath.Join(programs, "part1.so"), lib)
	locked := file("locked")
	for _, tt := range []struct {
		name, file                string
		args                      []string
		want                      Way
		overwrite, rename, delete bool
	}{
		{"nobody", file("none"), []string{hold}, "", true, true, true},
		{"program", file("prog"), []string{filepath.Join(dir, "prog")}, WayExe, false, true, false},
		{"library", lib, []string{hold, "dlopen", lib}, WayLibrary, false, true, false},
		{"mapped", file("map"), []string{hold, "map", filepath.Join(dir, "map")}, WayMap, false, true, true},
		{"read", file("read"), []string{hold, "open", filepath.Join(dir, "read")}, WayRead, false, true, true},
		{"written", file("write"), nil, WayWrite, false, false, false},
		{"locked", locked, []string{"flock", "-F", "-n", locked, hold}, WayRead, false, false, false},
		{"directory", dir, []string{hold, "chdir", dir}, WayCwd, false, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.want == WayWrite {
				tt.args = []string{"sh", "-c", `exec 7>>"$1"; exec "$0"`, hold, tt.file}
			}
			testneed.Tool(t, tt.args[0])
			pid := start(t, exec.Command(tt.args[0], tt.args[1:]...))
			rep, err := FileUsers(t.Context(), Options{}, tt.file)
			if err != nil {
				t.Fatal(err)
			}
			rep.Unreadable, rep.Hidden = nil, false // others of this host are no matter of ours
			rep.Overwrite, rep.Rename, rep.Delete = Advice{}, Advice{}, Advice{}
			rep.advise()
			if tt.want == "" {
				if len(rep.Users) > 0 {
					t.Errorf("Users = %+v, want none", rep.Users)
				}
			} else if i := slices.IndexFunc(rep.Users, func(u FileUser) bool { return u.PID == pid }); i < 0 || rep.Users[i].Uses[0].Way != tt.want {
				t.Errorf("Users = %+v, want %d by %s", rep.Users, pid, tt.want)
			} else if tt.name == "locked" && !slices.ContainsFunc(rep.Users, func(u FileUser) bool { return u.Uses[0].Lock == "FLOCK WRITE" }) {
				t.Errorf("Users = %+v, want one with a lock", rep.Users)
			}
			if rep.Overwrite.Safe != tt.overwrite || rep.Rename.Safe != tt.rename || rep.Delete.Safe != tt.delete {
				t.Errorf("overwrite %+v, rename %+v, delete %+v, want %v, %v, %v", rep.Overwrite, rep.Rename, rep.Delete, tt.overwrite, tt.rename, tt.delete)
			}
		})
	}
	if _, err := FileUsers(t.Context(), Options{}, filepath.Join(dir, "missing")); !os.IsNotExist(err) {
		t.Errorf("err = %v, want that it is not there", err)
	}
}

// A dead mount holds whoever asks for a file of it, but not us for ever.
func TestAnswered(t *testing.T) {
	dead := make(chan struct{})
	defer close(dead)
	_, err := Answered(time.Millisecond, func() (int, error) { <-dead; return 1, nil })
	if !errors.Is(err, ErrNoAnswer) {
		t.Errorf("error %v, want that it does not answer", err)
	}
	n, err := Answered(time.Hour, func() (int, error) { return 1, unix.ENOENT })
	if n != 1 || err != unix.ENOENT {
		t.Errorf("answer %d, %v, want the one that was given", n, err)
	}
}
