package stale

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestHome(t *testing.T) {
	id := strings.Repeat("4f", 32)
	for group, want := range map[string]struct {
		u Unit
		c Container
	}{
		"/":                                  {},
		"/init.scope":                        {u: Unit{Name: "init.scope"}},
		"/system.slice/nginx.service":        {u: Unit{Name: "nginx.service"}},
		"/system.slice/nginx.service/worker": {u: Unit{Name: "nginx.service"}},
		"/system.slice/system-getty.slice/getty@tty1.service":                 {u: Unit{Name: "getty@tty1.service"}},
		"/system.slice/_cpu.service":                                          {u: Unit{Name: "cpu.service"}},
		`/system.slice/a\x2db.service`:                                        {u: Unit{Name: `a\x2db.service`}},
		"/user.slice/user-1000.slice/session-3.scope":                         {u: Unit{Name: "session-3.scope"}},
		"/user.slice/user-1000.slice/user@1000.service/app.slice/foo.service": {u: Unit{"foo.service", true, 1000}},
		"/user.slice/user-1000.slice/user@1000.service/init.scope":            {u: Unit{"init.scope", true, 1000}},
		"/user.slice/user-1000.slice/user@1000.service":                       {u: Unit{Name: "user@1000.service"}},
		"/system.slice/docker-" + id + ".scope":                               {Unit{Name: "docker-" + id + ".scope"}, Container{"docker", id}},
		"/docker/" + id:                                                       {c: Container{"docker", id}},
		"/machine.slice/libpod-" + id + ".scope/container":                    {Unit{Name: "libpod-" + id + ".scope"}, Container{"podman", id}},
		"/machine.slice/libpod-conmon-" + id + ".scope":                       {u: Unit{Name: "libpod-conmon-" + id + ".scope"}},
		"/kubepods.slice/kubepods-pod1.slice/cri-containerd-" + id + ".scope": {Unit{Name: "cri-containerd-" + id + ".scope"}, Container{"containerd", id}},
		"/kubepods.slice/kubepods-pod1.slice/crio-" + id + ".scope":           {Unit{Name: "crio-" + id + ".scope"}, Container{"cri-o", id}},
		"/kubepods/burstable/pod1234/" + id:                                   {c: Container{"kubernetes", id}},
		"/lxc.payload.web/system.slice/nginx.service":                         {c: Container{"lxc", "web"}},
		"/lxc/web": {c: Container{"lxc", "web"}},
		`/machine.slice/machine-my\x2dbox.scope/payload/system.slice/nginx.service`:   {Unit{Name: `machine-my\x2dbox.scope`}, Container{"machined", "my-box"}},
		"/machine.slice/systemd-nspawn@box.service/payload":                           {Unit{Name: "systemd-nspawn@box.service"}, Container{"machined", "box"}},
		`/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator`:               {u: Unit{Name: `machine-qemu\x2d1\x2dvm.scope`}},
		"/user.slice/user-7.slice/user@7.service/user.slice/libpod-" + id + ".scope":  {Unit{"libpod-" + id + ".scope", true, 7}, Container{"podman", id}},
		"/user.slice/user-7.slice/user@7x.service/user.slice/libpod-nothing-of.scope": {u: Unit{Name: "user@7x.service"}},
	} {
		if u, c := parseHome(group); u != want.u || c != want.c {
			t.Errorf("%s: got %+v and %+v, want %+v and %+v", group, u, c, want.u, want.c)
		}
	}
	for text, want := range map[string]string{
		"0::/a\n":                              "/a",
		"2:cpu:/x\n1:name=systemd:/b\n0::/a\n": "/b",
		"2:cpu,cpuacct:/x\n0::/a:b\n":          "/a:b",
		"4:cpu:/\n3:memory:/docker/c\n2:pids:/d\n1:name=systemd:/\n0::/\n": "/docker/c", // an engine, and no systemd
		"3:memory:/docker/c\n1:name=systemd:/\n0::/a\n":                    "/a",
		"1:name=systemd:/\n0::/\n":                                         "",
		"":                                                                 "",
		"nonsense\n::\n":                                                   "",
		"1:name=systemd:/system.slice/x.socket":                            "/system.slice/x.socket",
	} {
		if got := controlGroup([]byte(text)); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestReexecText(t *testing.T) {
	for text, want := range map[string]string{
		"moult-reexec 1\npid 4711\ngeneration 3\nsignal 12\n":          "{1 12 3 false 0 false} 4711 true",
		"moult-reexec 2\npid 1\nnew thing\nsignal 0\n":                 "{2 0 0 false 0 false} 1 true",
		"moult-reexec 1\npid 7\ngeneration 3\nsignal 12\nrejected 2\n": "{1 12 3 false 2 false} 7 true",
		"moult-reexec 1\npid 7\nsignal 12\nstarting 1\n":               "{1 12 0 false 0 true} 7 true",
		"moult-reexec\npid 1\n":                                        "",
		"other 1\npid 1\n":                                             "",
		"moult-reexec 1\nsignal 99999\n":                               "",
		"moult-reexec 1\npid -5\nsignal 12":                            "{1 12 0 false 0 false} 0 true",
		"":                                                             "",
		"moult-reexec 1\npid 99999999999999999999999\nsignal 10\n":     "{1 10 0 false 0 false} 0 true",
	} {
		got := ""
		if x, pid, ok := parseReexec([]byte(text)); ok {
			got = fmt.Sprint(*x, " ", pid, " ", ok)
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// fakeMemory is memory at some addresses.
type fakeMemory map[uint64][]byte

func (m fakeMemory) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	found := false
	for addr, data := range m {
		if d := int64(addr) - at; d > -int64(len(data)) && d < int64(len(b)) {
			found = true
			if d >= 0 {
				copy(b[d:], data)
			} else {
				copy(b, data[-d:])
			}
		}
	}
	if !found {
		return 0, io.EOF
	}
	return len(b), nil
}

// words lays out words of a program.
func (l layout) lay(words ...uint64) []byte {
	var b []byte
	for _, w := range words {
		if l.wide {
			b = append(b, make([]byte, 8)...)
			l.order.PutUint64(b[len(b)-8:], w)
		} else {
			b = append(b, l.half(uint32(w))...)
		}
	}
	return b
}

// half lays out 32 bits.
func (l layout) half(v uint32) []byte {
	b := make([]byte, 4)
	l.order.PutUint32(b, v)
	return b
}

var layouts = map[string]layout{
	"64": {true, binary.LittleEndian}, "32": {false, binary.LittleEndian},
	"64 big": {true, binary.BigEndian}, "32 big": {false, binary.BigEndian},
}

// The loader's lists of two namespaces, as glibc and musl lay them out.
func TestLists(t *testing.T) {
	for name, l := range layouts {
		version := l.half(2)
		if l.wide {
			version = append(version, 0xaa, 0xaa, 0xaa, 0xaa) // padding may be anything
		}
		m := fakeMemory{
			0x1000: append(version, l.lay(0x2000, 0, 0, 0, 0x1800)...),
			0x1800: append(l.half(2), append(make([]byte, l.word()-4), l.lay(0x3000, 0, 0, 0, 0)...)...),
			0x2000: l.lay(0x400000, 0x5000, 0x401000, 0x2100, 0),
			0x2100: l.lay(0x700000, 0x5010, 0x701000, 0, 0x2000),
			0x3000: l.lay(0x800000, 0x5ff8, 0x801000, 0, 0),
			0x5000: []byte("\x00"),
			0x5010: []byte("/lib/libc.so.6\x00"),
			0x5ff8: []byte("/lib/a/name/across/blocks.so\x00"),
		}
		var mem memory
		mem.reset(m)
		got, whole := l.lists(&mem, 0x1000, nil)
		want := []loaded{{0x400000, 0x401000, ""}, {0x700000, 0x701000, "/lib/libc.so.6"}, {0x800000, 0x801000, "/lib/a/name/across/blocks.so"}}
		if !whole || !slices.Equal(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, whole, want)
		}
	}
}

// Whatever a process has in place of these lists, reading them ends.
func TestHostileLists(t *testing.T) {
	l := layout{true, binary.LittleEndian}
	for name, m := range map[string]fakeMemory{
		"a ring":                {0x1000: l.lay(1, 0x2000, 0, 0, 0), 0x2000: l.lay(0, 0x2008, 0, 0x2100, 0), 0x2100: l.lay(0, 0x2008, 0, 0x2000, 0)},
		"itself":                {0x1000: l.lay(1, 0x2000, 0, 0, 0), 0x2000: l.lay(0, 0x2008, 0, 0x2000, 0)},
		"a ring of namespaces":  {0x1000: l.lay(2, 0, 0, 0, 0, 0x1000)},
		"a name without an end": {0x1000: l.lay(1, 0x2000, 0, 0, 0), 0x2000: l.lay(0, 0x10000, 0, 0, 0), 0x10000: bytes.Repeat([]byte("x"), 1<<16)},
		"nowhere":               {0x1000: l.lay(1, 1<<63, 0, 0, 0)},
		"the end of memory":     {0x1000: l.lay(1, 1<<64-8, 0, 0, 0)},
		"no memory at all":      {},
	} {
		var mem memory
		mem.reset(m)
		if got, whole := l.lists(&mem, 0x1000, nil); whole && len(got) > 0 {
			t.Errorf("%s: got %d entries, and that this is all", name, len(got))
		}
	}
}

func TestAuxv(t *testing.T) {
	for name, l := range layouts {
		if l.order != binary.ByteOrder(binary.LittleEndian) {
			continue // this machine's
		}
		raw := l.lay(33, 0x7000, 3, 0x400040, 4, l.headerSize(), 5, 13, 7, 0x7f0000, 9, 0x401000, 31, 0x7ffe0, 0, 0)
		v, ok := parseAuxv(raw)
		if !ok || v.wide != l.wide || v.phdr != 0x400040 || v.phnum != 13 || v.base != 0x7f0000 || v.entry != 0x401000 || v.execfn != 0x7ffe0 {
			t.Errorf("%s: got %+v, %v", name, v, ok)
		}
		if _, ok := parseAuxv(raw[:len(raw)-int(2*l.word())]); ok {
			t.Errorf("%s: cut short, it is accepted", name)
		}
	}
}

// The program's dynamic section, and in it the address of the lists, is found
// by its headers.
func TestDebugOf(t *testing.T) {
	l := layout{true, binary.LittleEndian}
	header := func(kind uint32, addr, size uint64) []byte {
		b := append(l.half(kind), 0, 0, 0, 0)
		return append(b, l.lay(addr, addr, addr, size, size, 8)...)
	}
	const base = 0x550000000000
	m := fakeMemory{
		base + 0x40:   slices.Concat(header(ptPhdr, 0x40, 168), header(ptLoad, 0, 0x4000), header(ptDynamic, 0x3000, 0x100)),
		base + 0x3000: l.lay(1, 2, dtDebug, 0x7f0000001000, 0, 0),
	}
	var mem memory
	mem.reset(m)
	v := vector{layout: l, phdr: base + 0x40, phent: 56, phnum: 3}
	dynamic, ok := v.dynamicOf(&mem)
	if !ok || dynamic != base+0x3000 {
		t.Fatalf("dynamicOf = %#x, %v, want %#x", dynamic, ok, uint64(base+0x3000))
	}
	if debug, ok := l.debugOf(&mem, dynamic); !ok || debug != 0x7f0000001000 {
		t.Errorf("debugOf = %#x, %v", debug, ok)
	}
	v.phnum = 1 << 60
	if _, ok := v.dynamicOf(&mem); ok {
		t.Log("more headers than there can be were read, up to the limit")
	}
}

func FuzzLists(f *testing.F) {
	l := layouts["64"]
	f.Add(slices.Concat(l.lay(2, 0x1030, 0, 0, 0, 0), l.lay(0, 0x1058, 0, 0x1030, 0), []byte("/x\x00")), true)
	f.Add(layouts["32"].lay(1, 0x1014, 0, 0, 0, 0, 0x1014, 0, 0x1000), false)
	f.Fuzz(func(t *testing.T, data []byte, wide bool) {
		l := layout{wide, binary.LittleEndian}
		var mem memory
		mem.reset(fakeMemory{0x1000: data})
		got, _ := l.lists(&mem, 0x1000, nil)
		if len(got) > mostLoaded || mem.read > mostBlocks+1 {
			t.Errorf("%d entries, %d reads", len(got), mem.read)
		}
		for _, e := range got {
			if len(e.name) > 1<<12 {
				t.Errorf("a name of %d bytes", len(e.name))
			}
		}
		v, _ := parseAuxv(data)
		v.dynamicOf(&mem)
		l.debugOf(&mem, 0x1000)
	})
}

func FuzzELF(f *testing.F) {
	for _, name := range []string{"/bin/true", "/usr/lib/x86_64-linux-gnu/libdl.so.2"} {
		if data, err := os.ReadFile(name); err == nil {
			f.Add(data[:min(len(data), 1<<15)])
		}
	}
	f.Add([]byte("\x7fELF\x02\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, ok := readELF(bytes.NewReader(data))
		if !ok {
			return
		}
		e.baseOf(area{start: 0x1000, end: 0x3000, offset: 0x1000})
		if names := e.needed(bytes.NewReader(data)); len(names) > mostNeeded {
			t.Errorf("%d libraries are needed", len(names))
		}
		r := e.relocations(bytes.NewReader(data))
		if len(r.words) > len(data)*64+64 || len(r.dynamic) > 2*mostDynamic {
			t.Errorf("%d words and %d of the dynamic section in %d bytes", len(r.words), len(r.dynamic), len(data))
		}
		if strings.Trim(e.buildID, "0123456789abcdef") != "" {
			t.Errorf("build id %q", e.buildID)
		}
	})
}
