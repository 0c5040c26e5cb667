// Package service holds the test of the demo; the service itself is C++.
package service

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

// The demo does what it says with the moult of this tree, and leaves nothing.
func TestDemo(t *testing.T) {
	for _, tool := range []string{"bash", "g++", "make"} {
		testneed.Tool(t, tool)
	}
	dir := t.TempDir()
	moult := filepath.Join(dir, "moult")
	build := exec.Command("go", "build", "-o", moult, "moult.example/cmd/moult")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build moult: %v\n%s", err, out)
	}
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		t.Fatal(err)
	}
	demo := func(moult string) (string, error) {
		cmd := exec.Command("./demo.sh")
		cmd.Env = append(os.Environ(), "MOULT="+moult, "TMPDIR="+tmp)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := demo(moult); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	// A tool that renames file by file is safe for what runs, and is caught:
	// the old process gets the new plugin.
	byFile := filepath.Join(dir, "by-file")
	script := `#!/bin/sh -e
[ "$1" = apply ] || exit 0
mkdir -p "$3/bin" "$3/lib"
cd "$2"
for f in bin/* lib/*; do cp -P "$f" "$3/$f.new"; mv -fT "$3/$f.new" "$3/$f"; done
`
	if err := os.WriteFile(byFile, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	want := `the old process, /dollars: got "0.-5 USD at 1.09", want "0.-5 USD at 1.08"`
	if out, err := demo(byFile); err == nil || !strings.Contains(out, want) {
		t.Errorf("with a mixture: %v, want status 1 and %s\n%s", err, want, out)
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
