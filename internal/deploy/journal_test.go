package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"moult.example/internal/release"
)

func someJournal() *journal {
	file := toJSON(&release.Entry{Type: release.File, Mode: 0o755, Owner: "0", Group: "0", Size: 3, Digest: release.Digest{1}, Xattrs: map[string]string{"user.x": "\xff\x00"}, MTime: 7})
	link := toJSON(&release.Entry{Type: release.Symlink, Owner: "0", Group: "0", Text: "a\xffb\nc"})
	return &journal{
		Job: jobCommit, Layout: Shared, From: 1, Generation: 2, Release: "ab", Time: time.Unix(1, 0).UTC(), User: "root",
		Adopt: []Path{"bin"},
		Ops:   []op{{Kind: "swap", Path: "bin/\xfe\\x", Temp: "bin/.moult-0", Keep: ".moult/a/objects/b", Old: link, New: file}},
		Defer: []op{{Kind: "remove", Path: "lib/x", Old: file}},
	}
}

// TestJournalComesBack: what was written is what is read, odd names included.
func TestJournalComesBack(t *testing.T) {
	j := someJournal()
	data, err := j.encode()
	must(t, err)
	got, err := parseJournal(data)
	must(t, err)
	again, err := got.encode()
	must(t, err)
	if !bytes.Equal(data, again) {
		t.Errorf("got %s, want %s", again, data)
	}
	if got.Ops[0].Path != j.Ops[0].Path {
		t.Errorf("got the name %q, want %q", got.Ops[0].Path, j.Ops[0].Path)
	}
}

// TestJournalRefused: one that is damaged, newer, or leads out of the target.
func TestJournalRefused(t *testing.T) {
	data, err := someJournal().encode()
	must(t, err)
	newer := bytes.Replace(data, []byte("moult-journal 1"), []byte("moult-journal 2"), 1)
	if _, err := parseJournal(newer); !errors.Is(err, ErrNewer) {
		t.Errorf("newer: got %v, want %v", err, ErrNewer)
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if _, err := parseJournal(bad); err == nil {
			t.Fatalf("accepted with byte %d changed", i)
		}
		if _, err := parseJournal(data[:i]); err == nil {
			t.Fatalf("accepted when cut after %d bytes", i)
		}
	}
	for _, name := range []Path{"../x", "/x", "a/../x", "a//b", "a\x00", "."} {
		j := someJournal()
		j.Ops[0].Temp = name
		data, err := j.encode()
		must(t, err)
		if _, err := parseJournal(data); err == nil {
			t.Errorf("accepted the name %q", name)
		}
	}
}

// FuzzJournal: whatever is in the file, reading it ends, and what is accepted
// prints as it was read.
func FuzzJournal(f *testing.F) {
	data, err := someJournal().encode()
	must(f, err)
	f.Add(data)
	f.Add([]byte("moult-journal 1 00\n{}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := parseJournal(data)
		if err != nil {
			return
		}
		again, err := j.encode()
		must(t, err)
		back, err := parseJournal(again)
		must(t, err)
		if fmt.Sprint(*back) == "" || back.Job != j.Job || len(back.Ops) != len(j.Ops) {
			t.Errorf("got %+v, want %+v", back, j)
		}
	})
}
