package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
	"moult.example/internal/release"
)

// TestWriteDuringGC: who writes into a live file while gc removes others, and puts
// its time back, is not taken for gc, which moves change times too.
func TestWriteDuringGC(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "app")
	var during func()
	target := open(t, dir, func(o *Options) {
		o.Disk = func(path string) (disk.FS, error) {
			root, err := disk.Open(path)
			if err != nil {
				return nil, err
			}
			return disktest.Wrap(root, func(op *disktest.Op, do func() error) error {
				if op.Kind == disktest.OpRemove && strings.Contains(op.Name, "/.trash-") && during != nil {
					during()
					during = nil
				}
				return do()
			}), nil
		}
	})
	for _, version := range []string{"1", "2", "3"} {
		apply(t, target, tree{"bin/tool": "0755:tool " + version, "bin/same": "same"}, ApplyOptions{})
	}
	s, err := target.state("")
	must(t, err)
	stat := func(name string) (u unix.Stat_t) {
		must(t, unix.Stat(dir+"/"+name, &u))
		return u
	}
	knows := func(name string) bool {
		u := stat(name)
		_, ok := s.loadCache().lookup(name, statOf(&u))
		return ok
	}
	for deadline := time.Now().Add(time.Minute); !knows("bin/tool"); {
		if time.Now().After(deadline) {
			t.Fatal("nothing is learned of a file that stays as it is")
		}
		apply(t, target, tree{"bin/tool": "0755:tool 3", "bin/same": "same"}, ApplyOptions{})
	}
	was := stat("bin/tool")
	during = func() {
		must(t, os.WriteFile(dir+"/bin/tool", []byte("toll 3"), 0o755))
		must(t, unix.UtimesNanoAt(unix.AT_FDCWD, dir+"/bin/tool", []unix.Timespec{was.Atim, was.Mtim}, 0))
		for u := stat("bin/tool"); !statOf(&u).Settled(release.Now()); {
			time.Sleep(time.Millisecond)
		}
	}
	c, err := target.GC(context.Background(), GCOptions{Retention: Retention{Generations: 1, Unreadable: true}})
	must(t, err)
	if len(c.Collected) == 0 || during != nil {
		t.Fatalf("it collected %v and kept %+v", c.Collected, c.Kept)
	}
	if knows("bin/tool") {
		t.Error("the cache has the digest of what was there before for a file that was written to")
	}
	res := apply(t, target, tree{"bin/tool": "0755:tool 3", "bin/same": "same"}, ApplyOptions{})
	if len(res.Mended) != 1 {
		t.Errorf("mended %v, want bin/tool", res.Mended)
	}
}

// TestWriteWhileNameGoes: gc moves the change time of a file in that it removes
// another name of it, and so hides that of somebody who writes into it at that
// moment and puts the modification time back.
func TestWriteWhileNameGoes(t *testing.T) {
	writer := func(path string, flags int) (*os.File, error) {
		return os.OpenFile(path, os.O_WRONLY|flags, 0)
	}
	for name, c := range map[string]struct {
		before bool                                // it is open when gc begins
		write  func(path string, f *os.File) error // while the name goes; f is open if before
		knows  bool
	}{
		"nobody": {knows: true},
		"open": {before: true, write: func(path string, f *os.File) error {
			var was unix.Stat_t
			must(t, unix.Fstat(int(f.Fd()), &was))
			_, err := f.WriteAt([]byte("EVIL"), 0)
			must(t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{was.Atim, was.Mtim}, 0))
			return err
		}},
		"opens": {write: func(path string, _ *os.File) error {
			// It would wait until the name is gone, and so would this test.
			f, err := writer(path, unix.O_NONBLOCK)
			if err == nil {
				f.Close()
			}
			if !errors.Is(err, unix.EWOULDBLOCK) {
				return fmt.Errorf("got %v from open(2), want it to wait", err)
			}
			return nil
		}},
	} {
		for _, job := range []string{"gc", "apply"} {
			t.Run(name+"/"+job, func(t *testing.T) {
				dir := filepath.Join(t.TempDir(), "app")
				same := dir + "/bin/same"
				var during func()
				target := open(t, dir, func(o *Options) {
					o.Disk = func(path string) (disk.FS, error) {
						root, err := quiet(path)
						if err != nil {
							return nil, err
						}
						return disktest.Wrap(root, func(op *disktest.Op, do func() error) error {
							goes := op.Kind == disktest.OpRemove && strings.HasSuffix(op.Name, "/bin/same")
							if goes && during != nil {
								during()
								during = nil
							}
							err := do()
							if goes || op.Kind == disktest.OpSyncFS { // what comes next is later
								var u unix.Stat_t
								for unix.Stat(same, &u) == nil && !statOf(&u).Settled(release.Now()) {
									time.Sleep(time.Millisecond)
								}
							}
							return err
						}), nil
					}
				})
				all := ApplyOptions{Retention: Retention{Generations: 9, Unreadable: true}}
				for _, version := range []string{"1", "2", "3"} {
					apply(t, target, tree{"bin/tool": "0755:tool " + version, "bin/same": "same"}, all)
				}
				s, err := target.state("")
				must(t, err)
				knows := func() bool {
					var u unix.Stat_t
					must(t, unix.Stat(same, &u))
					_, ok := s.loadCache().lookup("bin/same", statOf(&u))
					return ok
				}
				for deadline := time.Now().Add(time.Minute); !knows(); {
					if time.Now().After(deadline) {
						t.Fatal("nothing is learned of a file that stays as it is")
					}
					apply(t, target, tree{"bin/tool": "0755:tool 3", "bin/same": "same"}, all)
				}
				real, err := filepath.EvalSymlinks(same)
				must(t, err)
				var f *os.File
				if c.before {
					f, err = writer(real, 0)
					must(t, err)
					defer f.Close()
				}
				met := false
				during = func() {
					if met = true; c.write != nil {
						must(t, c.write(real, f))
					}
				}
				if job == "gc" {
					_, err = target.GC(context.Background(), GCOptions{Retention: Retention{Generations: 1, Unreadable: true}})
				} else {
					_, err = target.Apply(context.Background(), openRelease(t, tree{"bin/tool": "0755:tool 4", "bin/same": "same"}.write(t, t.TempDir())),
						ApplyOptions{Retention: Retention{Generations: -1, Unreadable: true}})
				}
				must(t, err)
				if !met {
					t.Fatal("no name of it went")
				}
				if got := knows(); got != c.knows {
					t.Errorf("the cache knows it: %v, want %v", got, c.knows)
				}
			})
		}
	}
}
