package deploy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"moult.example/internal/disk"
)

// Names in a target. Everything of ours is below .moult:
//
//	.moult/layout              "moult 1 owned" or "moult 1 shared"
//	.moult/lock                flock(2)ed by whoever writes
//
// and then, directly there (owned) or in .moult/NAME (shared):
//
//	live -> generations/42     what is live
//	generations/42/            owned: the tree, with our files in its .moult
//	                           shared: our files, and below objects/ the bytes
//	generations/.stage-43/     a stage under way, or one that was cut short
//	generations/.trash-7/      a collection under way
//	journal                    a commit that is decided and not finished
//	history.jsonl, pins.json, cache, cache.source
//
// Our files of a generation: manifest, info.json, and (shared) staged.json and
// found.json.
const (
	dotMoult   = ".moult"
	layoutFile = dotMoult + "/layout"
	lockFile   = dotMoult + "/lock"
	format     = 1
)

// state is where one product of a target keeps its books.
type state struct {
	t      *Target
	layout Layout
	name   string // the product
	dir    string // .moult or .moult/NAME

	noted      []Record // go into the history with the next record
	beforeTake func()   // if not nil, called once before a collection removes something
	watched    unwritten
}

// Info is what a generation knows beside its manifest.
type Info struct {
	Schema  int       `json:"schema"`
	Release string    `json:"release"` // id, hexadecimal
	Version string    `json:"version,omitempty"`
	Name    string    `json:"name,omitempty"`
	Time    time.Time `json:"time"` // when it was staged
	UID     int       `json:"uid"`  // who owns files whose owner the release does not say
	GID     int       `json:"gid"`
	Base    int       `json:"base"`              // the generation that was live, -1 for none (shared: a stage holds for this one)
	Waits   bool      `json:"waits,omitempty"`   // staged on its own, to be committed later
	Adopted bool      `json:"adopted,omitempty"` // generation 0 of a target that was adopted
}

// noGeneration stands for "none", since 0 is what was there before.
const noGeneration = -1

