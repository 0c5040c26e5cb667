package hostfacts

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"moult.example/internal/testneed"
)

// tree makes files under a new directory; a text that begins with "->" is a
// symbolic link.
func tree(t *testing.T, files map[string]string) Options {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(to, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return Options{Root: root}
}

func wantPackages(t *testing.T, o Options, want map[string]string, none ...string) {
	t.Helper()
	paths := append(slices.Sorted(maps.Keys(want)), none...)
	got, err := Packages(t.Context(), o, paths)
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	// Asked one by one, when fewer lists matter, the answers are the same.
	for _, path := range paths {
		got, err := Packages(t.Context(), o, []string{path})
		if err != nil || got[path] != want[path] {
			t.Errorf("%s alone: got %q, %v, want %q", path, got[path], err, want[path])
		}
	}
}

// Lists as dpkg writes them, on a host with merged /usr: packages still say
// /bin, or say /usr/bin by now, and users write either.
func TestDpkg(t *testing.T) {
	o := tree(t, map[string]string{
		"bin":                             "->usr/bin",
		"lib64":                           "->usr/lib64",
		"usr/bin/x":                       "",
		"usr/lib64/x":                     "",
		"opt/link":                        "->../usr/bin",
		"var/lib/dpkg/info/dash.list":     "/.\n/bin\n/bin/dash\n/bin/sh\n/usr\n/usr/share/dash\n",
		"var/lib/dpkg/info/bash.list":     "/.\n/bin\n/bin/bash\n",
		"var/lib/dpkg/info/new.list":      "/.\n/usr\n/usr/bin\n/usr/bin/new\n",
		"var/lib/dpkg/info/new.md5sums":   "00 usr/bin/other\n",
		"var/lib/dpkg/info/libc6:i8.list": "/.\n/lib64\n/lib64/ld.so\n/etc/a b\n/vmlinuz\n",
	})
	wantPackages(t, o, map[string]string{
		"/bin/dash": "dash", "/usr/bin/dash": "dash", "/opt/link/dash": "dash",
		"/usr/bin/bash": "bash", "/bin/new": "new", "/usr/bin/new": "new", "/opt/link/new": "new",
		"/usr/lib64/ld.so": "libc6:i8", "/lib64/ld.so": "libc6:i8", "/etc/a b": "libc6:i8", "/vmlinuz": "libc6:i8",
	}, "/usr/bin/other", "/usr/bin/das", "/usr/bin/dashh", "/opt/dash", "/usr/local/bin/dash", "/a b", "/sbin/dash")
}

// Where /usr is not merged, /bin and /usr/bin are two places.
func TestDpkgNotMerged(t *testing.T) {
	o := tree(t, map[string]string{
		"bin/x": "", "usr/bin/x": "",
		"var/lib/dpkg/info/a.list": "/bin/tool\n",
		"var/lib/dpkg/info/b.list": "/usr/bin/tool\n/usr/bin/more\n",
	})
	wantPackages(t, o, map[string]string{"/bin/tool": "a", "/usr/bin/tool": "b", "/usr/bin/more": "b"}, "/bin/more")
}

// Where /usr/sbin is a link, too, as on Fedora, there are four ways to write
// one path.
func TestDpkgMergedOnceMore(t *testing.T) {
	o := tree(t, map[string]string{
		"bin": "->usr/bin", "sbin": "->usr/sbin", "usr/sbin": "->bin", "usr/bin/x": "",
		"var/lib/dpkg/info/a.list": "/sbin/a\n/usr/share/a\n",
		"var/lib/dpkg/info/b.list": "/usr/sbin/b\n",
		"var/lib/dpkg/info/c.list": "/bin/c\n",
	})
	wantPackages(t, o, map[string]string{
		"/usr/bin/a": "a", "/sbin/a": "a", "/usr/sbin/b": "b", "/bin/b": "b", "/usr/bin/b": "b",
		"/usr/sbin/c": "c", "/sbin/c": "c", "/usr/share/a": "a",
	}, "/usr/share/b")
}

// A diverted path belongs to the package that diverts it, and where it was
// moved to, to the one that lists the path.
func TestDpkgDiversions(t *testing.T) {
	o := tree(t, map[string]string{
		"bin": "->usr/bin", "usr/bin/x": "",
		"var/lib/dpkg/diversions": "/bin/sh\n/bin/sh.distrib\ndash\n/usr/bin/local\n/usr/bin/local.real\n:\n" +
			"/usr/bin/perf\n/usr/share/away/perf\nwrap\n",
		"var/lib/dpkg/info/dash.list":    "/bin/dash\n/bin/sh\n",
		"var/lib/dpkg/info/bash.list":    "/bin/sh\n",
		"var/lib/dpkg/info/some.list":    "/usr/bin/local\n",
		"var/lib/dpkg/info/wrap:a8.list": "/usr/bin/perf\n",
		"var/lib/dpkg/info/perf.list":    "/usr/bin/perf\n",
	})
	wantPackages(t, o, map[string]string{
		"/usr/bin/sh": "dash", "/bin/sh.distrib": "bash", "/bin/local.real": "some",
		"/usr/bin/perf": "wrap:a8", "/usr/share/away/perf": "perf",
	}, "/usr/bin/local")
}

// On this host: the same as dpkg says itself.
func TestDpkgOfThisHost(t *testing.T) {
	if _, err := os.Stat("/var/lib/dpkg/info"); err != nil {
		t.Skip("this host's packages are not dpkg's")
	}
	dpkg := testneed.Tool(t, "dpkg")
	var paths []string
	for _, dir := range []string{"/bin", "/usr/bin", "/usr/lib", "/usr/sbin", "/lib", "/etc", "/usr/share/doc/dpkg"} {
		files, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for i, e := range files {
			if !e.IsDir() && i%3 == 0 {
				paths = append(paths, dir+"/"+e.Name())
			}
		}
	}
	got, err := Packages(t.Context(), Options{}, paths)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) < 10 {
		t.Errorf("got owners of %d of %d paths, want at least 10", len(got), len(paths))
	}
	// dpkg goes by the text of its lists: asked for both names of a file on a
	// merged host it knows one at least.
	args := []string{"-S"}
	for _, path := range paths {
		args = append(args, path)
		if real, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			args = append(args, filepath.Join(real, filepath.Base(path)), strings.TrimPrefix(filepath.Join(real, filepath.Base(path)), "/usr"))
		}
	}
	cmd := exec.Command(dpkg, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, _ := cmd.Output() // what has no owner is a failure to it
	want := map[string]string{}
	diverted := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		pkg, path, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if strings.HasPrefix(line, "diversion by ") {
			diverted[strings.TrimPrefix(path, "/usr")] = true
		} else if ok {
			want[strings.TrimPrefix(path, "/usr")] = pkg
		}
	}
	for _, path := range paths {
		real, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		key := strings.TrimPrefix(filepath.Join(real, filepath.Base(path)), "/usr")
		if w := want[key]; !diverted[key] && got[path] != w && !slices.Contains(strings.Split(w, ", "), got[path]) {
			t.Errorf("%s: got %q, dpkg says %q", path, got[path], w)
		}
	}
}

