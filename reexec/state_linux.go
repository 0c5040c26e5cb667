package reexec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"moult.example/internal/disk"
)

const (
	stateName = "reexec.json"
	goodName  = "reexec.good" // a copy of the last good executable
	maxState  = 1 << 20
	maxTries  = 3
)

// bootState is what is remembered across restarts in StateDir. A nil one
// remembers nothing.
type bootState struct {
	mu   sync.Mutex
	dir  string
	fs   disk.FS
	now  stateFile
	id   identity // ours
	done bool     // we are good, or were stopped: no more counting
}

// stateFile is reexec.json.
type stateFile struct {
	Schema   int             `json:"schema"`
	Current  identity        `json:"current"`        // what was started last
	Tries    int             `json:"tries"`          // how often, without surviving the probation
	Good     identity        `json:"good,omitempty"` // what has survived it last
	GoodPath string          `json:"good_path,omitempty"`
	Rejected []stateRejected `json:"rejected,omitempty"`
}

type stateRejected struct {
	Identity identity `json:"identity"`
	Why      string   `json:"why"`
}

// openState counts this start. If the version has failed too often, or is known
// to be bad, it executes the last good one and does not return.
func (p *Process) openState(h *handover) error {
	dir := p.opts.StateDir
	if dir == "" {
		dir, _, _ = strings.Cut(p.variable("STATE_DIRECTORY"), ":")
	}
	if dir == "" || p.secure {
		return nil
	}
	dir = p.absolute(dir)
	if err := checkTrusted(dir); err != nil {
		return err
	}
	files, err := disk.Open(dir)
	if err != nil {
		return err
	}
	s := &bootState{dir: dir, fs: files}
	if err := s.read(); err != nil {
		p.tell(Event{Kind: Warning, Err: fmt.Errorf("state: begun anew: %w", err)})
		s.now = stateFile{}
	}
	s.sweep()
	s.id = p.selfStat.identity()
	if !s.now.Current.same(s.id) && !s.now.Good.same(s.id) {
		s.id = p.withDigest(s.id)
	} else if s.now.Current.same(s.id) {
		s.id = s.now.Current // with the digest, which need not be computed again
	} else {
		s.id = s.now.Good
	}
	p.state = s
	for _, r := range s.now.Rejected {
		p.rejected = append(p.rejected, rejection{r.Why, r.Identity})
	}
	return s.count(p, h)
}

// count counts a start, and leaves for the last good version if there were too
// many.
func (s *bootState) count(p *Process, h *handover) error {
	if s.now.Good.same(s.id) {
		s.done = true
		s.now.Current, s.now.Tries = s.id, 0
		return s.write()
	}
	if h != nil { // somebody was there to judge: what ended was not this version
		s.now.Tries = 0
		if h.rolledBack == nil { // whoever upgrades has decided for this version
			s.forget(s.id)
		}
	} else if p.opts.Preflight == Load {
		s.forgetPreflight(s.id) // here we are: it can be loaded by now
	}
	if !s.now.Current.same(s.id) {
		s.now.Current, s.now.Tries = s.id, 0
	}
	bad, is := isRejected(s.rejections(), s.id)
	if !is && s.now.Tries >= maxTries {
		bad, is = rejection{fmt.Sprintf("started %d times without running for %v", s.now.Tries, p.opts.Probation), s.id}, true
		s.now.Rejected = append(s.now.Rejected, stateRejected{s.id, bad.why})
	}
	s.now.Tries++
	if err := s.write(); err != nil || !is {
		return err
	}
	p.tell(Event{Kind: BootLoop, Path: p.exe, Err: errors.New(bad.why)})
	if err := s.leaveFor(p, bad); err != nil {
		p.tell(Event{Kind: Warning, Err: fmt.Errorf("go back to the last good version: %w", err)})
	}
	return nil
}