// readLayout says how the target is laid out; "" if it has nothing of ours.
func (t *Target) readLayout() (Layout, error) {
	data, err := readBook(t.abs(layoutFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var version int
	var layout Layout
	if _, err := fmt.Sscanf(string(data), "moult %d %s\n", &version, &layout); err != nil {
		return "", fmt.Errorf("%s: cannot be read: %q", t.abs(layoutFile), data)
	}
	if version > format {
		return "", fmt.Errorf("%s: format %d: %w", t.abs(layoutFile), version, ErrNewer)
	}
	if err := t.checkView(layout); err != nil {
		return "", err
	}
	if layout != Owned && layout != Shared {
		return "", fmt.Errorf("%s: unknown layout %q", t.abs(layoutFile), layout)
	}
	return layout, nil
}

// names lists the products of a shared target, sorted.
func (t *Target) names() ([]string, error) {
	dirs, err := os.ReadDir(t.abs(dotMoult))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, d := range dirs {
		if d.IsDir() && d.Name()[0] != '.' && exists(t.abs(dotMoult+"/"+d.Name()+"/generations")) {
			names = append(names, d.Name())
		}
	}
	return names, nil
}

// state finds the books of a product. An empty name means the only one there
// is. ErrNoTarget if there are none.
func (t *Target) state(name string) (*state, error) {
	layout, err := t.readLayout()
	if err != nil {
		return nil, err
	}
	switch layout {
	case "":
		return nil, fmt.Errorf("%s: %w", t.path, ErrNoTarget)
	case Owned:
		s := &state{t: t, layout: Owned, dir: dotMoult}
		if live, err := s.live(); err == nil && live != noGeneration {
			if info, err := s.info(live); err == nil {
				s.name = info.Name
			}
		}
		if name != "" && s.name != "" && name != s.name {
			return nil, refuse("", fmt.Sprintf("%s holds %s, not %s: an owned target is for one product", Path(t.path).Quoted(), s.name, name), "give the other product its own directory")
		}
		return s, nil
	}
	names, err := t.names()
	if err != nil {
		return nil, err
	}
	if name == "" {
		switch len(names) {
		case 0:
			return nil, fmt.Errorf("%s: %w", t.path, ErrNoTarget)
		case 1:
			name = names[0]
		default:
			return nil, refuse("", fmt.Sprintf("%s holds %s", t.path, strings.Join(names, ", ")), "say which with --name")
		}
	}
	if !slices.Contains(names, name) {
		if len(names) > 0 {
			return nil, &NoProductError{Path(t.path), name, names}
		}
		return nil, fmt.Errorf("%s: %s: %w", t.path, name, ErrNoTarget)
	}
	return &state{t: t, layout: Shared, name: name, dir: dotMoult + "/" + name}, nil
}

func (s *state) file(name string) string { return s.dir + "/" + name }
func (s *state) abs(name string) string  { return s.t.abs(s.dir + "/" + name) }

func genDir(n int) string   { return "generations/" + strconv.Itoa(n) }
func stageDir(n int) string { return "generations/.stage-" + strconv.Itoa(n) }
func trashDir(n int) string { return "generations/.trash-" + strconv.Itoa(n) }

// books is the directory of our own files in a generation's directory.
func (s *state) books(dir string) string {
	if s.layout == Owned {
		return dir + "/" + dotMoult
	}
	return dir
}

// live is the number of the live generation, noGeneration if there is none.
func (s *state) live() (int, error) {
	text, err := os.Readlink(s.abs("live"))
	if errors.Is(err, fs.ErrNotExist) {
		return noGeneration, nil
	}
	if err != nil {
		return noGeneration, err
	}
	n, err := strconv.Atoi(strings.TrimPrefix(text, "generations/"))
	if err != nil || text != genDir(n) {
		return noGeneration, fmt.Errorf("%s: a link to %q is not one of moult's", s.abs("live"), text)
	}
	return n, nil
}

// generations lists the complete generations, upward.
func (s *state) generations() ([]int, error) {
	dirs, err := os.ReadDir(s.abs("generations"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var ns []int
	for _, d := range dirs {
		if n, err := strconv.Atoi(d.Name()); err == nil && d.Name() == strconv.Itoa(n) {
			ns = append(ns, n)
		}
	}
	slices.Sort(ns)
	return ns, nil
}

func (s *state) info(n int) (Info, error) {
	var info Info
	err := readJSON(s.abs(s.books(genDir(n))+"/info.json"), &info)
	if errors.Is(err, fs.ErrNotExist) {
		return info, fmt.Errorf("%s: %d: %w", s.t.path, n, ErrNoGeneration)
	}
	return info, err
}

// next is a number that no generation here has ever had.
func (s *state) next() (int, error) {
	ns, err := s.generations()
	if err != nil {
		return 0, err
	}
	top := 0
	if len(ns) > 0 {
		top = ns[len(ns)-1]
	}
	records, err := s.history()
	if err != nil {
		return 0, err
	}
	for _, r := range records {
		top = max(top, r.To, r.From)
	}
	return top + 1, nil
}

func readJSON(path string, v any) error {
	data, err := readBook(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeFile puts data at name: made under another name, synced, renamed. The
// directory is the caller's to sync. Only for our own files, under the lock.
func writeFile(fsys disk.FS, name string, data []byte, sync bool) error {
	tmp := name + ".new"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := fsys.Create(tmp)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.SetMeta(disk.Meta{UID: -1, GID: -1, Mode: 0o644})
	}
	if err == nil && sync {
		err = f.Sync()
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err != nil {
		return errors.Join(err, fsys.Remove(tmp))
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return errors.Join(err, fsys.Remove(tmp))
	}
	return nil
}

// writeJSON puts v at name, durably but for the directory.
func writeJSON(fsys disk.FS, name string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(fsys, name, append(data, '\n'), true)
}

// setUp makes the directories of the books, for the first release here.
func (s *state) setUp() error {
	fsys := s.t.fs
	if layout, err := s.t.readLayout(); err != nil || layout == "" {
		if err != nil {
			return err
		}
		if err := writeFile(fsys, layoutFile, fmt.Appendf(nil, "moult %d %s\n", format, s.layout), true); err != nil {
			return err
		}
	}
	dirs := []string{s.file("generations")}
	if s.layout == Shared {
		dirs = []string{s.dir, s.file("generations"), s.file("objects")}
	}
	for _, dir := range dirs {
		if err := makeDir(fsys, dir); err != nil {
			return err
		}
	}
	if s.layout == Shared {
		// What was replaced may be readable to few, or set-user-id.
		if err := fsys.SetMeta(s.file("objects"), disk.Meta{UID: -1, GID: -1, Mode: 0o700}); err != nil {
			return err
		}
		if err := fsys.SyncDir(s.dir); err != nil {
			return err
		}
	}
	if err := fsys.SyncDir(dotMoult); err != nil {
		return err
	}
	if s.layout == Shared {
		return s.zero()
	}
	return nil
}

// cleanName says whether a product's name can be that of a directory in .moult.
func cleanName(name string) bool {
	return name != "" && name[0] != '.' && len(name) <= 64 && filepath.Base(name) == name &&
		strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._+-") == "" &&
		!slices.Contains([]string{"layout", "lock", "live", "generations", "objects", "journal", "cache", "cache.source", "pins.json", "history.jsonl"}, name) &&
		!strings.HasSuffix(name, ".new") // a book of ours that was cut short
}
