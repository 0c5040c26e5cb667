package stale

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"moult.example/internal/testneed"
)

func begins(args ...string) func(s *scene) *exec.Cmd {
	return func(s *scene) *exec.Cmd { return exec.Command(filepath.Join(programs, "hold"), args...) }
}

// holding loads a plugin that is at this name in the scene.
func loads(name string) func(s *scene) *exec.Cmd {
	return func(s *scene) *exec.Cmd {
		return exec.Command(filepath.Join(programs, "hold"), "dlopen", s.put("part1.so", name))
	}
}

// How a file was loaded, and what is no code of a file.
func TestTruthOfLoading(t *testing.T) {
	link := func(s *scene, to, name string) { s.must(os.Symlink(to, s.in(name))) }
	compareTruth(t, []situation{
		{name: "link switched", want: Stale,
			begin: func(s *scene) *exec.Cmd {
				s.put("part1.so", "lib.1")
				s.put("part2.so", "lib.2")
				link(s, "lib.1", "lib")
				return exec.Command(filepath.Join(programs, "hold"), "dlopen", s.in("lib"))
			},
			after: func(s *scene) { link(s, "lib.2", "lib.new"); s.rename("lib.new", "lib") }},
		{name: "link on the way switched", want: Stale,
			begin: func(s *scene) *exec.Cmd {
				s.put("hold", "v1/bin/prog")
				s.put("hold2", "v2/bin/prog")
				link(s, "v1", "live")
				return exec.Command(s.in("live/bin/prog"))
			},
			after: func(s *scene) { link(s, "v2", "live.new"); s.rename("live.new", "live") }},
		{name: "link on the way switched to the same bytes", same: true,
			begin: func(s *scene) *exec.Cmd {
				s.put("hold", "v1/bin/prog")
				s.put("hold", "v2/bin/prog")
				link(s, "v1", "live")
				return exec.Command(s.in("live/bin/prog"))
			},
			after: func(s *scene) { link(s, "v2", "live.new"); s.rename("live.new", "live") }},
		{name: "a terabyte of nothing behind it", same: true, // by the build id: nobody has time to compare that
			begin: func(s *scene) *exec.Cmd {
				s.must(os.Truncate(s.put("part1.so", "lib.so"), 1<<40))
				return exec.Command(filepath.Join(programs, "hold"), "dlopen", s.in("lib.so"))
			},
			after: func(s *scene) {
				s.must(os.Truncate(s.put("part1.so", "lib.new"), 1<<40))
				s.rename("lib.new", "lib.so")
			}},
		{name: "link switched to a hard link",
			begin: func(s *scene) *exec.Cmd {
				s.put("hold", "v1/prog")
				mkdir(s.t, s.in("v2"))
				s.must(os.Link(s.in("v1/prog"), s.in("v2/prog")))
				link(s, "v1", "live")
				return exec.Command(s.in("live/prog"))
			},
			after: func(s *scene) { link(s, "v2", "live.new"); s.rename("live.new", "live") }},
		{name: "link removed", want: Gone,
			begin: func(s *scene) *exec.Cmd {
				s.put("hold", "v1/prog")
				link(s, "v1", "live")
				return exec.Command(s.in("live/prog"))
			},
			after: func(s *scene) { s.must(os.Remove(s.in("live"))) }},
		{name: "one of two hard links replaced, the other loaded",
			begin: func(s *scene) *exec.Cmd {
				cmd := loads("a/lib.so")(s)
				s.must(os.Link(s.in("a/lib.so"), s.in("lib.so")))
				return cmd
			},
			after: func(s *scene) { s.replace("part2.so", "lib.so") }},
		{name: "two libraries, one replaced", want: Stale,
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(filepath.Join(programs, "hold"), "dlopen", s.put("part1.so", "a.so"), "dlopen", s.put("libx.so", "b.so"))
			},
			after: func(s *scene) { s.replace("part2.so", "a.so") }},
		{name: "loaded late from a file that is younger than the process",
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(filepath.Join(programs, "hold"), "await", s.in("go"), "dlopen", s.in("late.so"))
			},
			after: func(s *scene) { s.put("part1.so", "late.so"); s.resume() }},
		{name: "loaded late, then replaced", want: Stale,
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(filepath.Join(programs, "hold"), "await", s.in("go"), "dlopen", s.in("late.so"))
			},
			after: func(s *scene) { s.put("part1.so", "late.so"); s.resume(); s.replace("part2.so", "late.so") }},
		{name: "loaded late, then overwritten", want: Corrupt,
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(filepath.Join(programs, "hold"), "await", s.in("go"), "dlopen", s.in("late.so"))
			},
			after: func(s *scene) { s.put("part1.so", "late.so"); s.resume(); s.overwrite("part2.so", "late.so", true) }},
		{name: "overwritten before it was loaded late", note: true,
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(filepath.Join(programs, "hold"), "await", s.in("go"), "dlopen", s.put("part1.so", "late.so"))
			},
			after: func(s *scene) { s.overwrite("part2.so", "late.so", true); s.resume() }},
		{name: "replaced before it was loaded late",
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(filepath.Join(programs, "hold"), "await", s.in("go"), "dlopen", s.put("part1.so", "late.so"))
			},
			after: func(s *scene) { s.replace("part2.so", "late.so"); s.resume() }},
		{name: "executed itself anew after the replacement",
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(s.put("hold", "prog"), "await", s.in("go"), "exec", s.in("prog"))
			},
			after: func(s *scene) { s.replace("hold2", "prog"); s.resume() }},
		{name: "executed itself anew before the replacement", want: Stale,
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(s.put("hold", "prog"), "await", s.in("go"), "exec", s.in("prog"))
			},
			after: func(s *scene) { s.resume(); s.replace("hold2", "prog") }},
		{name: "executed by descriptor, replaced", want: Stale,
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(filepath.Join(programs, "hold"), "fexec", s.put("hold", "prog"))
			},
			after: func(s *scene) { s.replace("hold2", "prog") }},
		{name: "executed by descriptor", begin: func(s *scene) *exec.Cmd {
			return exec.Command(filepath.Join(programs, "hold"), "fexec", s.put("hold", "prog"))
		}},
		{name: "executed by /proc/self/exe, replaced", want: Stale,
			begin: func(s *scene) *exec.Cmd { return exec.Command(s.put("hold", "prog"), "exec", "/proc/self/exe") },
			after: func(s *scene) { s.replace("hold2", "prog") }},
		{name: "static and position independent, linked",
			begin: func(s *scene) *exec.Cmd { return exec.Command(s.put("staticpie", "prog")) },
			after: func(s *scene) { s.must(os.Link(s.in("prog"), s.in("link"))) }},
		{name: "static and position independent, replaced", want: Stale,
			begin: func(s *scene) *exec.Cmd { return exec.Command(s.put("staticpie", "prog")) },
			after: func(s *scene) { s.replace("static2", "prog") }},
		{name: "by a relative name, replaced", want: Stale,
			begin: func(s *scene) *exec.Cmd { s.put("hold", "prog"); return s.at("./prog") },
			after: func(s *scene) { s.replace("hold2", "prog") }},
		{name: "by a relative name, in another directory now",
			begin: func(s *scene) *exec.Cmd {
				s.put("hold", "prog")
				s.put("hold2", "else/prog")
				return s.at("./prog", "chdir", s.in("else"))
			}},
		{name: "by a relative name, moved aside", want: Stale,
			begin: func(s *scene) *exec.Cmd { s.put("hold", "prog"); return s.at("./prog") },
			after: func(s *scene) { s.rename("prog", "prog.old"); s.put("hold2", "prog") }},
		{name: "by a relative name, moved away",
			begin: func(s *scene) *exec.Cmd { s.put("hold", "prog"); return s.at("./prog") },
			after: func(s *scene) { s.rename("prog", "prog.old") }},
		{name: "by a relative name, moved elsewhere",
			begin: func(s *scene) *exec.Cmd { s.put("hold", "prog"); return s.at("./prog") },
			after: func(s *scene) { mkdir(s.t, s.in("else")); s.rename("prog", "else/prog"); s.put("hold2", "prog") }},
		{name: "by a relative link, switched", want: Stale,
			begin: func(s *scene) *exec.Cmd {
				s.put("hold", "prog.1")
				link(s, "prog.1", "prog")
				return s.at("./prog")
			},
			after: func(s *scene) { s.put("hold2", "prog.2"); link(s, "prog.2", "new"); s.rename("new", "prog") }},
		{name: "by a relative link",
			begin: func(s *scene) *exec.Cmd {
				s.put("hold", "prog.1")
				link(s, "prog.1", "prog")
				return s.at("./prog")
			}},
		{name: "a relative plugin, moved aside", want: Stale,
			begin: func(s *scene) *exec.Cmd {
				s.put("part1.so", "lib.so")
				return s.at(filepath.Join(programs, "hold"), "dlopen", "./lib.so")
			},
			after: func(s *scene) { s.rename("lib.so", "lib.old"); s.put("part2.so", "lib.so") }},
		{name: "a relative plugin, replaced", want: Stale,
			begin: func(s *scene) *exec.Cmd {
				s.put("part1.so", "lib.so")
				return s.at(filepath.Join(programs, "hold"), "dlopen", "./lib.so")
			},
			after: func(s *scene) { s.replace("part2.so", "lib.so") }},
		{name: "by the loader, replaced", want: Stale,
			begin: func(s *scene) *exec.Cmd { return exec.Command(loader(s.t), s.put("hold", "prog")) },
			after: func(s *scene) { s.replace("hold2", "prog") }},
		{name: "by the loader", begin: func(s *scene) *exec.Cmd { return exec.Command(loader(s.t), s.put("hold", "prog")) }},
		{name: "library gone with the program that needed it", want: Stale, begin: needing,
			after: func(s *scene) {
				s.must(os.Remove(s.in("libpart.so.1")))
				s.put("part3.so", "libpart.so.3")
				s.replace("needs3", "needs")
			}},
		{name: "library gone, the new program needs it, too", want: Gone, begin: needing,
			after: func(s *scene) { s.must(os.Remove(s.in("libpart.so.1"))); s.replace("needs2", "needs") }},
		{name: "plugin gone, another program", want: Stale, note: true,
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(s.put("hold", "prog"), "dlopen", s.put("part1.so", "lib.so"))
			},
			after: func(s *scene) { s.must(os.Remove(s.in("lib.so"))); s.replace("hold2", "prog") }},
		{name: "first thread ended, library replaced", want: Stale,
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(filepath.Join(programs, "hold"), "dlopen", s.put("part1.so", "lib.so"), "quit")
			},
			after: func(s *scene) { s.replace("part2.so", "lib.so") }},
		{name: "in a namespace of dlmopen, moved aside", want: Stale,
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(filepath.Join(programs, "hold"), "dlmopen", s.put("part1.so", "lib.so"))
			},
			after: func(s *scene) { s.rename("lib.so", "lib.bak"); s.put("part2.so", "lib.so") }},
		{name: "unpacked, loaded and removed by itself",
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(filepath.Join(programs, "hold"), "await", s.in("go"), "temp", s.in("jni.so"))
			},
			after: func(s *scene) { s.put("part1.so", "jni.so"); s.resume() }},

		{name: "code in a memfd", begin: begins("code", "memfd")},
		{name: "code in /dev/shm", begin: begins("code", "shm")},
		{name: "code in System V memory", begin: begins("code", "sysv")},
		{name: "code in /dev/zero", begin: begins("code", "zero")},
		{name: "code in a file that was unlinked", begin: func(s *scene) *exec.Cmd {
			return exec.Command(filepath.Join(programs, "hold"), "code", s.in("jit"))
		}},
		{name: "code in a file that is no program, written to",
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(filepath.Join(programs, "hold"), "code", s.in("jit.cache"))
			},
			after: func(s *scene) {
				if err := os.WriteFile(s.in("jit.cache"), make([]byte, 4096), 0o700); err != nil {
					s.t.Fatal(err)
				}
			}},
		{name: "data mapped, replaced",
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(filepath.Join(programs, "hold"), "map", s.put("part1.so", "data"))
			},
			after: func(s *scene) { s.replace("part2.so", "data") }},
		{name: "open, replaced",
			begin: func(s *scene) *exec.Cmd {
				return exec.Command(filepath.Join(programs, "hold"), "open", s.put("part1.so", "data"))
			},
			after: func(s *scene) { s.replace("part2.so", "data") }},
	})
}

