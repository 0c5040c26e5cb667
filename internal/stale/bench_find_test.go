package stale

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A host with 300 processes of 120 mappings each, 249 of which run one of six
// libraries that were replaced.
func BenchmarkFind(b *testing.B) {
	if err := compileParts(); err != nil {
		b.Skip(err)
	}
	dir, err := filepath.EvalSymlinks(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	var libs []string
	for i := range 80 {
		name := filepath.Join(dir, fmt.Sprintf("lib%d.so", i))
		data, err := os.ReadFile(filepath.Join(programs, "part1.so"))
		if err != nil {
			b.Fatal(err)
		}
		os.WriteFile(name, data, 0o755)
		libs = append(libs, name)
	}
	for p := range 300 {
		var args []string
		if p < 249 {
			args = append(args, "dlopen", libs[p%6])
		}
		for i := range 20 {
			args = append(args, "dlopen", libs[6+(p%5*15+i)%74])
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
	time.Sleep(50 * time.Millisecond)
	for _, lib := range libs[:6] {
		data, _ := os.ReadFile(filepath.Join(programs, "part2.so"))
		os.WriteFile(lib+".new", data, 0o755)
		os.Rename(lib+".new", lib)
	}
	if floor := os.Getenv("MAPFLOOR"); floor != "" {
		b.Run("floor", func(b *testing.B) {
			var all []float64
			for b.Loop() {
				cmd := exec.Command(floor)
				cmd.Run()
				all = append(all, float64(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime())/1e6)
			}
			slices.Sort(all)
			b.ReportMetric(all[len(all)/2], "cpu-ms/op")
			b.ReportMetric(all[0], "least-cpu-ms/op")
		})
	}
	for _, o := range []struct {
		name string
		Options
	}{{"lists", Options{}}, {"maps", Options{MapsOnly: true}}, {"files", Options{MapsOnly: true, FilesOnly: true}}, {"text", Options{textOnly: true}}} {
		b.Run(o.name, func(b *testing.B) {
			var all []float64
			for b.Loop() {
				before := cpuTime()
				rep, err := Find(b.Context(), o.Options)
				if err != nil || len(rep.Processes) < 249 {
					b.Fatal(len(rep.Processes), err)
				}
				all = append(all, float64(cpuTime()-before)/1e6)
			}
			slices.Sort(all)
			b.ReportMetric(all[len(all)/2], "cpu-ms/op")
			b.ReportMetric(all[0], "least-cpu-ms/op")
		})
	}
}

func cpuTime() int64 {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return u.Utime.Nano() + u.Stime.Nano()
}
