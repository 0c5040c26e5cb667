//go:build linux

package reexec_test

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"moult.example/internal/testneed"
)

// wine runs programs for Windows in a prefix of its own.
type wine struct {
	prefix string
	dir    string // what is C:\moult there
	env    []string
}

// newWine makes a prefix. Wine is for x86-64 here, and has no display.
func newWine(t *testing.T) *wine {
	t.Helper()
	if runtime.GOARCH != "amd64" {
		t.Skip("Wine is for x86-64")
	}
	testneed.Tool(t, "wine")
	// The socket of its server must have a short path.
	prefix, err := os.MkdirTemp("", "moult-wine-")
	if err != nil {
		t.Fatal(err)
	}
	w := &wine{prefix: prefix, dir: filepath.Join(prefix, "drive_c/moult")}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "DISPLAY=") && !strings.HasPrefix(v, "WINE") {
			w.env = append(w.env, v)
		}
	}
	w.env = append(w.env, "WINEPREFIX="+prefix, "WINEARCH=win64", "WINEDEBUG=-all",
		// No search for Mono and Gecko, no menus, no browser.
		"WINEDLLOVERRIDES=mscoree,mshtml,winemenubuilder.exe=")
	t.Cleanup(func() {
		// Ends what still runs in this prefix, and waits for it.
		w.host("wineserver", "-k").Run()
		w.host("wineserver", "-w").Run()
		os.RemoveAll(prefix)
	})
	if out, err := w.output(w.host("wine", "wineboot", "--init")); err != nil || !strings.Contains(out, "has been updated") {
		t.Fatalf("wineboot: %v\n%s", err, out)
	}
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// Programs of Go 1.22 and newer need this library, which Wine has from 8.18
	// on; Debian 12 has 8.0.
	library := filepath.Join(prefix, "drive_c/windows/system32/bcryptprimitives.dll")
	if _, err := os.Stat(library); err != nil {
		if err := os.WriteFile(library, forwarder("bcryptprimitives.dll", "ProcessPrng", "advapi32.SystemFunction036"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// host is a command of Wine's own. On Debian, wineserver is not in PATH.
func (w *wine) host(name string, args ...string) *exec.Cmd {
	if _, err := exec.LookPath(name); err != nil {
		name = filepath.Join("/usr/lib/wine", name)
	}
	cmd := exec.Command(name, args...)
	cmd.Env, cmd.Dir = w.env, w.prefix
	return cmd
}

// output runs a command and returns what it writes. That goes to a file: on a
// pipe one would wait for Wine's services, which have it too.
//
// Wine's server kills a program that has ended and is not gone some seconds later,
// as on a busy machine. That is no error here: what it has said has to show that
// it had come to its end.
func (w *wine) output(cmd *exec.Cmd) (string, error) {
	f, err := os.CreateTemp(w.prefix, "output-")
	if err != nil {
		return "", err
	}
	defer f.Close()
	cmd.Stdout, cmd.Stderr = f, f
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		err = nil
	}
	text, _ := os.ReadFile(f.Name())
	return string(text), err
}

// command is a program that lies in the directory.
func (w *wine) command(program string, args ...string) *exec.Cmd {
	return w.host("wine", append([]string{`C:\moult\` + program}, args...)...)
}

// forwarder is a library for 64-bit Windows without any code: its one function
// is another library's.
func forwarder(library, function, to string) []byte {
	const at, size = 0x1000, 0x200 // of the section, in memory
	le := binary.LittleEndian
	image := make([]byte, 2*size)
	put16 := func(at int, v uint16) { le.PutUint16(image[at:], v) }
	put32 := func(at int, v uint32) { le.PutUint32(image[at:], v) }

	copy(image, "MZ")
	put32(60, 64)                                  // where the header is
	copy(image[64:], "PE\x00\x00\x64\x86\x01\x00") // x86-64, one section
	put16(84, 240)                                 // size of the optional header
	put16(86, 0x2022)                              // a library, executable, may be anywhere
	const optional = 88
	put16(optional, 0x20b)
	le.PutUint64(image[optional+24:], 0x180000000)
	put32(optional+32, at)   // alignment in memory
	put32(optional+36, size) // and in the file
	put16(optional+40, 6)
	put16(optional+48, 6)
	put32(optional+56, 2*at)
	put32(optional+60, size)
	put16(optional+68, 3)
	put32(optional+108, 16)
	put32(optional+112, at) // the export directory
	put32(optional+116, size)
	const section = optional + 240
	copy(image[section:], ".edata")
	put32(section+8, size)
	put32(section+12, at)
	put32(section+16, size)
	put32(section+20, size)
	put32(section+36, 0x40000040) // readable data

	// The directory, its three tables, and the names.
	names := 64
	name := func(s string) uint32 {
		start := names
		copy(image[size+start:], s)
		names += len(s) + 1
		return uint32(at + start)
	}
	put32(size+12, name(library))
	put32(size+16, 1) // the first ordinal
	put32(size+20, 1)
	put32(size+24, 1)
	put32(size+28, at+40)
	put32(size+32, at+44)
	put32(size+36, at+48)
	put32(size+44, name(function))
	put32(size+40, name(to)) // an address within the directory: a forward
	return image
}

// build builds a package, or its tests, for Windows or for this system.
func build(t *testing.T, out, goos, pkg string, args ...string) {
	t.Helper()
	argv := append(append(args, "-o", out), pkg)
	cmd := exec.Command("go", argv...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS="+goos)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %v: %v\n%s", argv, err, text)
	}
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not in time: %s", what)
		}
	}
}
