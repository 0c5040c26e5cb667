package deploy

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Record is one line of a target's history: who did what, when, and how it
// ended.
type Record struct {
	Schema  int       `json:"schema"`
	Time    time.Time `json:"time"`
	User    string    `json:"user"`              // the person, where sudo(8) or the audit system tells
	UID     int       `json:"uid"`               // the effective user id
	Command string    `json:"command,omitempty"` // as it was typed
	Job     string    `json:"job"`               // stage, commit, rollback, adopt, recover, after, gc, forget
	From    int       `json:"from"`              // generation that was live; -1 for none
	To      int       `json:"to"`                // generation that is live now, or was staged or collected
	Release string    `json:"release,omitempty"`
	Version string    `json:"version,omitempty"`
	Result  string    `json:"result"` // done, undone, conflict, after-failed
	Note    string    `json:"note,omitempty"`
	Because string    `json:"because,omitempty"` // of a rollback: why generation From is no good, if it was left for that
}

// newRecord fills in who and when.
func (t *Target) newRecord(job string, from, to int) Record {
	return Record{
		Schema: 1, Time: t.opts.Now().UTC().Truncate(time.Millisecond), User: person(), UID: os.Geteuid(),
		Command: t.opts.Command, Job: job, From: from, To: to, Result: "done",
	}
}

// record appends to the history, after what was noted. It is durable when it
// returns.
func (s *state) record(r Record) error {
	s.note(r)
	return s.recordNoted()
}

// note leaves a record to the next one, which follows in any case: both take one
// sync.
func (s *state) note(r Record) { s.noted = append(s.noted, r) }

func (s *state) recordNoted() error {
	if len(s.noted) == 0 {
		return nil
	}
	var lines []byte
	if !s.historyEndsWhole() {
		lines = append(lines, '\n') // a torn line stays alone
	}
	for _, r := range s.noted {
		line, err := json.Marshal(r)
		if err != nil {
			return err
		}
		lines = append(append(lines, line...), '\n')
	}
	err := s.t.fs.Append(s.file("history.jsonl"), lines)
	if err == nil {
		s.noted = nil
	}
	return err
}

// historyEndsWhole says that no power cut has torn the last line.
func (s *state) historyEndsWhole() bool {
	f, err := openBook(s.abs("history.jsonl"))
	if err != nil {
		return true
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Size() == 0 {
		return true
	}
	last := make([]byte, 1)
	_, err = f.ReadAt(last, st.Size()-1)
	return err == nil && last[0] == '\n'
}

// pastRecords are the records of a history that were read, and how many bytes
// they took: a history only grows.
type pastRecords struct {
	ino     uint64
	bytes   int64
	records []Record
}

// history reads all records; a line that a crash has torn is passed over.
func (s *state) history() ([]Record, error) {
	name := s.abs("history.jsonl")
	f, err := openBook(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, &fs.PathError{Op: "fstat", Path: name, Err: err}
	}
	past := s.t.past[name]
	if past == nil || past.ino != st.Ino || past.bytes > st.Size {
		past = &pastRecords{ino: st.Ino}
	}
	if _, err := f.Seek(past.bytes, io.SeekStart); err != nil {
		return nil, err
	}
	last, err := past.read(f)
	if err != nil {
		return nil, err
	}
	if s.t.past == nil {
		s.t.past = map[string]*pastRecords{}
	}
	s.t.past[name] = past
	return append(slices.Clip(past.records), last...), nil
}

// read adds the records of the lines that follow. That of a last line without an
// end is returned: the next may give it one, or begin a line of its own.
func (p *pastRecords) read(f io.Reader) (last []Record, err error) {
	for lines := bufio.NewReaderSize(f, 1<<16); ; {
		line, err := lines.ReadSlice('\n')
		n, long := len(line), errors.Is(err, bufio.ErrBufferFull)
		r := Record{From: noGeneration, To: noGeneration}
		good := !long && json.Unmarshal(line, &r) == nil && r.Schema > 0 && plausible(r.From) && plausible(r.To)
		for errors.Is(err, bufio.ErrBufferFull) {
			line, err = lines.ReadSlice('\n') // the rest of what no command of ours has written
			n += len(line)
		}
		switch {
		case err == io.EOF && good:
			return []Record{r}, nil
		case err == io.EOF:
			return nil, nil
		case err != nil:
			return nil, err
		}
		p.bytes += int64(n)
		if good {
			p.records = append(p.records, r)
		}
	}
}

// plausible says that a number can be that of a generation, or none.
func plausible(n int) bool { return n >= noGeneration && n < 1<<31 }

// History returns what was done to a product of the target, oldest first.
func (t *Target) History(name string) ([]Record, error) {
	s, err := t.state(name)
	if err != nil {
		return nil, err
	}
	records, err := s.history()
	return slices.Clone(records), err
}

// person is who sits before the machine: who called sudo, else the login uid
// that the kernel keeps through su and sudo (proc_pid_loginuid(5)), else the
// effective user.
func person() string {
	if name := os.Getenv("SUDO_USER"); name != "" {
		return name
	}
	uid := strconv.Itoa(os.Geteuid())
	if data, err := os.ReadFile("/proc/self/loginuid"); err == nil {
		if id := strings.TrimSpace(string(data)); id != "4294967295" && id != "" {
			uid = id
		}
	}
	if u, err := user.LookupId(uid); err == nil {
		return u.Username
	}
	return uid
}
