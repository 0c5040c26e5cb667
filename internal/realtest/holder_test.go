package realtest

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// holder is a process that holds on to something until it is ended.
type holder struct {
	t     testing.TB
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
	first string // the first line that it has printed
	over  bool
}

// startHolder starts a program that prints a line when it is ready and ends
// when its standard input does.
func startHolder(t testing.TB, cmd *exec.Cmd) *holder {
	t.Helper()
	h := &holder{t: t, cmd: cmd}
	var err error
	h.stdin, err = cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	h.out = bufio.NewReader(out)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	t.Cleanup(h.end)
	h.first = h.line()
	return h
}

func (h *holder) line() string {
	h.t.Helper()
	line, err := h.out.ReadString('\n')
	if err != nil {
		h.t.Fatalf("%s: got %q and %v, want a line", h.cmd, line, err)
	}
	return strings.TrimSpace(line)
}

// ask sends a line and returns the answer.
func (h *holder) ask(question string) string {
	h.t.Helper()
	_, err := io.WriteString(h.stdin, question+"\n")
	must(h.t, err)
	return h.line()
}

// end ends the process and waits for it.
func (h *holder) end() {
	if h.over {
		return
	}
	h.over = true
	h.stdin.Close()
	h.cmd.Wait()
}

func (h *holder) pid() int { return h.cmd.Process.Pid }

// eventually waits until something is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