// One package that rpm knows: the query says which own anything, a second one
// what they have.
func TestRPMRecorded(t *testing.T) {
	o := tree(t, map[string]string{"var/lib/rpm/rpmdb.sqlite": "x", "bin": "->usr/bin", "usr/bin/x": ""})
	var calls []string
	o.Run = func(_ context.Context, name string, args ...string) (stdout, stderr []byte, err error) {
		calls = append(calls, name+" "+args[0])
		if i := slices.Index(args, "--dbpath"); i < 0 || args[i+1] != o.Root+"/var/lib/rpm" {
			t.Errorf("rpm %q: want --dbpath of the root", args)
		}
		if args[0] == "-qf" {
			return []byte("moult:bash-5.1.8-9.el9.x86_64\nfile /opt/x is not owned by any package\n"),
				[]byte("error: file /usr/bin/none: No such file or directory\n"), &exec.ExitError{}
		}
		if args[len(args)-1] != "bash-5.1.8-9.el9.x86_64" {
			t.Errorf("rpm %q: want bash's", args)
		}
		return []byte("moult:bash\t/usr/bin/bash\nmoult:bash\t/bin/sh\nmoult:bash\t/etc/skel/.bashrc\n"), nil, nil
	}
	got, err := Packages(t.Context(), o, []string{"/bin/bash", "/usr/bin/sh", "/usr/bin/none", "/opt/x"})
	want := map[string]string{"/bin/bash": "bash", "/usr/bin/sh": "bash"}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if want := []string{"rpm -qf", "rpm -q"}; !slices.Equal(calls, want) {
		t.Errorf("calls %q, want %q", calls, want)
	}
}

