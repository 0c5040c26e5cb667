package reexec

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/windows"
)

// These run under Wine in the tests on Linux, or on Windows itself.

// windowsPrograms lays out a program, and a file to replace it.
func windowsPrograms(t *testing.T) (path, src string) {
	t.Helper()
	// Not TempDir: what it removes files with is not in Wine 8.
	dir, err := os.MkdirTemp("", "moult-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, src = filepath.Join(dir, "app.exe"), filepath.Join(dir, "download")
	self, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = errors.Join(os.WriteFile(path, append(self, "old"...), 0o755), os.WriteFile(src, append(self, "new"...), 0o644))
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, src
}

func windowsEnding(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text[len(text)-3:])
}

// hold opens a file as a virus scanner does that lets nobody do anything with
// it meanwhile.
func hold(t *testing.T, path string) (release func()) {
	t.Helper()
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := windows.CreateFile(name, windows.GENERIC_READ, 0, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return func() { windows.CloseHandle(h) }
}

func besideOf(t *testing.T, path string) []string {
	t.Helper()
	names, err := filepath.Glob(path + ".*")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestWindowsReplaceWaits(t *testing.T) {
	path, src := windowsPrograms(t)
	release := hold(t, path)
	held := time.AfterFunc(300*time.Millisecond, release)
	defer held.Stop()
	if err := ReplaceWith(src, ReplaceOptions{Path: path}); err != nil {
		t.Fatal(err)
	}
	if got := windowsEnding(t, path); got != "new" {
		t.Errorf("the program is %q, want new", got)
	}
	if got := besideOf(t, path); len(got) != 1 || windowsEnding(t, got[0]) != "old" {
		t.Errorf("beside the program: %v, want the old one", got)
	}
	// Undone, as if the new one had not come up.
	if err := undoReplace(); err != nil {
		t.Fatal(err)
	}
	if got := windowsEnding(t, path); got != "old" || len(besideOf(t, path)) != 0 {
		t.Errorf("after the way back the program is %q, want old, beside %v, want nothing", got, besideOf(t, path))
	}
}

func TestWindowsReplaceRefused(t *testing.T) {
	path, src := windowsPrograms(t)
	refused := errors.New("not signed")
	err := ReplaceWith(src, ReplaceOptions{Path: path, Verify: func(string) error { return refused }})
	if got := windowsEnding(t, path); !errors.Is(err, refused) || got != "old" || len(besideOf(t, path)) != 0 {
		t.Errorf("error %v, program %q, beside it %v; want %v, old, nothing", err, got, besideOf(t, path), refused)
	}
	whole, err := os.ReadFile(src)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(src, whole[:len(whole)/2], 0o644); err != nil {
		t.Fatal(err)
	}
	err = ReplaceWith(src, ReplaceOptions{Path: path})
	if got := windowsEnding(t, path); !errors.Is(err, ErrWrongImage) || got != "old" {
		t.Errorf("error %v, program %q, want %v, old", err, got, ErrWrongImage)
	}
}

// TestWindowsSwapBack: the second rename fails, so the first is undone.
func TestWindowsSwapBack(t *testing.T) {
	path, _ := windowsPrograms(t)
	err := swap(path+".missing", path, path+".away")
	if got := windowsEnding(t, path); err == nil || got != "old" || exists(path+".away") {
		t.Errorf("error %v, program %q; want one, and the old program under its name alone", err, got)
	}
}

func TestWindowsSweep(t *testing.T) {
	path, _ := windowsPrograms(t)
	me := strconv.Itoa(os.Getpid())
	for _, name := range []string{".7777777.tmp", ".7777777-2.tmp", ".7777777.new", "." + me + ".new", ".8888888.tmp", ".txt", ".1.bak"} {
		if err := os.WriteFile(path+name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	release := hold(t, path+".8888888.tmp")
	if !sweep(path) {
		t.Errorf("sweep says that nothing is left, want that a file is in use")
	}
	name, err := windows.UTF16PtrFromString(path + ".8888888.tmp")
	if err != nil {
		t.Fatal(err)
	}
	if attributes, err := windows.GetFileAttributes(name); err == nil && attributes&windows.FILE_ATTRIBUTE_HIDDEN == 0 {
		t.Errorf("what is in use has attributes %#x, want it hidden", attributes)
	}
	release()
	if sweep(path) {
		t.Errorf("sweep says that something is left, want nothing")
	}
	for name, want := range map[string]bool{
		"": true, ".7777777.tmp": false, ".7777777-2.tmp": false, ".7777777.new": false, "." + me + ".new": true,
		".8888888.tmp": false, ".txt": true, ".1.bak": true,
	} {
		if got := exists(path + name); got != want {
			t.Errorf("app.exe%s is there: %v, want %v", name, got, want)
		}
	}
}