// leaveFor executes the last good version.
func (s *bootState) leaveFor(p *Process, bad rejection) error {
	if s.now.Good == "" {
		return errNoWayBack
	}
	var errs []error
	for _, path := range []string{s.now.GoodPath, filepath.Join(s.dir, goodName)} {
		f, err := openRegular(path)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		defer f.Close()
		st, err := fileStatOf(rawFD(f))
		if err == nil {
			err = checkTrusted(path)
		}
		id := st.identity()
		if err == nil && !id.same(s.now.Good) {
			if id, err = digest(f, st.size); err == nil && !id.same(s.now.Good) {
				err = errors.New("it is no longer the same file")
			}
		}
		if err != nil {
			errs = append(errs, &os.PathError{Op: "execute", Path: path, Err: err})
			continue
		}
		h := p.newHandover(&candidate{id: "", stat: st}, false)
		h.rejected = append(h.rejected, bad)
		h.rolledBack = &bad
		h.previous.fd = -1
		p.leave.Lock()
		err = p.execute(path, rawFD(f), h, bad.why)
		p.leave.Unlock()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// ready begins the probation.
func (s *bootState) ready(p *Process) {
	if s == nil || s.done {
		return
	}
	time.AfterFunc(p.opts.Probation, func() {
		if err := s.survived(p); err != nil {
			p.tell(Event{Kind: Warning, Err: fmt.Errorf("state: %w", err)})
		}
	})
}

// survived notes that this version is good, and keeps a copy of it: the file
// itself is gone after the next update, unless updates keep their generations.
func (s *bootState) survived(p *Process) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.done {
		return nil
	}
	f, err := p.openSelf()
	if err != nil {
		return err
	}
	defer f.Close()
	meta := disk.Meta{UID: -1, GID: -1, Mode: 0o700}
	s.done = true
	err = s.replace(goodName, meta, func(to disk.File) error { return to.CopyFrom(f, p.selfStat.size) })
	if err != nil {
		// Without a copy there is nothing to go back to, but what ends from now
		// on has not failed.
		s.now.Tries = 0
		return errors.Join(err, s.write())
	}
	s.id = p.withDigest(s.id)
	s.now.Good, s.now.GoodPath, s.now.Tries = s.id, p.selfPath, 0
	s.forget(s.id)
	return s.write()
}

// stopped notes that the end of this start is no failure.
func (s *bootState) stopped(p *Process) {
	if s == nil || s.done {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	s.now.Tries = 0
	if err := s.write(); err != nil {
		p.tell(Event{Kind: Warning, Err: fmt.Errorf("state: %w", err)})
	}
}

// replaced leaves the state to a spawned successor.
func (s *bootState) replaced(p *Process) {
	if s != nil {
		s.mu.Lock()
		s.done = true
		s.mu.Unlock()
	}
}

// reject remembers a file across restarts.
func (s *bootState) reject(p *Process, id identity, why string) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Rejected = append(s.now.Rejected, stateRejected{id, why})
	s.now.Rejected = s.now.Rejected[max(0, len(s.now.Rejected)-maxRejected):]
	if err := s.write(); err != nil {
		p.tell(Event{Kind: Warning, Err: fmt.Errorf("state: %w", err)})
	}
}

func (s *bootState) rejections() (list []rejection) {
	for _, r := range s.now.Rejected {
		list = append(list, rejection{r.Why, r.Identity})
	}
	return list
}

// forgetPreflight has a file forgotten that failed a preflight and nothing else.
func (s *bootState) forgetPreflight(id identity) {
	s.now.Rejected = slices.DeleteFunc(s.now.Rejected, func(r stateRejected) bool {
		return r.Identity.same(id) && strings.HasPrefix(r.Why, preflightFailed)
	})
}

func (s *bootState) forget(id identity) {
	kept := s.now.Rejected[:0]
	for _, r := range s.now.Rejected {
		if !r.Identity.same(id) {
			kept = append(kept, r)
		}
	}
	s.now.Rejected = kept
}