// needing runs a program that needs a library beside it.
func needing(s *scene) *exec.Cmd {
	s.put("part1.so", "libpart.so.1")
	return exec.Command(s.put("needs", "needs"))
}

// at starts a program in the directory of the scene.
func (s *scene) at(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Dir = s.dir
	if name[0] == '.' {
		cmd.Path = name
	}
	return cmd
}

func loader(t *testing.T) string {
	f, ok := readELF(openFile(t, filepath.Join(programs, "hold")))
	if !ok || f.interp == "" {
		t.Fatal("hold has no loader")
	}
	return f.interp
}

func openFile(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Names that the kernel prints in a way that can be mistaken.
func TestTruthOfNames(t *testing.T) {
	var all []situation
	for _, name := range []string{"a b", "a\nb", `a\012b`, "a (deleted)", " x", "é\xff\x01", "d (deleted)/f"} {
		all = append(all,
			situation{name: fmt.Sprintf("%q", name), begin: loads(name)},
			situation{name: fmt.Sprintf("%q replaced", name), want: Stale, begin: loads(name),
				after: func(s *scene) { s.replace("part2.so", name) }},
			situation{name: fmt.Sprintf("%q unlinked", name), want: Gone, begin: loads(name),
				after: func(s *scene) { s.must(os.Remove(s.in(name))) }},
			situation{name: fmt.Sprintf("program %q replaced", name), want: Stale,
				begin: func(s *scene) *exec.Cmd { return exec.Command(s.put("static", name)) },
				after: func(s *scene) { s.replace("static2", name) }},
		)
	}
	all = append(all,
		situation{name: "unlinked, and another is called so", want: Gone, begin: loads("lib.so"),
			after: func(s *scene) { s.must(os.Remove(s.in("lib.so"))); s.put("part2.so", "lib.so (deleted)") }},
		situation{name: "static unlinked, and another is called so", want: Gone,
			begin: func(s *scene) *exec.Cmd { return exec.Command(s.put("static", "prog")) },
			after: func(s *scene) { s.must(os.Remove(s.in("prog"))); s.put("static2", "prog (deleted)") }},
	)
	compareTruth(t, all)
	// Without the loader's lists, from the kernel's names alone.
	scenes := play(t, all)
	rep, err := Find(t.Context(), Options{MapsOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range all {
		if got, _, text := judged(rep, scenes[x.name].pid); got != x.want {
			t.Errorf("%s, maps only: verdict %q, want %q: %s", x.name, got, x.want, text)
		}
	}
}

// Scripts: the interpreter is judged, not the script.
func TestTruthOfScripts(t *testing.T) {
	sh := func(s *scene) *exec.Cmd {
		shell, err := exec.LookPath("sh")
		s.must(err)
		copyFile(s.t, shell, s.in("interp"))
		s.must(os.WriteFile(s.in("script"), []byte("#! "+s.in("interp")+" -e\necho ready\nread x <"+s.in("pipe")+"\n"), 0o755))
		s.shell("mkfifo $1/pipe")
		return exec.Command(s.in("script"))
	}
	testneed.Tool(t, "mkfifo")
	compareTruth(t, []situation{
		{name: "script", begin: sh},
		{name: "interpreter replaced", want: Stale, begin: sh, after: func(s *scene) { s.replace("hold", "interp") }},
		{name: "interpreter unlinked", want: Gone, begin: sh, after: func(s *scene) { s.must(os.Remove(s.in("interp"))) }},
		{name: "script replaced", begin: sh, after: func(s *scene) {
			s.must(os.WriteFile(s.in("new"), []byte("#! "+s.in("interp")+" -e\necho other\n"), 0o755))
			s.rename("new", "script")
		}},
		{name: "script now of another interpreter", want: Stale, begin: sh, after: func(s *scene) {
			s.put("hold", "other")
			s.must(os.WriteFile(s.in("new"), []byte("#!"+s.in("other")+"\n"), 0o755))
			s.rename("new", "script")
		}},
		{name: "script unlinked", begin: sh, after: func(s *scene) { s.must(os.Remove(s.in("script"))) }},
	})
}
