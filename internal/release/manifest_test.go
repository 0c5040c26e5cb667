package release

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func digestOf(b byte) (d Digest) {
	for i := range d {
		d[i] = b
	}
	return d
}

func mustCaps(text string) string {
	value, err := parseCaps(text)
	if err != nil {
		panic(err)
	}
	return value
}

// everything is a manifest in which each thing that can be said is said.
func everything() *Manifest {
	privileged := Entry{Path: "a/c", Type: File, Mode: 0o4755, Owner: "root", Group: "0", Size: 1 << 40,
		Digest: digestOf(3), Sparse: true, Keep: true,
		Xattrs: map[string]string{"user.b": "2", "user.a": "1\x00\xff", xattrCaps: mustCaps("cap_kill=ep")}}
	linked := privileged
	linked.Path, linked.HardLink = "a/d", "a/c"
	return &Manifest{
		Name:    "tool",
		Version: "2.1 \"ß\"",
		Times:   true,
		Hooks:   Hooks{Before: "a\nb", After: "c d \\ e", Timeout: 5e9},
		Entries: []Entry{
			{Path: " leading, and = more", Type: File, Mode: 0o600, Size: 1, Digest: digestOf(2), MTime: -5},
			{Path: "a", Type: Dir, Mode: 0o2775, Owner: "-", Group: "DOMAIN\\some users", MTime: 1,
				Xattrs: map[string]string{xattrDefault: "\x02\x00", "user.=,": ""}},
			{Path: "a-b", Type: Symlink, Text: "a b,c=d\n\\\xff"},
			privileged,
			linked,
			{Path: "n\new\rline\x1b\x7f\\\u0085", Type: File, Digest: digestOf(4)},
			{Path: strings.Repeat("x", 255), Type: Dir},
			{Path: "ü\ufffd\u00a0", Type: Symlink, Text: "/"},
			{Path: "\xff\xfe", Type: File, Mode: 0o644, Digest: digestOf(1)},
		},
	}
}

