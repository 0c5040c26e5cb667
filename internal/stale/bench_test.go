package stale

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// A host with 300 processes of 120 mappings each, half of them from one of
// three trees of 5,000 files.
func BenchmarkUsers(b *testing.B) {
	if err := compile(); err != nil {
		b.Skip(err)
	}
	dir := b.TempDir()
	var trees []Tree
	for g := range 3 {
		root := filepath.Join(dir, fmt.Sprint(g))
		for i := range 5000 {
			name := filepath.Join(root, fmt.Sprint(i%50), fmt.Sprint(i))
			os.MkdirAll(filepath.Dir(name), 0o755)
			if g == 0 {
				os.WriteFile(name, make([]byte, 4096), 0o644)
			} else if err := os.Link(filepath.Join(dir, "0", fmt.Sprint(i%50), fmt.Sprint(i)), name); err != nil {
				b.Fatal(err)
			}
		}
		trees = append(trees, Tree{Dir: root})
	}
	libs, err := filepath.Glob("/usr/lib/x86_64-linux-gnu/lib*.so.?")
	if err != nil || len(libs) < 23 {
		b.Skip("not enough libraries here")
	}
	for p := range 300 {
		var args []string
		for i := range 23 {
			file := libs[(p%5+i)%len(libs)]
			if p%2 == 0 && i < 5 {
				file = filepath.Join(trees[p%3].Dir, "0", fmt.Sprint(i*50))
			}
			args = append(args, "many", file)
		}
		cmd := exec.Command(filepath.Join(programs, "hold"), args...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
		out.Read(make([]byte, 6))
	}
	index, err := indexTrees(trees)
	if err != nil {
		b.Fatal(err)
	}
	for i := range trees {
		var ids []Inode
		for _, e := range index.entries {
			if int(e.of) == i {
				ids = append(ids, e.id)
			}
		}
		trees[i].Inodes = slices.Values(ids)
	}
	for name, trees := range map[string][]Tree{
		"walked": {{Dir: trees[0].Dir}, {Dir: trees[1].Dir}, {Dir: trees[2].Dir}},
		"given":  trees,
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				rep, err := Users(b.Context(), Options{}, trees)
				if err != nil || len(rep.Users) != 150 {
					b.Fatal(len(rep.Users), err)
				}
			}
		})
	}
}
