package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Go programs that the documents show whole compile as they stand there.
func TestDocsGo(t *testing.T) {
	t.Parallel()
	programs := 0
	for _, name := range documents(t) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		blocks := strings.Split(string(text), "\n```go\n")
		for i, block := range blocks[1:] {
			code, _, _ := strings.Cut(block, "\n```")
			if !strings.HasPrefix(code, "package ") {
				if strings.Contains(code, "func main()") {
					t.Errorf("%s: a program without its package clause", name)
				}
				continue
			}
			programs++
			file := filepath.Join(t.TempDir(), fmt.Sprintf("%s_%d.go", strings.TrimSuffix(filepath.Base(name), ".md"), i))
			if err := os.WriteFile(file, []byte(code+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			// Vet checks types as the compiler does, and links nothing.
			if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
	}
	if programs < 2 {
		t.Errorf("%d programs in the documents, want more", programs)
	}
}
