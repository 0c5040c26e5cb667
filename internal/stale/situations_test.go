package stale

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// change is something that happens to a file "D/f" of a scene, of which "other"
// is another version.
type change struct {
	name string
	want Verdict
	note bool
	same bool
	exe  bool // it can be done to a running executable, too
	do   func(s *scene, file, same, other string)
}

var changes = []change{
	{name: "nothing", exe: true, do: func(s *scene, f, same, other string) {}},
	{name: "renamed over", want: Stale, exe: true, do: func(s *scene, f, same, other string) { s.replace(other, f) }},
	{name: "unlinked", want: Gone, exe: true, do: func(s *scene, f, same, other string) { s.must(os.Remove(s.in(f))) }},
	{name: "unlinked and made anew", want: Stale, exe: true, do: func(s *scene, f, same, other string) {
		s.must(os.Remove(s.in(f)))
		s.put(other, f)
	}},
	{name: "moved aside", want: Gone, exe: true, do: func(s *scene, f, same, other string) { s.rename(f, f+".bak") }},
	{name: "moved aside, another put there", want: Stale, exe: true, do: func(s *scene, f, same, other string) {
		s.rename(f, f+".bak")
		s.put(other, f)
	}},
	{name: "exchanged", want: Stale, exe: true, do: func(s *scene, f, same, other string) {
		s.put(other, f+".new")
		s.exchange(f+".new", f)
	}},
	{name: "exchanged and back", exe: true, do: func(s *scene, f, same, other string) {
		s.put(other, f+".new")
		s.exchange(f+".new", f)
		s.exchange(f+".new", f)
	}},
	{name: "hard link as backup, renamed over", want: Stale, exe: true, do: func(s *scene, f, same, other string) {
		s.must(os.Link(s.in(f), s.in(f+".bak")))
		s.replace(other, f)
	}},
	{name: "replaced, backup put back", exe: true, do: func(s *scene, f, same, other string) {
		s.must(os.Link(s.in(f), s.in(f+".bak")))
		s.replace(other, f)
		s.rename(f+".bak", f)
	}},
	{name: "directory renamed", want: Gone, exe: true, do: func(s *scene, f, same, other string) { s.rename("d", "d.old") }},
	{name: "directory replaced", want: Stale, exe: true, do: func(s *scene, f, same, other string) {
		s.rename("d", "d.old")
		s.put(other, f)
	}},
	{name: "directory renamed, a link in its place", exe: true, do: func(s *scene, f, same, other string) {
		s.rename("d", "d.old")
		s.must(os.Symlink("d.old", s.in("d")))
	}},
	{name: "a link to another in its place", want: Stale, exe: true, do: func(s *scene, f, same, other string) {
		s.put(other, "else/f")
		s.must(os.Remove(s.in(f)))
		s.must(os.Symlink("../else/f", s.in(f)))
	}},
	{name: "a link to nothing in its place", want: Gone, exe: true, do: func(s *scene, f, same, other string) {
		s.must(os.Remove(s.in(f)))
		s.must(os.Symlink("../else/f", s.in(f)))
	}},
	{name: "same bytes renamed over", same: true, exe: true, do: func(s *scene, f, same, other string) { s.replace(same, f) }},
	{name: "replaced, then the same bytes", same: true, exe: true, do: func(s *scene, f, same, other string) {
		s.replace(other, f)
		s.replace(same, f)
	}},
	{name: "linked", exe: true, do: func(s *scene, f, same, other string) { s.must(os.Link(s.in(f), s.in("link"))) }},
	{name: "mode changed", exe: true, do: func(s *scene, f, same, other string) { s.must(os.Chmod(s.in(f), 0o700)) }},
	{name: "touched", note: true, exe: true, do: func(s *scene, f, same, other string) { s.shell("touch $1/" + f) }},

	{name: "overwritten, cut to nothing first", want: Corrupt, do: func(s *scene, f, same, other string) { s.overwrite(other, f, true) }},
	{name: "the same bytes copied over it", want: Corrupt, do: func(s *scene, f, same, other string) { s.overwrite(same, f, true) }},
	{name: "the same bytes written, not cut", note: true, do: func(s *scene, f, same, other string) { s.overwrite(same, f, false) }},
	{name: "overwritten, not cut", want: Corrupt, do: func(s *scene, f, same, other string) { s.overwrite(other, f, false) }},
	{name: "cut to nothing", want: Corrupt, do: func(s *scene, f, same, other string) { s.must(os.Truncate(s.in(f), 0)) }},
	{name: "cut short", want: Corrupt, do: func(s *scene, f, same, other string) { s.must(os.Truncate(s.in(f), 4096)) }},
	{name: "overwritten by text", want: Corrupt, do: func(s *scene, f, same, other string) {
		s.must(os.WriteFile(s.in(f), make([]byte, 64<<10), 0o755))
	}},
	{name: "overwritten, times set back", want: Corrupt, do: func(s *scene, f, same, other string) {
		s.shell("touch -r $1/" + f + " $1/stamp")
		s.overwrite(other, f, true)
		s.shell("touch -r $1/stamp $1/" + f)
	}},
	{name: "overwritten, then renamed over", want: Corrupt, do: func(s *scene, f, same, other string) {
		s.overwrite(other, f, true)
		s.replace(other, f)
	}},
	{name: "overwritten and moved aside", want: Corrupt, do: func(s *scene, f, same, other string) {
		s.overwrite(other, f, true)
		s.rename(f, f+".bak")
	}},
}

func (s *scene) exchange(a, b string) {
	s.t.Helper()
	s.must(unix.Renameat2(unix.AT_FDCWD, s.in(a), unix.AT_FDCWD, s.in(b), unix.RENAME_EXCHANGE))
}

// Every change, to every kind of file.
func TestTruth(t *testing.T) {
	hold := filepath.Join(programs, "hold")
	kinds := []struct {
		name, file, same, other string
		exe                     bool
		begin                   func(s *scene, file string) *exec.Cmd
	}{
		{"plugin", "d/plugin.so", "part1.so", "part2.so", false, func(s *scene, file string) *exec.Cmd {
			return exec.Command(hold, "dlopen", file)
		}},
		{"needed library", "d/libpart.so.1", "part1.so", "part2.so", false, func(s *scene, file string) *exec.Cmd {
			return exec.Command(s.put("needs", "bin/needs"))
		}},
		{"executable", "d/prog", "hold", "hold2", true, func(s *scene, file string) *exec.Cmd { return exec.Command(file) }},
		{"static executable", "d/prog", "static", "static2", true, func(s *scene, file string) *exec.Cmd { return exec.Command(file) }},
	}
	var all []situation
	for _, k := range kinds {
		for _, c := range changes {
			if k.exe && !c.exe {
				continue
			}
			all = append(all, situation{
				name: k.name + " " + c.name, want: c.want, note: c.note, same: c.same,
				begin: func(s *scene) *exec.Cmd {
					cmd := k.begin(s, s.put(k.same, k.file))
					if k.file == "d/libpart.so.1" {
						cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+s.in("d"))
					}
					return cmd
				},
				after: func(s *scene) { c.do(s, k.file, k.same, k.other) },
			})
		}
	}
	compareTruth(t, all)
}
