package linkcheck

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"moult.example/internal/testneed"
)

// realMusl asks the loader of musl, which maps and relocates when it is asked to
// list, and runs nothing of the files.
func realMusl(t *testing.T, loader, dir, program string) verdict {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, loader, "--list", program)
	cmd.Dir = dir
	cmd.Env = []string{"LD_LIBRARY_PATH=" + dir, "LD_BIND_NOW=1"}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%s: the loader does not end", program)
	}
	v := verdict{text: out.String()}
	for line := range strings.Lines(out.String()) {
		line = strings.TrimSuffix(line, "\n")
		if m := muslMissing.FindStringSubmatch(line); m != nil {
			v.missing = append(v.missing, m[1])
		} else if m := muslUndefined.FindStringSubmatch(line); m != nil {
			v.undefined = append(v.undefined, realPath(m[1])+" "+m[2]+" ")
		} else if m := realFound.FindStringSubmatch(line); m != nil && !strings.Contains(m[2], "ld-musl") {
			v.loaded = append(v.loaded, realPath(m[2]))
		}
	}
	if err != nil && strings.Contains(err.Error(), "signal") {
		v.fatal, v.crashed = err.Error(), true
	}
	v.tidy()
	return v
}

var (
	muslMissing   = regexp.MustCompile(`^Error loading shared library (.*): No such file or directory \(needed by .*\)$`)
	muslUndefined = regexp.MustCompile(`^Error relocating (.*): (.*): symbol not found$`)
)

// muslSubject is a program with four libraries that need each other.
func muslSubject(t *testing.T, dir string) subject {
	w := &world{t: t, dir: dir}
	specs := []string{"-specs", muslSpecs(t), "-O1", "-fno-builtin"}
	var all, use strings.Builder
	s := subject{path: w.at("bin/main")}
	var libs []string
	for l := range 4 {
		var src strings.Builder
		for i := range 40 {
			fmt.Fprintf(&src, "int f%d_%d(void){return %d;} int v%d_%d = %d;\n", l, i, i, l, i, i)
			if l > 0 {
				fmt.Fprintf(&src, "int f%d_%d(void); extern int v%d_%d; int g%d_%d(void){return f%d_%d()+v%d_%d;}\n", l-1, i, l-1, i, l, i, l-1, i, l-1, i)
			}
			fmt.Fprintf(&all, "int f%d_%d(void); extern int v%d_%d;\n", l, i, l, i)
			fmt.Fprintf(&use, "n += f%d_%d() + v%d_%d;\n", l, i, l, i)
		}
		fmt.Fprintf(&src, "__thread int t%d = 1; __attribute__((weak)) int maybe%d(void); int w%d(void){return maybe%d ? maybe%d() + t%d : t%d;}\n", l, l, l, l, l, l, l)
		name := fmt.Sprintf("libm%d", l)
		hash := []string{"-Wl,--hash-style=gnu", "-Wl,--hash-style=sysv"}[l%2]
		w.lib(name, src.String(), append(append([]string{hash}, libs...), specs...)...)
		libs = append(libs, "-lm"+fmt.Sprint(l))
		s.files = append(s.files, subjectFile{w.at("lib/" + name + ".so.1"), w.at("lib/" + name + ".so.1")})
	}
	w.prog(all.String()+"int main(void){int n = 0;"+use.String()+"return n == 0;}", append(libs, specs...)...)
	s.files = append(s.files, subjectFile{s.path, s.path})
	return s
}

// TestAgainstMusl is TestAgainstLoader for musl.
func TestAgainstMusl(t *testing.T) {
	testneed.Tool(t, "musl-gcc")
	loaders, _ := filepath.Glob("/lib/ld-musl-x86_64.so.1")
	if len(loaders) == 0 {
		testneed.Skip(t, "no loader of musl for x86-64 here")
	}
	cases, seed := *diffCases/4, *diffSeed
	if cases == 0 {
		cases = 100
	}
	if seed == 0 {
		seed = anySeed()
	}
	s := muslSubject(t, filepath.Join(t.TempDir(), "app"))
	dir := filepath.Join(t.TempDir(), "moult-diff-musl")
	bad, broken := 0, 0
	for i := range cases {
		if *diffOnly >= 0 && i != *diffOnly {
			continue
		}
		m, err := mutate(rand.New(rand.NewPCG(seed, uint64(i))), dir, s)
		if err != nil {
			t.Fatal(err)
		}
		re, our := realMusl(t, loaders[0], dir, m.program), ours(t, m.program, dir)
		if len(re.missing)+len(re.undefined) > 0 {
			broken++
		}
		if how := differMusl(re, our); how != "" {
			if bad++; bad > 10 {
				break
			}
			t.Errorf("case %d of seed %d: %s: %s", i, seed, strings.Join(m.done, ", "), how)
			if *diffOnly >= 0 {
				fmt.Println(re.text)
				exec.Command("cp", "-rT", dir, "/tmp/moult-case").Run()
			}
		}
	}
	t.Logf("seed %d: %d of %d verdicts are musl's, %d of something broken", seed, cases-bad, cases, broken)
	if broken < cases/4 && *diffOnly < 0 {
		t.Errorf("%d of %d cases are broken, want more: the test does not bite", broken, cases)
	}
	_ = os.RemoveAll(dir)
}

// differMusl: musl goes on after each error, and crashes on files of which we
// say that they are bad.
func differMusl(real, our verdict) string {
	if our.fatal != "" || our.chance || real.crashed && len(our.undefined) > 0 {
		return ""
	}
	return differ(real, our)
}
