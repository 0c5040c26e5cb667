package release

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/BurntSushi/toml"
	"golang.org/x/sys/unix"
)

// configName is the file that sets what a directory or a tar cannot say.
const configName = "moult.toml"

const maxConfig = 1 << 20 // bytes

// Config is a moult.toml. To add a table, add a field here and, if it can be
// wrong, a check; what has no field is refused by name and line.
type Config struct {
	Path string `toml:"-"` // where it was read

	Name    string   `toml:"name"`
	Version string   `toml:"version"`
	Times   bool     `toml:"times"`
	Exclude []string `toml:"exclude"` // patterns of what is not shipped
	Owner   string   `toml:"owner"`   // of every file; "" is whoever applies
	Group   string   `toml:"group"`

	Files   []FileRule    `toml:"file"` // in order: a later one wins
	Hooks   HooksConfig   `toml:"hooks"`
	Restart []RestartRule `toml:"restart"` // in order: the first that matches counts
	Plugins []PluginRule  `toml:"plugin"`

	lines tomlLines
}

// FileRule sets something for all entries whose path matches. What it does not
// name stays as it is.
type FileRule struct {
	Match string  `toml:"match"` // a pattern of paths: "bin/*", "share/**", "**/*.debug"
	Owner *string `toml:"owner"`
	Group *string `toml:"group"`
	Mode  *string `toml:"mode"` // octal, of files and directories
	Caps  *string `toml:"caps"` // capabilities as setcap(8) takes them; "" for none
	Keep  *bool   `toml:"keep"`

	mode uint32
	caps string
}

// HooksConfig are the commands around a commit, and their time limit as
// [time.ParseDuration] reads it.
type HooksConfig struct {
	Before  string `toml:"before"`
	After   string `toml:"after"`
	Timeout string `toml:"timeout"`

	timeout time.Duration
}

// parseConfig reads a moult.toml. Errors name path and line.
func parseConfig(path string, text []byte) (*Config, error) {
	c := &Config{Path: path, lines: scanTOML(string(text))}
	md, err := toml.Decode(string(text), c)
	if err != nil {
		return nil, c.tomlError(text, err)
	}
	if unknown := md.Undecoded(); len(unknown) > 0 {
		return nil, c.unknown(unknown[0], *c)
	}
	return c, c.check()
}

// at makes an error that names the line.
func (c *Config) at(line int, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", c.Path, max(line, 1), fmt.Errorf(format, args...))
}

func (c *Config) check() error {
	if c.Name != "" && !productName(c.Name) {
		return c.at(c.lines.find(-1, "name"), "name: %.80q: a name has up to 64 letters, digits and . _ + -, and begins with a letter or digit", c.Name)
	}
	if len(c.Version) > maxTitle || !printable(c.Version) {
		return c.at(c.lines.find(-1, "version"), "version: it has control characters or more than %d bytes", maxTitle)
	}
	for _, s := range []struct{ key, value string }{{"owner", c.Owner}, {"group", c.Group}} {
		if !ownerName(s.value) {
			return c.at(c.lines.find(-1, s.key), "%s: %.80q is no name of a user or group", s.key, s.value)
		}
	}
	for _, p := range c.Exclude {
		if err := checkGlob(p); err != nil {
			return c.at(c.lines.find(-1, "exclude"), "exclude: %.80q: %w", p, err)
		}
	}
	for i := range c.Files {
		if key, err := c.Files[i].check(); err != nil {
			return c.at(c.lines.find(i, "file", key), "%s: %w", key, err)
		}
	}
	if i, key, err := checkRules(c.Restart); err != nil {
		return c.ruleError("restart", i, key, err)
	}
	if i, key, err := checkPlugins(c.Plugins); err != nil {
		return c.ruleError("plugin", i, key, err)
	}
	return c.checkHooks()
}

func (c *Config) checkHooks() error {
	h := &c.Hooks
	for _, s := range []struct{ key, value string }{{"before", h.Before}, {"after", h.After}} {
		if len(s.value) > maxHook || strings.IndexByte(s.value, 0) >= 0 {
			return c.at(c.lines.find(-1, "hooks", s.key), "%s: a hook is a command of up to %d bytes without NUL", s.key, maxHook)
		}
	}
	if h.Timeout == "" {
		return nil
	}
	var err error
	if h.timeout, err = time.ParseDuration(h.Timeout); err != nil || h.timeout <= 0 {
		return c.at(c.lines.find(-1, "hooks", "timeout"), "timeout: %.40q is not a time such as \"30s\" or \"5m\"", h.Timeout)
	}
	return nil
}

// check reads what the rule says as text, and returns the key that is wrong.
func (f *FileRule) check() (key string, err error) {
	if err := checkGlob(f.Match); err != nil {
		return "match", fmt.Errorf("%.80q: %w", f.Match, err)
	}
	if f.Owner != nil && !ownerName(*f.Owner) {
		return "owner", fmt.Errorf("%.80q is no name of a user", *f.Owner)
	}
	if f.Group != nil && !ownerName(*f.Group) {
		return "group", fmt.Errorf("%.80q is no name of a group", *f.Group)
	}
	if f.Mode != nil {
		mode, err := strconv.ParseUint(*f.Mode, 8, 32)
		if err != nil || mode > 0o7777 {
			return "mode", fmt.Errorf("%.40q is not an octal mode such as \"0755\"", *f.Mode)
		}
		f.mode = uint32(mode)
	}
	if f.Caps != nil {
		if f.caps, err = parseCaps(*f.Caps); err != nil {
			return "caps", err
		}
	}
	return "", nil
}

// findConfig follows Options.Config; else the moult.toml of the release itself,
// which ownText returns; else that in the directory that holds the release
// (beside), if nobody else could have put it there or changed it: it can set
// owners and run commands.
func (r *Release) findConfig(opt Options, own string, ownText func() ([]byte, error), beside string) error {
	if opt.Config != "" {
		text, _, err := readConfig(opt.Config, 0)
		if err == nil {
			r.Config, err = parseConfig(opt.Config, text)
		}
		return err
	}
	text, err := ownText()
	if err == nil {
		r.Config, err = parseConfig(own, text)
	}
	if beside == "" || !errors.Is(err, fs.ErrNotExist) {
		return ignoreMissing(err)
	}
	return r.configBeside(beside)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (r *Release) configBeside(beside string) error {
	path := filepath.Join(beside, configName)
	text, fi, err := readConfig(path, unix.O_NOFOLLOW)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	dir, err2 := os.Stat(beside)
	if err2 != nil {
		return err2
	}
	for _, it := range []struct {
		path string
		fi   fs.FileInfo
	}{{beside, dir}, {path, fi}} {
		if it.fi != nil && !trusted(it.fi) {
			r.Notes = append(r.Notes, fmt.Sprintf("%s is not followed: others than you and root can write %s", path, it.path))
			return nil
		}
	}
	if err != nil {
		return err
	}
	r.Config, err = parseConfig(path, text)
	return err
}

// readConfig reads a moult.toml, and says whose it is.
func readConfig(path string, flags int) ([]byte, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fi, &fs.PathError{Op: "read", Path: path, Err: errNotFile}
	}
	text, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err == nil && len(text) > maxConfig {
		err = &fs.PathError{Op: "read", Path: path, Err: fmt.Errorf("it has more than %d bytes", maxConfig)}
	}
	return text, fi, err
}

// trusted says that nobody but root and the user can change the file. With an
// ACL the group's bits are its mask, so no name in it may write either.
func trusted(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid()) && fi.Mode().Perm()&0o022 == 0
}
