package deploy

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNoBook: what somebody has put in the place of a book of ours never makes a
// command wait, nor is it read. Without a cache all works; where a book decides,
// the error names it, and nothing has changed.
func TestNoBook(t *testing.T) {
	kinds := map[string]func(path string) error{
		"fifo":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o755) },
		"link":      func(path string) error { return os.Symlink("/dev/zero", path) },
	}
	books := map[Layout][]struct {
		name string // N is the live generation
		goes bool   // without it
	}{
		Owned: {
			{"cache", true}, {"cache.source", true}, {"generations/N/.moult/links", true}, {"pins.json", true}, // gc has one warning
			{"layout", false}, {"lock", false}, {"journal", false}, {"live", false}, {"history.jsonl", false},
			{"generations/N/.moult/manifest", false}, {"generations/N/.moult/info.json", false},
		},
		Shared: {
			{"app/cache", true}, {"cache.source", true}, {"app/generations/N/links", true},
			{"app/journal", false}, {"app/live", false}, {"app/made.json", false}, {"app/deferred.json", false},
			{"app/history.jsonl", false}, {"app/generations/N/manifest", false}, {"app/generations/N/found.json", false},
		},
	}
	for layout, books := range books {
		dir := filepath.Join(t.TempDir(), "app")
		releases := []string{v1.write(t, t.TempDir()), v2.write(t, t.TempDir())}
		versions := []tree{
			{"bin/tool": "tool 1", "lib/libx.so.1": "x 1", "extra/new": gone},
			{"bin/tool": "tool 2", "lib/libx.so.1": "x 2", "extra/new": "new"},
		}
		live := 0 // of releases
		applyTo(t, open(t, dir, func(o *Options) { o.Disk = quiet }), releases[0], ApplyOptions{Layout: layout})
		for _, b := range books {
			for kind, put := range kinds {
				t.Run(string(layout)+"/"+b.name+"/"+kind, func(t *testing.T) {
					number, err := os.Readlink(dir + "/.moult/" + map[Layout]string{Owned: "live", Shared: "app/live"}[layout])
					must(t, err)
					path := dir + "/.moult/" + strings.Replace(b.name, "generations/N", number, 1)
					aside := path + "-aside"
					had := os.Rename(path, aside) == nil
					must(t, put(path))
					target := open(t, dir, func(o *Options) { o.Disk = quiet }) // which remembers nothing
					err = within(t, path, func() error {
						_, _ = target.Status("")
						_, _ = target.History("")
						_, _ = target.Verify(context.Background(), "")
						_ = target.SourceCache()
						_, err := target.Apply(context.Background(), openRelease(t, releases[1-live]), ApplyOptions{})
						return err
					})
					if b.goes {
						must(t, err)
						live = 1 - live
					} else if err == nil || !strings.Contains(err.Error(), filepath.Base(b.name)) {
						t.Errorf("got %v, want an error that names it", err)
					}
					if had && !b.goes {
						must(t, os.Remove(path))
						must(t, os.Rename(aside, path))
					} else {
						must(t, os.RemoveAll(path))
						must(t, os.RemoveAll(aside))
					}
					want(t, dir, versions[live])
				})
			}
		}
		applyTo(t, open(t, dir, func(o *Options) { o.Disk = quiet }), releases[1-live], ApplyOptions{})
		want(t, dir, versions[1-live])
	}
}

// within does work that must not wait for the other end of the FIFO at path.
func within(t *testing.T, path string, work func() error) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- work() }()
	select {
	case err := <-done:
		return err
	case <-time.After(2 * time.Minute):
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == nil {
			defer unix.Close(fd) // lets the waiting one go on
		}
		t.Fatal("it waits at what is in the place of the book")
	}
	return nil
}
