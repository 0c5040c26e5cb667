package deploy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"moult.example/internal/release"
)

// The journal is one file, .moult/journal (owned) or .moult/NAME/journal
// (shared): a line "moult-journal 1 SHA256", and then JSON of which that is the
// digest. It is made under another name, synced and renamed, so it is there
// whole or not at all. While it is there, what it says is decided and has to be
// finished; when all of that is durable, it is removed.
const journalFormat = 1

// jobs that a journal can hold.
const (
	jobCommit   = "commit"
	jobRollback = "rollback"
	jobAdopt    = "adopt"
	jobForget   = "forget"
)

// journal is a commit that is decided.
type journal struct {
	Job        string    `json:"job"`
	Layout     Layout    `json:"layout"`
	From       int       `json:"from"`
	Generation int       `json:"generation"`
	Release    string    `json:"release,omitempty"`
	Version    string    `json:"version,omitempty"`
	Time       time.Time `json:"time"`
	User       string    `json:"user"`
	Command    string    `json:"command,omitempty"`
	NoHooks    bool      `json:"no_hooks,omitempty"`
	Because    string    `json:"because,omitempty"`

	Adopt  []Path      `json:"adopt,omitempty"`  // owned: top-level names to exchange with links
	Ops    []op        `json:"ops,omitempty"`    // shared, in this order
	Claims []foundPath `json:"claims,omitempty"` // shared: what the release wanted was there already
	Defer  []op        `json:"defer,omitempty"`  // shared: removals that gc is to do, later

	fresh bool // this process has decided it, and nothing of it is done yet
}

// op is one visible change of a commit in a shared target.
type op struct {
	Kind string `json:"kind"`           // swap, place, remove, mkdir, meta, rmdir
	Path Path   `json:"path"`           // the public name
	Temp Path   `json:"temp,omitempty"` // where the new one waits, and then the old one lies
	Keep Path   `json:"keep,omitempty"` // where the old one goes, to come back from on rollback
	Old  *entry `json:"old,omitempty"`  // what was found at Path when this was planned
	New  *entry `json:"new,omitempty"`  // what is to be there

	planned unix.Stat_t // what was at Path just before the journal, in this process
}

// entry is a [release.Entry] in JSON.
type entry struct {
	Type   string          `json:"type"`
	Mode   uint32          `json:"mode"`
	Owner  string          `json:"owner"`
	Group  string          `json:"group"`
	Size   int64           `json:"size,omitempty"`
	Digest string          `json:"digest,omitempty"`
	Text   Path            `json:"text,omitempty"`
	Xattrs map[Path][]byte `json:"xattrs,omitempty"`
	MTime  int64           `json:"mtime,omitempty"`
}

func toJSON(e *release.Entry) *entry {
	if e == nil {
		return nil
	}
	j := &entry{Type: string(e.Type), Mode: e.Mode, Owner: e.Owner, Group: e.Group, Size: e.Size, Text: Path(e.Text), MTime: e.MTime}
	if e.Type == release.File {
		j.Digest = e.Digest.String()
	}
	for name, value := range e.Xattrs {
		if j.Xattrs == nil {
			j.Xattrs = map[Path][]byte{}
		}
		j.Xattrs[Path(name)] = []byte(value)
	}
	return j
}

func (j *entry) entry(path string) (*release.Entry, error) {
	if len(j.Type) != 1 {
		return nil, fmt.Errorf("%s: unknown type %q", Path(path).Quoted(), j.Type)
	}
	e := &release.Entry{
		Path: path, Type: release.Type(j.Type[0]), Mode: j.Mode, Owner: j.Owner, Group: j.Group, Size: j.Size, Text: string(j.Text), MTime: j.MTime,
	}
	if e.Type == release.File {
		raw, err := hex.DecodeString(j.Digest)
		if err != nil || len(raw) != len(e.Digest) {
			return nil, fmt.Errorf("%s: bad digest %q", Path(path).Quoted(), j.Digest)
		}
		copy(e.Digest[:], raw)
	}
	for name, value := range j.Xattrs {
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[string(name)] = string(value)
	}
	return e, nil
}

// encode is the journal as it lies on the disk.
func (j *journal) encode() ([]byte, error) {
	body, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	body = append(body, '\n')
	return append(fmt.Appendf(nil, "moult-journal %d %x\n", journalFormat, sha256.Sum256(body)), body...), nil
}

// parseJournal reads what encode wrote, and refuses all else.
func parseJournal(data []byte) (*journal, error) {
	head, body, ok := bytes.Cut(data, []byte("\n"))
	var version int
	var sum string
	if _, err := fmt.Sscanf(string(head), "moult-journal %d %s", &version, &sum); !ok || err != nil {
		return nil, errors.New("not a journal of moult's")
	}
	if version != journalFormat {
		return nil, fmt.Errorf("journal format %d: %w", version, ErrNewer)
	}
	if want := sha256.Sum256(body); sum != hex.EncodeToString(want[:]) {
		return nil, errors.New("the journal is damaged: its digest is not that of its content")
	}
	j := &journal{}
	if err := json.Unmarshal(body, j); err != nil {
		return nil, err
	}
	return j, j.check()
}

// check refuses names that lead out of the target: a journal is trusted to
// rename what it names.
func (j *journal) check() error {
	for _, name := range j.Adopt {
		if strings.Contains(string(name), "/") || !cleanPath(string(name)) {
			return fmt.Errorf("bad name %s in the journal", name.Quoted())
		}
	}
	for _, o := range append(slices.Clone(j.Ops), j.Defer...) {
		for _, name := range []Path{o.Path, o.Temp, o.Keep} {
			if name != "" && !cleanPath(string(name)) {
				return fmt.Errorf("bad name %s in the journal", name.Quoted())
			}
		}
		if o.Path == "" {
			return errors.New("an operation without a name in the journal")
		}
	}
	return nil
}

func cleanPath(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." || strings.Contains(part, "\x00") {
			return false
		}
	}
	return true
}

// readJournal returns the journal that is there, or nil.
func (s *state) readJournal() (*journal, error) {
	path := s.abs("journal")
	data, err := readBook(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	j, err := parseJournal(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return j, nil
}

// decide writes the journal: the point of no return.
func (s *state) decide(j *journal) error {
	data, err := j.encode()
	if err != nil {
		return err
	}
	if err := writeFile(s.t.fs, s.file("journal"), data, true); err != nil {
		return err
	}
	return s.t.fs.SyncDir(s.dir)
}

// undecide removes the journal of a commit that is finished or undone.
func (s *state) undecide() error {
	if err := s.t.fs.Remove(s.file("journal")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.t.fs.SyncDir(s.dir)
}

func (s *state) newJournal(job string, from, to int, m *release.Manifest) *journal {
	return &journal{
		Job: job, Layout: s.layout, From: from, Generation: to, Release: s.t.idOf(m), Version: m.Version,
		Time: s.t.opts.Now().UTC(), User: person(), Command: s.t.opts.Command,
	}
}
