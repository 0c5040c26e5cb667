package stale

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// Lines as kernels have printed them.
const recordedMaps = `00400000-00401000 r--p 00000000 fe:00 9463234                            /opt/app/.moult/generations/41/bin/app
00401000-004a1000 r-xp 00001000 fe:00 9463234                            /opt/app/.moult/generations/41/bin/app
1a2b3000-1a2d4000 rw-p 00000000 00:00 0                                  [heap]
7f0c8c000000-7f0c8c021000 rw-p 00000000 00:00 0 
7f0c8d000000-7f0c8d021000 rw-p 00000000 00:00 0
7f0c90a00000-7f0c90a28000 r--p 00000000 00:29 259                        /mnt/sub volume/lib/libc.so.6
7f0c90c00000-7f0c90c01000 rw-s 00000000 00:01 2051                       /memfd:jit cache (deleted)
7f0c90d00000-7f0c90d01000 rw-s 00000000 00:01 0                          /SYSV00000000 (deleted)
7f0c90e00000-7f0c90e01000 r--p 00000000 103:02 18446744073709551615      /lib/a\012b (deleted)
7ffd1c1e0000-7ffd1c201000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`

func TestParseMapping(t *testing.T) {
	var got []string
	for line := range bytes.Lines([]byte(recordedMaps)) {
		m, ok := parseMapping(bytes.TrimSuffix(line, []byte("\n")))
		if !ok {
			t.Fatalf("refused: %q", line)
		}
		if m.ino != 0 {
			got = append(got, fmt.Sprintf("%s %s %x %s %d %q %v", m.mapFile(), m.perms, m.offset, m.dev, m.ino, m.names(), m.deleted()))
		}
	}
	want := []string{
		`map_files/400000-401000 r--p 0 fe:00 9463234 ["/opt/app/.moult/generations/41/bin/app"] false`,
		`map_files/401000-4a1000 r-xp 1000 fe:00 9463234 ["/opt/app/.moult/generations/41/bin/app"] false`,
		`map_files/7f0c90a00000-7f0c90a28000 r--p 0 00:29 259 ["/mnt/sub volume/lib/libc.so.6"] false`,
		`map_files/7f0c90c00000-7f0c90c01000 rw-s 0 00:01 2051 ["/memfd:jit cache (deleted)"] true`,
		`map_files/7f0c90e00000-7f0c90e01000 r--p 0 103:02 18446744073709551615 ["/lib/a\nb (deleted)" "/lib/a\\012b (deleted)"] true`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestParseMappingRefuses(t *testing.T) {
	for _, line := range []string{
		"", "x", "1-2", "1-2 r-xp", "1-2 r-xp 0", "1-2 r-xp 0 00:00", "1-2 r-xp 0 0000 1", "1-2 r-x 0 00:00 1",
		"-2 r-xp 0 00:00 1", "1- r-xp 0 00:00 1", "1-2 r-xp 0 00:00 a", "1-2 r-xp 0 00:00 1/x",
		"1-11112222333344445 r-xp 0 00:00 1", "1-2 r-xp 0 00:00 18446744073709551616",
	} {
		if m, ok := parseMapping([]byte(line)); ok {
			t.Errorf("%q: got %+v, want a refusal", line, m)
		}
	}
}

// Every line of every process of this host can be read.
func TestParseRealMaps(t *testing.T) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	lines := 0
	for _, d := range dirs {
		text, err := os.ReadFile("/proc/" + d.Name() + "/maps")
		if err != nil {
			continue
		}
		for line := range bytes.Lines(text) {
			if _, ok := parseMapping(bytes.TrimSuffix(line, []byte("\n"))); !ok {
				t.Errorf("refused: %q", line)
			}
			lines++
		}
	}
	if lines == 0 {
		t.Error("no maps could be read, not even our own")
	}
}

func FuzzParseMapping(f *testing.F) {
	for line := range strings.Lines(recordedMaps) {
		f.Add([]byte(strings.TrimSuffix(line, "\n")))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		m, ok := parseMapping(line)
		if !ok {
			return
		}
		// Printed again and read again it is the same.
		printed := fmt.Appendf(nil, "%08x-%08x %s %08x %s %d %s", m.start, m.end, m.perms, m.offset, m.dev, m.ino, m.path)
		n, ok := parseMapping(printed)
		if !ok || n.start != m.start || n.end != m.end || n.offset != m.offset || n.ino != m.ino ||
			!bytes.Equal(n.perms, m.perms) || !bytes.Equal(n.dev, m.dev) || !bytes.Equal(n.path, m.path) {
			t.Errorf("%q: printed %q, read as %+v, want %+v", line, printed, n, m)
		}
		m.names()
	})
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte("11181 (a b) c) Z 11180 11103 3639 0 -1 4227084 135 0 2 0 0 0 0 0 20 0 2 0 180604 0 0"))
	f.Fuzz(func(t *testing.T, text []byte) { parseStatus(text) })
}

func FuzzParseDirents(f *testing.F) {
	f.Add([]byte("12345678abcdefgh\x18\x00\x08x\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		parseDirents(b, func(dirent, error) bool { n++; return n < 1000 })
	})
}
