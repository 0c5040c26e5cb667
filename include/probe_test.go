package include_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"moult.example/internal/testneed"
)

const probe = "include/testdata/probe.c"

// What an exec carries over, and what a failed one leaves as it was. See probe.c.
func TestProbe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := compile(t, "gcc", probe, filepath.Join(dir, "probe"), "-std=gnu99", "-w")
	for _, what := range []string{"restore", "many", "signals", "state", "limit"} {
		t.Run(what, func(t *testing.T) {
			own := filepath.Join(dir, what)
			place(t, path, own)
			cmd := exec.Command(own, what)
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PROBE=as it was")
			out, err := cmd.CombinedOutput()
			if why, is := strings.CutPrefix(string(out), "needs "); err == nil && is {
				testneed.Skip(t, "needs "+why)
			}
			if err != nil || !strings.HasSuffix(string(out), "ok\n") {
				t.Errorf("got %v, want ok:\n%s", err, out)
			}
		})
	}
}

// systemd's protocol, spoken with a socket of our own.
func TestNotify(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := compile(t, "gcc", probe, filepath.Join(dir, "probe"), "-std=gnu99", "-w")
	addr := &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"}
	sock, err := net.ListenUnixgram("unixgram", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ WATCHDOG_PID=$$ exec "$0" store`, path)
	cmd.Dir = dir
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	cmd.ExtraFiles = []*os.File{null, null, null}
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+addr.Name, "LISTEN_FDS=3", "LISTEN_FDNAMES=stored:stored:other",
		"WATCHDOG_USEC=60000000")
	// While it runs: the kernel keeps but a few messages.
	heard := make(chan []string)
	sock.SetReadDeadline(time.Now().Add(limit))
	go func() { heard <- hear(sock) }()
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "ok\n") {
		t.Fatalf("got %v, want ok:\n%s", err, out)
	}
	got := <-heard
	once := []string{"FDSTORE=1;FDNAME=stored +fd", "STATUS=9.9: going on", "WATCHDOG=1"}
	want := append([]string{"READY=1;STATUS=9.9, generation 0"}, once...)
	want = append(want, "RELOADING=1", "READY=1;STATUS=9.9, generation 1")
	want = append(append(want, once...), "STOPPING=1")
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// hear reads what a program tells its manager until it says that it stops.
func hear(sock *net.UnixConn) (got []string) {
	buf, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		n, with, _, _, err := sock.ReadMsgUnix(buf, oob)
		if err != nil {
			return append(got, err.Error())
		}
		line, _, _ := strings.Cut(string(buf[:n]), "\nMONOTONIC_USEC=")
		if with > 0 {
			line += " +fd"
		}
		got = append(got, strings.ReplaceAll(line, "\n", ";"))
		if line == "STOPPING=1" {
			return got
		}
	}
}

// Hand-overs with flipped bytes and cut ends: some are adopted all the same, and
// none makes the program crash or read what it should not. See hostile.c.
func TestHostile(t *testing.T) {
	t.Parallel()
	path := compile(t, "gcc", "include/testdata/hostile.c", filepath.Join(t.TempDir(), "hostile"), "-std=gnu99", "-w", "-g",
		"-fsanitize=address,undefined", "-fno-sanitize-recover=all")
	out, err := exec.Command(path).CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "adopted ") || strings.HasPrefix(string(out), "adopted 0") {
		t.Errorf("got %v, want some adopted:\n%s", err, out)
	}
}
