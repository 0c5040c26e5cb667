package disktest_test

import (
	"strconv"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

// What ext4, XFS and btrfs were seen to leave after a power cut (kernel 6.18,
// default mounts). The model must know each outcome, since a protocol that it
// lets pass must stand on all three. Where only is set, a protocol is complete
// and nothing else may be left.
//
// An outcome is a list of name=text; 0 is an empty file, %3 three zero bytes, - a
// name that is not there, @text a link, a leading 0 in the text a mode.
var measured = []struct {
	what     string
	initial  string
	job      func(j job)
	outcomes []string
	only     bool
}{
	{
		what: "write, sync, rename over, nothing", initial: "f=old",
		job:      func(j job) { j.write(".f", "new", true); j.rename(".f", "f") },
		outcomes: []string{"f=old"},
	},
	{
		what: "write, sync, rename over, sync the directory", initial: "f=old",
		job:      func(j job) { j.write(".f", "new", true); j.rename(".f", "f"); j.syncDir(".") },
		outcomes: []string{"f=new .f=-"}, only: true,
	},
	{
		what: "write, sync, rename over, sync the file again", initial: "f=old",
		job: func(j job) {
			f := j.begin(".f", "new")
			must(j.t, f.Sync())
			j.rename(".f", "f")
			must(j.t, f.Sync())
			must(j.t, f.Close())
		},
		outcomes: []string{"f=new"},
	},
	{
		what: "write, no sync, rename over, sync the directory", initial: "f=old",
		job:      func(j job) { j.write(".f", "new", false); j.rename(".f", "f"); j.syncDir(".") },
		outcomes: []string{"f=new", "f=0", "f=n", "f=%3"},
	},
	{
		what: "write, no sync, rename to a new name, sync the directory", initial: "g=old",
		job:      func(j job) { j.write(".f", "new", false); j.rename(".f", "f"); j.syncDir(".") },
		outcomes: []string{"f=0"},
	},
	{
		what: "write, no sync, rename over, sync an unrelated file", initial: "f=old log=1",
		job:      func(j job) { j.write(".f", "new", false); j.rename(".f", "f"); j.append("log", "2") },
		outcomes: []string{"f=new log=12", "f=0 log=12", "f=old log=12"},
	},
	{
		what: "all synced, rename A and B, sync a journal that says done", initial: "a=old b=old journal=prep",
		job: func(j job) {
			j.write(".a", "new", false)
			j.write(".b", "new", false)
			must(j.t, j.SyncFS())
			j.rename(".a", "a")
			j.rename(".b", "b")
			j.append("journal", "done")
		},
		outcomes: []string{"a=new b=new journal=prepdone", "a=old b=old journal=prepdone"},
	},
	{
		what: "all synced, rename A in d1 and B in d2, sync d2", initial: "d1/a=old d2/b=old",
		job: func(j job) {
			j.write("d1/.a", "new", false)
			j.write("d2/.b", "new", false)
			must(j.t, j.SyncFS())
			j.rename("d1/.a", "d1/a")
			j.rename("d2/.b", "d2/b")
			j.syncDir("d2")
		},
		outcomes: []string{"d1/a=new d2/b=new", "d1/a=old d2/b=new"},
	},
	{
		what: "turn a link, sync an unrelated file", initial: "live=@one log=1",
		job: func(j job) {
			must(j.t, j.Symlink("two", ".live"))
			j.rename(".live", "live")
			j.append("log", "2")
		},
		outcomes: []string{"live=@two log=12", "live=@one log=12"},
	},
	{
		what: "remove, sync an unrelated file", initial: "x=there log=1",
		job:      func(j job) { must(j.t, j.Remove("x")); j.append("log", "2") },
		outcomes: []string{"x=- log=12", "x=there log=12"},
	},
	{
		what: "chmod, sync an unrelated file", initial: "x=0600 log=1",
		job: func(j job) {
			must(j.t, j.SetMeta("x", disk.Meta{UID: -1, GID: -1, Mode: 0o4755}))
			j.append("log", "2")
		},
		outcomes: []string{"x=04755 log=12", "x=0600 log=12"},
	},
	{
		what: "new directory not synced, turn the link, sync its directory", initial: "live=@1 gens/1/f=old",
		job:      func(j job) { j.generation(false); j.turn(); j.syncDir(".") },
		outcomes: []string{"live=@gens/2 gens/2/f=0", "live=@gens/2 gens/2/f=-"},
	},
	{
		what: "new directory, only its files synced, turn the link, sync its directory", initial: "live=@1 gens/1/f=old",
		job:      func(j job) { j.generation(true); j.turn(); j.syncDir(".") },
		outcomes: []string{"live=@gens/2 gens/2/f=new", "live=@gens/2 gens/2/f=-"},
	},
	{
		what: "new directory, all synced, turn the link, sync its directory", initial: "live=@1 gens/1/f=old",
		job:      func(j job) { j.generation(false); must(j.t, j.SyncFS()); j.turn(); j.syncDir(".") },
		outcomes: []string{"live=@gens/2 gens/2/f=new gens/1/f=old .live=-"}, only: true,
	},
	{
		what: "exchange directories, sync their directory", initial: "a/f=old b/f=new",
		job:      func(j job) { must(j.t, j.Exchange("a", "b")); j.syncDir(".") },
		outcomes: []string{"a/f=new b/f=old"}, only: true,
	},
	{
		what: "exchange across directories, sync one", initial: "a/f=old b/f=new",
		job:      func(j job) { must(j.t, j.Exchange("a/f", "b/f")); j.syncDir("a") },
		outcomes: []string{"a/f=new b/f=old", "a/f=old b/f=new"}, only: true,
	},
	{
		what: "move across directories, sync both", initial: "a/f=x b/g=y",
		job:      func(j job) { j.rename("a/f", "b/f"); j.syncDir("a"); j.syncDir("b") },
		outcomes: []string{"a/f=- b/f=x b/g=y"}, only: true,
	},
	{
		// The second rename is on the disk, wherever the first has got to.
		what: "move across directories, rename there, sync there", initial: "a/f=x b/g=y",
		job:      func(j job) { j.rename("a/f", "b/f"); j.rename("b/f", "b/h"); j.syncDir("b") },
		outcomes: []string{"a/f=- b/h=x b/f=- b/g=y", "a/f=x b/h=x b/f=- b/g=y"}, only: true,
	},
	{
		what: "the journaled set, cut after the first directory is synced", initial: "d1/a=old d2/b=old journal=prep",
		job: func(j job) {
			j.write("d1/.a", "new", false)
			j.write("d2/.b", "new", false)
			must(j.t, j.SyncFS())
			must(j.t, j.Exchange("d1/.a", "d1/a"))
			must(j.t, j.Exchange("d2/.b", "d2/b"))
			j.syncDir("d2")
		},
		outcomes: []string{
			"d1/a=new d1/.a=old d2/b=new d2/.b=old journal=prep",
			"d1/a=old d1/.a=new d2/b=new d2/.b=old journal=prep",
		},
		only: true,
	},
	{
		what: "move across directories, sync the new one", initial: "a/f=x b/g=y",
		job:      func(j job) { j.rename("a/f", "b/f"); j.syncDir("b") },
		outcomes: []string{"a/f=- b/f=x", "a/f=x b/f=x"},
	},
	{
		what: "move over a file in another directory, sync that", initial: "a/f=x b/g=y",
		job:      func(j job) { j.rename("a/f", "b/g"); j.syncDir("b") },
		outcomes: []string{"a/f=- b/g=x", "a/f=x b/g=x"},
	},
	{
		what: "move across directories, sync the old one", initial: "a/f=x b/g=y",
		job:      func(j job) { j.rename("a/f", "b/f"); j.syncDir("a") },
		outcomes: []string{"a/f=- b/f=x"},
	},
	{
		what: "move a link across directories, rename it there, sync there", initial: "a/f=@x b/g=y",
		job:      func(j job) { j.rename("a/f", "b/f"); j.rename("b/f", "b/h"); j.syncDir("b") },
		outcomes: []string{"a/f=- b/h=@x b/f=-", "a/f=@x b/h=@x b/f=-"}, only: true,
	},
	{
		what: "move a directory across directories, sync the new one", initial: "a/d/f=x b/g=y",
		job:      func(j job) { j.rename("a/d", "b/d"); j.syncDir("b") },
		outcomes: []string{"a/d/f=- b/d/f=x"},
	},
	{
		what: "move a directory across directories, rename it there, sync there", initial: "a/d/f=x b/g=y",
		job:      func(j job) { j.rename("a/d", "b/d"); j.rename("b/d", "b/e"); j.syncDir("b") },
		outcomes: []string{"a/d/f=- b/e/f=x b/d/f=-"}, only: true,
	},
	{
		what: "link into another directory, remove the old name, sync where it was", initial: "a/f=x b/g=y",
		job:      func(j job) { must(j.t, j.Link("a/f", "b/f")); must(j.t, j.Remove("a/f")); j.syncDir("a") },
		outcomes: []string{"a/f=- b/f=x", "a/f=- b/f=-"},
	},
	{
		what: "move the old aside into another directory, the new in its place, sync aside", initial: "a/f=old a/n=new b/g=y",
		job:      func(j job) { j.rename("a/f", "b/f"); j.rename("a/n", "a/f"); j.syncDir("b") },
		outcomes: []string{"a/f=new b/f=old a/n=-", "a/f=old b/f=old a/n=new"},
	},
	{
		what: "move all out of a directory, remove it, sync where it went", initial: "a/d/f=x b/g=y",
		job:      func(j job) { j.rename("a/d/f", "b/f"); must(j.t, j.Remove("a/d")); j.syncDir("b") },
		outcomes: []string{"a/d/f=- a/d=- b/f=x", "a/d/f=x b/f=x"},
	},
	{
		what: "exchange across directories, rename there, sync the other", initial: "a/t=new b/f=old",
		job:      func(j job) { must(j.t, j.Exchange("a/t", "b/f")); j.rename("a/t", "a/o"); j.syncDir("b") },
		outcomes: []string{"a/t=- a/o=old b/f=new"},
	},
	{
		what: "exchange a directory with a link elsewhere, sync the link's", initial: "a/t=@new b/d/f=old",
		job:      func(j job) { must(j.t, j.Exchange("a/t", "b/d")); j.syncDir("a") },
		outcomes: []string{"a/t/f=old b/d=@new"},
	},
	{
		what: "exchange a directory with a link elsewhere, sync the directory's", initial: "a/t=@new b/d/f=old",
		job:      func(j job) { must(j.t, j.Exchange("a/t", "b/d")); j.syncDir("b") },
		outcomes: []string{"a/t/f=old b/d=@new"},
	},
	{
		what: "three renames in each of three directories, sync an unrelated file", initial: "a/1=x a/2=x a/3=x b/1=x b/2=x b/3=x c/1=x c/2=x c/3=x log=1",
		job: func(j job) {
			for _, n := range []string{"1", "2", "3"} {
				for _, d := range []string{"a/", "b/", "c/"} {
					j.rename(d+n, d+"new"+n)
				}
			}
			j.append("log", "2")
		},
		outcomes: []string{
			"a/new1=x a/new2=x a/new3=x b/1=x b/2=x b/3=x c/1=x c/2=x c/3=x log=12",
			"a/new1=x a/new2=x a/new3=x b/1=x b/2=x b/3=x c/new1=x c/new2=x c/new3=x log=12",
			"a/new1=x a/2=x a/3=x b/new1=x b/2=x b/3=x c/1=x c/2=x c/3=x log=12",
		},
	},
	{
		what: "eight renames in one directory, sync an unrelated file", initial: "1=x 2=x 3=x 4=x 5=x 6=x 7=x 8=x log=1",
		job: func(j job) {
			for n := range 8 {
				j.rename(strconv.Itoa(n+1), "new"+strconv.Itoa(n+1))
			}
			j.append("log", "2")
		},
		outcomes: []string{
			"1=x 2=x 3=x 4=x new5=x 6=x 7=x 8=x log=12",
			"new1=x new2=x new3=x new4=x 5=x new6=x new7=x new8=x log=12",
		},
	},
	{
		// Not measured, but said by fsync(2) and seen with older kernels.
		what: "a sync that fails, and a second one that does not", initial: "f=old",
		job: func(j job) {
			in := disktest.Inject(j.FS, disktest.Fault{At: 1, Match: disktest.Is(disktest.OpSync, ""), Errno: unix.EIO})
			f, err := in.Create(".f")
			must(j.t, err)
			f.Write([]byte("new"))
			if f.Sync() == nil || f.Sync() != nil {
				j.t.Error("want the first sync to fail, and no other")
			}
			f.Close()
			j.rename(".f", "f")
			j.syncDir(".")
		},
		outcomes: []string{"f=new"},
	},
}