func TestRPMFails(t *testing.T) {
	o := tree(t, map[string]string{"usr/lib/sysimage/rpm/rpmdb.sqlite": "x"})
	o.Run = func(context.Context, string, ...string) (stdout, stderr []byte, err error) {
		return nil, []byte("error: cannot open Packages database in /var/lib/rpm\n"), &exec.ExitError{}
	}
	_, err := Packages(t.Context(), o, []string{"/usr/bin/x"})
	if err == nil || !strings.Contains(err.Error(), "cannot open Packages") {
		t.Errorf("a broken database: got %v, want what rpm said", err)
	}
	o.Run = func(context.Context, string, ...string) (stdout, stderr []byte, err error) {
		return nil, nil, &exec.Error{Name: "rpm", Err: exec.ErrNotFound}
	}
	if got, err := Packages(t.Context(), o, []string{"/usr/bin/x"}); err != nil || len(got) > 0 {
		t.Errorf("no rpm: got %v, %v, want nothing", got, err)
	}
	called := false
	o = tree(t, map[string]string{"var/lib/rpm/.rpm.lock": "", "var/lib/rpm/Packages": ""})
	o.Run = func(context.Context, string, ...string) (stdout, stderr []byte, err error) {
		called = true
		return nil, nil, nil
	}
	if _, err := Packages(t.Context(), o, []string{"/usr/bin/x"}); err != nil || called {
		t.Errorf("no database: got %v, called %v, want no call", err, called)
	}
}

// On a host with rpm's packages: rpm's own program is one of them.
func TestRPMOfThisHost(t *testing.T) {
	if !slices.ContainsFunc(rpmDatabases, Options{}.hasRPMDatabase) {
		t.Skip("this host's packages are not rpm's")
	}
	rpm := testneed.Tool(t, "rpm")
	got, err := Packages(t.Context(), Options{}, []string{rpm, "/opt/moult-none/x"})
	if want := map[string]string{rpm: "rpm"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
}

func TestPackagesErrors(t *testing.T) {
	o := tree(t, map[string]string{"var/lib/dpkg/info/a.list/x": ""}) // a directory
	_, err := Packages(t.Context(), o, []string{"/usr/bin/x"})
	if pe := new(fs.PathError); !errors.As(err, &pe) {
		t.Errorf("a list that cannot be read: got %v, want a PathError", err)
	}
	if got, err := Packages(t.Context(), tree(t, nil), []string{"/usr/bin/x"}); err != nil || len(got) > 0 {
		t.Errorf("no package manager: got %v, %v, want nothing", got, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o = tree(t, map[string]string{"var/lib/dpkg/info/a.list": "/x\n"})
	if _, err := Packages(ctx, o, []string{"/x"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want %v", err, context.Canceled)
	}
}

func TestBatches(t *testing.T) {
	long := strings.Repeat("x", 300<<10)
	for _, tt := range []struct {
		args []string
		want []int
	}{
		{nil, nil}, {[]string{"a", "b"}, []int{2}}, {[]string{long, long, "a"}, []int{1, 2}}, {[]string{"a", long + long, "b"}, []int{1, 1, 1}}, {[]string{long + long, "b"}, []int{1, 1}},
	} {
		var got []int
		for _, b := range batches(tt.args) {
			got = append(got, len(b))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%d arguments: got batches of %v, want %v", len(tt.args), got, tt.want)
		}
	}
}

func BenchmarkPackages(b *testing.B) {
	for name, format := range map[string]string{"local": "/usr/local/bin/tool", "usr": "/usr/lib/libmine.so"} {
		paths := []string{format}
		for i := range 5000 {
			paths = append(paths, format+strings.Repeat("x", i%50)+string(rune('a'+i%26)))
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Packages(b.Context(), Options{}, paths); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
