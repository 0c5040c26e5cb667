package deploy

import (
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// What is immutable, or for appending only, nobody can rename, remove or write
// to, not even root. A job that comes upon it half-way could not be finished by
// any recovery, so it is looked for before.

// checkFixed is for the books that a commit ends with.
func (s *state) checkFixed(j *journal) error {
	books := s.books(genDir(j.Generation))
	names := []string{dotMoult}
	if !exists(s.abs(books + "/committed")) {
		names = append(names, s.file(books))
	}
	if s.layout == Shared {
		names = append(names, s.dir, s.file("objects"), s.file("deferred.json"), s.file("made.json"),
			s.file(books), s.file(books+"/found.json"), s.file(genDir(j.From)), s.file(genDir(j.From)+"/found.json"))
	}
	var problems []Problem
	for _, name := range names {
		problems = append(problems, fixedProblems(s.t.abs(name))...)
	}
	history := s.abs("history.jsonl") // which is for appending
	var st unix.Statx_t
	if unix.Statx(unix.AT_FDCWD, history, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &st) == nil && st.Attributes&unix.STATX_ATTR_IMMUTABLE != 0 {
		problems = append(problems, fixedProblems(history)...)
	}
	if len(problems) > 0 {
		return &RefusedError{problems}
	}
	return nil
}

// checkBooks is for the books that a commit reads and replaces after its journal:
// one that cannot be read would stop it there, and every recovery.
func (s *state) checkBooks(j *journal) error {
	if f, err := openBook(s.abs("history.jsonl")); err == nil {
		f.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if s.layout == Owned {
		return nil
	}
	_, err1 := s.readMade()
	_, err2 := s.readDeferred()
	_, err3 := s.readFound(j.Generation)
	_, err4 := s.readFound(j.From)
	return errors.Join(err1, err2, err3, err4)
}

// fixedProblems is the problem with a path that cannot be changed, if it cannot.
func fixedProblems(path string) []Problem {
	if why := unchangeable(path); why != "" {
		return []Problem{{"", Path(path).Quoted() + " " + why, "chattr -ia " + path}}
	}
	return nil
}
