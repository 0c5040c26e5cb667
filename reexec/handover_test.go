package reexec

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func sample() *handover {
	return &handover{
		pid: 4711, generation: 3, cwd: 5, ready: -1, ignored: 1 | 1<<9, paused: 12345,
		fds:      []namedFD{{"tcp!:80", 7}, {"moult.http!tcp!:80", 9}, {"moult.http!tcp!:80", 10}},
		blobs:    []blob{{"state", []byte("saved")}, {"empty", []byte{}}},
		previous: namedFD{"/opt/app", 6}, args: []string{"app", "", "-x"}, env: []string{"A=b", "C="},
		rejected:   []rejection{{"crashed", "stat:1:2:3:4.000000005"}},
		rolledBack: &rejection{"hung", "sha256:00"},
		exePath:    "/opt/app", exe: "stat:1:2:3:4.000000006",
	}
}

func TestHandover(t *testing.T) {
	want := sample()
	got, err := decodeHandover(want.encode())
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, want)
	}
	child := sample()
	child.pid, child.parent, child.ready, child.previous.fd = 0, 99, 8, -1
	child.previous.name = ""
	got, err = decodeHandover(child.encode())
	if err != nil || !reflect.DeepEqual(got, child) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, child)
	}
}

// TestHandoverRefused: what is not as in docs/reexec-protocol.md.
func TestHandoverRefused(t *testing.T) {
	record := func(kind uint32, name string, data []byte) []byte {
		e := &encoder{}
		e.record(kind, name, data)
		return e.buf
	}
	number := func(kind uint32, n uint64) []byte {
		return record(kind, "", binary.LittleEndian.AppendUint64(nil, n))
	}
	pid, generation, end := number(recPID, 1), number(recGeneration, 1), record(recEnd, "", nil)
	for _, test := range []struct {
		name    string
		records [][]byte
		want    string // "" is that it is taken
	}{
		{"the least", [][]byte{pid, generation, end}, ""},
		{"unknown, may be skipped", [][]byte{pid, generation, number(1<<31|77, 1), number(1<<31|77, 1), end}, ""},
		{"unknown", [][]byte{pid, generation, number(77, 1), end}, "unknown type 77"},
		{"no end", [][]byte{pid, generation}, "cut short"},
		{"no pid", [][]byte{generation, end}, "whom it is for"},
		{"pid and parent", [][]byte{pid, number(recParent, 1), generation, end}, "whom it is for"},
		{"no generation", [][]byte{pid, end}, "whom it is for"},
		{"two pids", [][]byte{pid, pid, generation, end}, "second one of type 1"},
		{"a short number", [][]byte{pid, record(recGeneration, "", []byte{1}), end}, "want 8"},
		{"a large descriptor", [][]byte{pid, generation, number(recFD, 1<<40), end}, "out of range"},
		{"a zero byte", [][]byte{pid, generation, record(recArg, "", []byte("a\x00b")), end}, "zero byte"},
		{"longer than it is", [][]byte{pid, generation, record(recBlob, "x", make([]byte, 100))[:60]}, "longer than"},
	} {
		_, err := decodeHandover(append(bytes.Clone(handoverMagic), slices.Concat(test.records...)...))
		if got := ""; err != nil {
			got = err.Error()
			if test.want == "" || !strings.Contains(got, test.want) {
				t.Errorf("%s: %v, want %q", test.name, err, test.want)
			}
		} else if test.want != "" {
			t.Errorf("%s: taken, want %q", test.name, test.want)
		}
	}
	if _, err := decodeHandover([]byte("MOULT\x00\x00\x02")); err == nil {
		t.Error("protocol 2 was taken, want an error")
	}
}

func FuzzHandover(f *testing.F) {
	f.Add(sample().encode())
	f.Add(handoverMagic)
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := decodeHandover(data)
		if err != nil {
			return
		}
		again, err := decodeHandover(h.encode())
		if err != nil {
			t.Fatalf("what was decoded and encoded: %v", err)
		}
		if len(h.rejected) > maxRejected {
			h.rejected = h.rejected[len(h.rejected)-maxRejected:]
		}
		if h.parent != 0 {
			h.pid = 0 // one of them counts
		}
		if len(again.fds) != len(h.fds) || len(again.blobs) != len(h.blobs) || again.generation != h.generation || !slices.Equal(again.rejected, h.rejected) {
			t.Errorf("got %+v, want %+v", again, h)
		}
	})
}

func TestIdentity(t *testing.T) {
	for _, test := range []struct {
		a, b identity
		want bool
	}{
		{"stat:1 sha256:2", "sha256:2", true},
		{"stat:1 sha256:2", "stat:1 sha256:3", true},
		{"stat:1", "sha256:1", false},
		{"", "", false},
		{"other:1", "other:1", false},
		{"stat:1", "stat:12", false},
	} {
		if got := test.a.same(test.b); got != test.want {
			t.Errorf("%q and %q: %v, want %v", test.a, test.b, got, test.want)
		}
	}
}
