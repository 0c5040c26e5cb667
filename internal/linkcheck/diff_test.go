package linkcheck

import (
	"debug/elf"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"moult.example/internal/testneed"
)

var (
	diffCases = flag.Int("difftest", 0, "how many broken programs to compare with the real loader; 0 is a few hundred")
	diffSeed  = flag.Uint64("diffseed", 0, "seed of the differential test; 0 takes one from the clock")
	diffOnly  = flag.Int("diffcase", -1, "run this case only")
)

// subjects are programs and libraries whose load set is small enough.
func subjects(t testing.TB) (all []subject) {
	c, err := newChecker(Options{}, map[fileID]bool{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.objects.close()
	var paths []string
	for _, pattern := range []string{"/usr/bin/*", "/usr/sbin/*", "/usr/lib/x86_64-linux-gnu/*.so*", "/usr/lib/x86_64-linux-gnu/*/*.so"} {
		m, _ := filepath.Glob(pattern)
		paths = append(paths, m...)
	}
	for _, p := range paths {
		fi, err := os.Lstat(p)
		if err != nil || !fi.Mode().IsRegular() || fi.Mode()&(os.ModeSetuid|os.ModeSetgid) != 0 || fi.Mode()&0o004 == 0 {
			continue
		}
		o, err := c.objects.open(p)
		if err != nil || o.bad != nil || o.image.machine != elf.EM_X86_64 || !o.image.wide || o.image.strtab == nil || len(o.image.needed) == 0 {
			continue
		}
		s := c.load(p, o)
		if s.failed || s.sys.interpPath != "/lib64/ld-linux-x86-64.so.2" || strings.Contains(p, "ld-linux") {
			continue
		}
		sub, size := subject{path: p}, 0
		for _, l := range s.list {
			size += len(l.o.image.data)
			if l.o != s.sys.interp && len(l.o.image.data) < 6<<20 {
				sub.files = append(sub.files, subjectFile{l.name, l.o.path})
			}
		}
		if size < 24<<20 && len(sub.files) > 0 {
			all = append(all, sub)
		}
	}
	if len(all) < 50 {
		t.Fatalf("found %d programs and libraries, want at least 50", len(all))
	}
	return all
}

type subject struct {
	path  string
	files []subjectFile
}

type subjectFile struct{ name, path string }

// anySeed is another one each time where somebody is there to look into what it
// finds (make difftest), and always the same where only changes are judged.
func anySeed() uint64 {
	if *diffCases > 0 {
		return uint64(time.Now().UnixNano())
	}
	return 1
}

// TestAgainstLoader breaks real programs and libraries at random and holds what
// we say against what the loader says.
func TestAgainstLoader(t *testing.T) {
	if _, err := os.Stat("/lib64/ld-linux-x86-64.so.2"); err != nil {
		testneed.Skip(t, "no loader of glibc for x86-64 here")
	}
	cases, seed := *diffCases, *diffSeed
	if cases == 0 {
		cases = 300
	}
	if seed == 0 {
		seed = anySeed()
	}
	all := subjects(t)
	dir := t.TempDir()
	for d := dir; d != "/" && strings.Contains(d, "TestAgainst"); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	next, broken, bad, chance := 0, 0, 0, 0
	for w := range 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			dir := filepath.Join(dir, fmt.Sprint("moult-diff-", w))
			for {
				mu.Lock()
				i := next
				next++
				stop := i >= cases || bad >= 20 || *diffOnly >= 0 && i > *diffOnly
				mu.Unlock()
				if stop {
					return
				}
				if *diffOnly >= 0 && i != *diffOnly {
					continue
				}
				r := rand.New(rand.NewPCG(seed, uint64(i)))
				m, err := mutate(r, dir, all[r.IntN(len(all))])
				if err != nil {
					t.Errorf("case %d of seed %d: %v", i, seed, err)
					return
				}
				re, our := real(t, dir, m.program, dir), ours(t, m.program, dir)
				how := differ(re, our)
				mu.Lock()
				if re.fatal+re.assertion != "" || len(re.missing)+len(re.undefined)+len(re.versions) > 0 {
					broken++
				}
				if our.chance {
					chance++
				}
				if how != "" {
					bad++
					t.Errorf("case %d of seed %d: %s: %s: %s", i, seed, m.subject, strings.Join(m.done, ", "), how)
					if *diffOnly >= 0 {
						fmt.Println(re.text)
						fmt.Printf("%+v\n", our)
						exec.Command("cp", "-rT", dir, "/tmp/moult-case").Run()
						fmt.Println(m.program)
					}
				}
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	t.Logf("seed %d: %d of %d verdicts are the loader's, %d of something broken, %d where it reads outside of its tables", seed, cases-bad, cases, broken, chance)
	if broken < cases/4 && *diffOnly < 0 {
		t.Errorf("%d of %d cases are broken, want more: the test does not bite", broken, cases)
	}
}