func TestManifestRoundTrip(t *testing.T) {
	m := everything()
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	text := m.Encode()
	got, err := Parse(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if !reflect.DeepEqual(got, m) {
		t.Errorf("got %+v, want %+v", got, m)
	}
	if again := got.Encode(); !bytes.Equal(again, text) {
		t.Errorf("got %q, want %q", again, text)
	}
	if n := bytes.Count(text, []byte("\n")); n != 8+len(m.Entries) {
		t.Errorf("got %d lines, want %d: a name broke its line", n, 8+len(m.Entries))
	}
	for i := range m.Entries {
		if e := m.Find(m.Entries[i].Path); e != &m.Entries[i] {
			t.Errorf("Find(%q) = %v", m.Entries[i].Path, e)
		}
	}
	for _, path := range []string{"", "a/", "a/e", "zzz", "\xff\xff"} {
		if e := m.Find(path); e != nil {
			t.Errorf("Find(%q) = %v, want nil", path, e)
		}
	}
}

// TestManifestText holds the format itself still: a manifest that was written
// once must be read for ever, and keep its id.
func TestManifestText(t *testing.T) {
	const want = `moult-manifest 1
name tool
version 2.1 "ß"
times
before a\nb
after c d \\ e
timeout 5000000000
entries 9
f 0600 - - 1 0202020202020202020202020202020202020202020202020202020202020202 -5 -  leading, and = more
d 2775 \x2d DOMAIN\\some\x20users - - 1 x.system.posix_acl_default=\x02\x00,x.user.\x3d\x2c= a
l - - - - - - text=a\x20b\x2cc\x3dd\n\\\xff a-b
f 4755 root 0 1099511627776 0303030303030303030303030303030303030303030303030303030303030303 - sparse,keep,x.security.capability=\x01\x00\x00\x02\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00,x.user.a=1\x00\xff,x.user.b=2 a/c
f 4755 root 0 1099511627776 0303030303030303030303030303030303030303030303030303030303030303 - sparse,keep,link=a/c,x.security.capability=\x01\x00\x00\x02\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00,x.user.a=1\x00\xff,x.user.b=2 a/d
f 0000 - - 0 0404040404040404040404040404040404040404040404040404040404040404 - - n\new\x0dline\x1b\x7f\\\xc2\x85
d 0000 - - - - - - LONG
l - - - - - - text=/ ü` + "\ufffd\u00a0" + `
f 0644 - - 0 0101010101010101010101010101010101010101010101010101010101010101 - - \xff\xfe
`
	text := strings.Replace(string(everything().Encode()), strings.Repeat("x", 255), "LONG", 1)
	if text != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
	const id = "722b513d5d4616460161ab950b995aac992ae84eae9411360007b0852b1faf75"
	if got := everything().ID().String(); got != id {
		t.Errorf("got id %s, want %s", got, id)
	}
}

func TestManifestID(t *testing.T) {
	base := everything()
	base.Times = false
	id := base.ID()
	for _, c := range []struct {
		what   string
		change func(*Manifest)
		same   bool
	}{
		{"mtime", func(m *Manifest) { m.Entries[0].MTime = 77 }, true},
		{"no mtime", func(m *Manifest) { m.Entries[0].MTime = 0 }, true},
		{"sparse", func(m *Manifest) { m.Entries[3].Sparse, m.Entries[4].Sparse = false, false }, true},
		{"times", func(m *Manifest) { m.Times = true }, false},
		{"mode", func(m *Manifest) { m.Entries[0].Mode ^= 1 }, false},
		{"owner", func(m *Manifest) { m.Entries[0].Owner = "root" }, false},
		{"bytes", func(m *Manifest) { m.Entries[0].Digest[31] ^= 1 }, false},
		{"keep", func(m *Manifest) { m.Entries[0].Keep = true }, false},
		{"version", func(m *Manifest) { m.Version = "" }, false},
		{"hooks", func(m *Manifest) { m.Hooks = Hooks{} }, false},
		{"an entry less", func(m *Manifest) { m.Entries = m.Entries[1:] }, false},
	} {
		m := everything()
		m.Times = false
		c.change(m)
		if got := m.ID() == id; got != c.same {
			t.Errorf("another %s: same id is %v, want %v", c.what, got, c.same)
		}
	}
	timed, other := everything(), everything()
	other.Entries[0].MTime++
	if timed.ID() == other.ID() {
		t.Error("with Times, another time must be another id")
	}
	base.Entries[0].Digest = Digest{}
	if !base.ID().IsZero() {
		t.Error("a manifest without a digest has an id")
	}
}

// TestManifestRefused damages the manifest in one place each.
func TestManifestRefused(t *testing.T) {
	good := string(everything().Encode())
	sub := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("there is no %q in the manifest", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	digest2 := digestOf(2).String()
	for _, c := range []struct{ text, want string }{
		{"", "line 1: the manifest ends here"},
		{good[:len(good)-1], "line 17: the manifest ends here"},
		{good[:strings.LastIndex(good[:len(good)-1], "\n")+1], "line 17: the manifest ends here"},
		{good + "\n", "line 18: there is more"},
		{sub("manifest 1", "manifest 2"), "line 1: format 2: " + ErrNewer.Error()},
		{sub("manifest 1", "manifest 01"), "line 1: "},
		{sub("manifest 1", "manifest 0"), "line 1: "},
		{sub("name tool", "name ../x"), "line 8: name"},
		{sub("name tool", "name "), "line 2: name"},
		{sub("name tool", "colour red"), `line 2: "colour" is not known`},
		{sub("times\n", "times 1\n"), "line 4: "},
		{sub("times\n", "times\ntimes\n"), `line 5: "times" is not known, or not in its place`},
		{sub("timeout 5", "timeout -5"), "line 7: timeout"},
		{sub(`c d \\ e`, `c d \\ e\x41`), "line 6: after"},
		{sub("entries 9", "entries 09"), "line 8: "},
		{sub("entries 9", "entries 1000000"), "line 8: 1000000 entries are announced"},
		{sub("entries 9", "entries 5000000"), "line 8: "},
		{sub("f 0600", "p 0600"), `line 9: " leading, and = more": type`},
		{sub("f 0600", "ff 0600"), "type"},
		{sub("f 0600", "f 600"), "mode"},
		{sub("f 0600", "f 0800"), "mode"},
		{sub("f 0600", "f -"), "mode"},
		{sub("l -", "l 0777"), "mode"},
		{sub("- - 1 02", "- - 01 02"), "size"},
		{sub("- - 1 02", "- - -1 02"), "size"},
		{sub("- - 1 02", "- - 1125899906842625 02"), "size"},
		{sub("- - 1 02", "- - - 02"), "size"},
		{sub(digest2, strings.ToUpper(digestOf(0xab).String())), "digest"},
		{sub(digest2, digest2[1:]), "digest"},
		{sub(digest2, strings.Repeat("0", 64)), "digest"},
		{sub(digest2, "-"), "digest"},
		{sub(" -5 ", " -05 "), "modification time"},
		{sub(" -5 ", " 0 "), "modification time"},
		{sub(" -5 ", " +5 "), "modification time"},
		{sub("d 2775 \\x2d", "d 2775 \\x41"), "owner or group"},
		{sub("d 2775 \\x2d", "d 2775 a:b"), "no name of a user"},
		{sub("some\\x20users - -", "some\\x20users 1 -"), "size"},
		{sub("sparse,keep", "keep,sparse"), "attribute"},
		{sub("sparse,keep", "sparse,sparse"), "attribute"},
		{sub("sparse,keep", "sparse=,keep"), "attribute"},
		{sub("sparse,keep", "fancy"), "attribute"},
		{sub("x.user.a=1", "x.user.c=1"), "attribute"},
		{sub("x.user.a=1", "x.trusted.a=1"), "not one that a release can carry"},
		{sub("x.user.a=1", "x.security.selinux=1"), "not one that a release can carry"},
		{sub("x.user.a=1", "x.user.=1"), "not one that a release can carry"},
		{sub(`capability=\x01\x00`, `capability=\x01`), "file capabilities"},
		{sub("text=/ ", "text= "), "attribute"},
		{sub("text=/ ", "- "), "text of a symbolic link"},
		{sub("text=/ ", "text=/,x.user.a=1 "), "a symbolic link has no attributes"},
		{sub("text=/ ", "keep,text=/ "), "only a file"},
		{sub("link=a/c", "link=a"), "hard link"},
		{sub("link=a/c", "link=a/d"), "hard link"},
		{sub("link=a/c", "link=\\xff\\xfe"), "hard link"},
		{sub("f 4755 root 0 1099511627776 03", "f 4755 root 1 1099511627776 03"), "but differs"},
		{sub(" a-b\n", " a-\\x62\n"), "path"},
		{sub(" a-b\n", " a\n"), `"a" is there twice`},
		{sub(" a-b\n", " a/d\n"), `"a/c" is out of order`},
		{sub(" a-b\n", " a-b/c\n"), `"a-b" is not a directory`},
		{sub(" a-b\n", " a//b\n"), "empty"},
		{sub(" a-b\n", " a/\n"), "empty"},
		{sub(" a-b\n", " /a\n"), "absolute"},
		{sub(" a-b\n", " \n"), "empty"},
		{sub(" a-b\n", " a/../b\n"), ". or .."},
		{sub(" a-b\n", " a/.\n"), ". or .."},
		{sub(" a-b\n", " a/\\x00\n"), "NUL"},
		{sub(" a-b\n", " a/"+strings.Repeat("n", 256)+"\n"), "more than 255 bytes"},
		{sub(" a-b\n", " a"+strings.Repeat("/n", 2048)+"\n"), "more than 4095 bytes"},
		{sub("-  leading, and = more", "- .moult"), "belongs to moult"},
		{sub("-  leading, and = more", "- .moult/x"), "belongs to moult"},
		{sub("d 2775", "d  2775"), "nine fields"},
		{strings.ReplaceAll(good, "\n", "\r\n"), "line 1: "},
	} {
		m, err := Parse([]byte(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v %v, want an error with %q, for\n%s", m, err, c.want, c.text[:min(600, len(c.text))])
		}
	}
	if _, err := Parse([]byte("moult-manifest 2\nsomething else\n")); !errors.Is(err, ErrNewer) {
		t.Errorf("got %v, want ErrNewer", err)
	}
}

// TestManifestProperty makes random trees of nasty names: what was written is
// what is read, and every entry is found.
func TestManifestProperty(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	letters := []string{"a", "b", "-", "0", "/", ".", " ", "\n", "\\", "\xff", "ß", "=", ","}
	name := func() (s string) {
		for range 1 + rnd.IntN(4) {
			s += letters[rnd.IntN(len(letters))]
		}
		return s
	}
	for range 300 {
		m := &Manifest{}
		dirs, seen := []string{""}, map[string]bool{}
		for range rnd.IntN(40) {
			p := dirs[rnd.IntN(len(dirs))] + name()
			if checkPath(p) != nil || seen[p] || strings.Contains(p[strings.LastIndexByte(p, '/')+1:], "/") {
				continue
			}
			if at := strings.LastIndexByte(p, '/'); at >= 0 && !slices.Contains(dirs, p[:at+1]) {
				continue
			}
			seen[p] = true
			e := Entry{Path: p, Type: Dir, Mode: uint32(rnd.IntN(0o10000))}
			switch rnd.IntN(3) {
			case 0:
				dirs = append(dirs, p+"/")
			case 1:
				e.Type, e.Size, e.Digest, e.MTime = File, rnd.Int64N(1e9), digestOf(byte(1+rnd.IntN(250))), rnd.Int64()
			case 2:
				e.Type, e.Mode, e.Text = Symlink, 0, name()
			}
			m.Entries = append(m.Entries, e)
		}
		sortEntries(m.Entries)
		got, err := Parse(m.Encode())
		if err != nil {
			t.Fatalf("%v in\n%s", err, m.Encode())
		}
		if !slices.EqualFunc(got.Entries, m.Entries, func(a, b Entry) bool { return reflect.DeepEqual(a, b) }) {
			t.Fatalf("got %v, want %v", got.Entries, m.Entries)
		}
		for p := range seen {
			if e := got.Find(p); e == nil || e.Path != p {
				t.Fatalf("Find(%q) = %v", p, e)
			}
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add(everything().Encode())
	f.Add((&Manifest{}).Encode())
	f.Add([]byte("moult-manifest 1\nrestart [{\"path\":\"bin/*\",\"run\":[\"bin/ctl\",\"re start\"],\"timeout\":\"30s\"}]\nentries 0\n"))
	f.Add([]byte("moult-manifest 1\nentries 1\nd 0755 - - - - - - a\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse(text)
		lines, err2 := ReadText(text)
		if err != nil {
			if err2 == nil {
				lines.Find("a")
			}
			return
		}
		for i := range m.Entries {
			if e := &m.Entries[i]; err2 != nil || !reflect.DeepEqual(lines.Find(e.Path), e) {
				t.Fatalf("%q is not found in the text (%v)", e.Path, err2)
			}
		}
		if got := m.Encode(); !bytes.Equal(got, text) {
			t.Fatalf("read %q, wrote %q", text, got)
		}
		if err := m.Check(); err != nil {
			t.Fatalf("read, but: %v", err)
		}
	})
}

func ExampleManifest_Encode() {
	m := &Manifest{Name: "tool", Entries: []Entry{
		{Path: "lib", Type: Dir, Mode: 0o755},
		{Path: "lib/libx.so", Type: Symlink, Text: "libx.so.1"},
	}}
	fmt.Print(string(m.Encode()))
	// Output:
	// moult-manifest 1
	// name tool
	// entries 2
	// d 0755 - - - - - - lib
	// l - - - - - - text=libx.so.1 lib/libx.so
}

// TestBeside: each path once, in order, with what both manifests have of it.
func TestBeside(t *testing.T) {
	of := func(paths string) *Manifest {
		m := &Manifest{}
		for _, p := range strings.Fields(paths) {
			m.Entries = append(m.Entries, Entry{Path: p})
		}
		return m
	}
	for _, c := range []struct{ m, old, want string }{
		{"", "", ""},
		{"a b", "", "a- b-"},
		{"", "a b", "-a -b"},
		{"a c d", "b c e", "a- -b cc d- -e"},
		{"a b c", "a b c", "aa bb cc"},
		{"c d", "a b", "-a -b c- d-"},
	} {
		var got []string
		path := func(e *Entry) string {
			if e == nil {
				return "-"
			}
			return e.Path
		}
		for e, was := range of(c.m).Beside(of(c.old)) {
			got = append(got, path(e)+path(was))
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%q beside %q: got %q, want %q", c.m, c.old, s, c.want)
		}
	}
}

// TestText: an entry is found in the text as in the manifest, and what is not
// there, or no entry, is not.
func TestText(t *testing.T) {
	m := &Manifest{Name: "app", Version: "1.2"}
	for i := range 40 {
		for _, name := range []string{"b", "b x", "c\n", "d\xff", "é"} {
			m.Entries = append(m.Entries, Entry{Path: fmt.Sprintf("a%02d %s", i, name), Type: Symlink, Text: fmt.Sprint(i)})
		}
	}
	sortEntries(m.Entries)
	text, err := ReadText(m.Encode())
	try(t, err)
	for i := range m.Entries {
		e := &m.Entries[i]
		if got := text.Find(e.Path); got == nil || !reflect.DeepEqual(got, e) {
			t.Errorf("%q: got %+v, want %+v", e.Path, got, e)
		}
		for _, other := range []string{e.Path + "x", e.Path[:len(e.Path)-1], "x", "", "b", "~"} {
			if got := text.Find(other); got != nil {
				t.Errorf("%q is found, as %+v", other, got)
			}
		}
	}
	for _, bad := range []string{"", "moult-manifest 1\n", "moult-manifest 9\nentries 0\n", "nothing"} {
		if _, err := ReadText([]byte(bad)); err == nil {
			t.Errorf("%q is read", bad)
		}
	}
	cut := m.Encode()
	cut = cut[:len(cut)-len(cut)/3]
	text, err = ReadText(cut)
	try(t, err)
	for i := range m.Entries {
		if got := text.Find(m.Entries[i].Path); got != nil && got.Path != m.Entries[i].Path {
			t.Errorf("%q: got %q", m.Entries[i].Path, got.Path)
		}
	}
}
