package stale

import (
	"slices"
	"time"
)

// Report is what Find found.
type Report struct {
	// Processes are those of which something is to be told, by PID: a file with
	// a verdict, a note or a hint. Who wants facts alone asks Process.Verdict.
	Processes []Process `json:"processes"`

	Scanned    int   `json:"scanned"`    // processes that were looked at, without threads of the kernel
	Unreadable []int `json:"unreadable"` // those of which something could not be read, by PID; what could be is in Processes, too
	Hidden     bool  `json:"hidden"`     // /proc shows not all processes (its mount option hidepid)

	// Held are the deleted files whose space processes keep, the largest first.
	// Without Options.Open these are files with code only.
	Held      []HeldFile `json:"held"`
	HeldBytes int64      `json:"held_bytes"` // the sum of what is known, each inode once
}

// Process is one process and what is to be told of it.
type Process struct {
	PID   int       `json:"pid"`
	Ticks uint64    `json:"ticks"`   // when it was started, clock ticks since boot; with PID it names one process for ever
	Start time.Time `json:"started"` // the same by the clock of now, right to about a tick
	UID   int       `json:"uid"`     // effective
	User  string    `json:"user"`    // its name on this host; "" if it has none
	Comm  string    `json:"comm"`    // the name that it gives itself, any bytes
	Exe   string    `json:"exe"`     // its executable as the kernel prints it, any bytes; "" if there is none

	Command []string `json:"command"` // its arguments, any bytes, cut off at 4 KiB in all

	Unit      Unit      `json:"unit"`
	Container Container `json:"container"`

	Files []File `json:"files"` // the worst first
	Hints []Hint `json:"hints"`

	// Runs is the release that its executable is from, or if that is from none
	// the first of Files that is; Gets is what a fresh start would get. Both are
	// zero where nothing is known.
	Runs Origin `json:"runs"`
	Gets Origin `json:"gets"`

	Reexec *Reexec `json:"reexec,omitempty"` // nil if it cannot replace itself
}

// Verdict is the worst of its files': None if there are only notes or hints.
func (p Process) Verdict() Verdict {
	worst := None
	for _, f := range p.Files {
		if f.Verdict.Severity() > worst.Severity() {
			worst = f.Verdict
		}
	}
	return worst
}

// Verdict says what a fresh start would make of a file that a process uses.
type Verdict string

// The verdicts, from the mildest.
const (
	None    Verdict = ""        // nothing is proven; File.Notes say what is suspected
	Same    Verdict = "same"    // another inode with the very same bytes; only with Options.Strict
	Stale   Verdict = "stale"   // a fresh start would load other bytes
	Gone    Verdict = "gone"    // a fresh start would find nothing there, and fail
	Corrupt Verdict = "corrupt" // the mapped inode was overwritten: the process may crash at any moment
)

var severities = []Verdict{None, Same, Stale, Gone, Corrupt}

// Severity orders the verdicts: 0 for None, more for worse.
func (v Verdict) Severity() int { return slices.Index(severities, v) }

// Kind is what a process uses a file as.
type Kind string

// The kinds of files.
const (
	KindExe     Kind = "exe"     // its executable
	KindLibrary Kind = "library" // a shared library or plugin, or other mapped code
	KindLoader  Kind = "loader"  // the dynamic linker
	KindScript  Kind = "script"  // what an interpreter runs; in hints only
	KindModule  Kind = "module"  // what a script loads; in hints only
)

// File is a file that a process runs code from, and what is there now.
type File struct {
	// Path is what a fresh start would open, any bytes, in the process's own
	// view: below its root directory and with its mounts.
	Path    string  `json:"path"`
	Mapped  string  `json:"mapped"` // what the process has, as the kernel prints it, in our view or that of its mounts
	Kind    Kind    `json:"kind"`
	Verdict Verdict `json:"verdict"`

	Since time.Time `json:"since,omitzero"`  // when the file became what the verdict says, as far as times of files tell; zero if they do not
	Why   string    `json:"why"`             // the reason of the verdict in words
	Notes []string  `json:"notes,omitempty"` // what can only be suspected

	Has  Inode `json:"-"` // the inode that is mapped; zero if it could not be looked at
	Next Inode `json:"-"` // the inode that a fresh start would load; zero if there is none

	RunsBuildID string `json:"runs_build_id,omitempty"` // in hexadecimal; "" if the file has none or it could not be read
	GetsBuildID string `json:"gets_build_id,omitempty"`

	Runs Origin `json:"runs"` // the release that the mapped file is from, where it is known
	Gets Origin `json:"gets"`
}

// Hint is a file that the process has probably read and that has changed
// since. Its interpreter has closed it, so that nothing can be proven.
type Hint struct {
	Kind  Kind      `json:"kind"`
	Path  string    `json:"path"` // any bytes, in the process's own view
	Since time.Time `json:"since,omitzero"`
	Why   string    `json:"why"`
}

// Unit is what systemd calls a process's home, as the name of its control
// group tells.
type Unit struct {
	Name string `json:"name"` // "nginx.service", "session-3.scope", as systemctl(1) takes it; "" if there is none
	User bool   `json:"user"` // it belongs to the systemd of a user
	UID  int    `json:"uid"`  // whose, if User
}

// Container is where a process lives if not on the host itself.
type Container struct {
	Engine string `json:"engine"` // docker, podman, containerd, cri-o, kubernetes, lxc, machined; "" if the process is in none
	Name   string `json:"name"`   // its name or id, any bytes
}

// String is "docker 4f1a…", or "" if there is none.
func (c Container) String() string {
	if c.Name == "" {
		return c.Engine
	}
	return c.Engine + " " + c.Name
}

// Origin says which release a file is from. Its zero value is "unknown".
type Origin struct {
	Target     string `json:"target"`
	Product    string `json:"product,omitempty"`
	Release    string `json:"release,omitempty"` // the id
	Version    string `json:"version,omitempty"`
	Generation int    `json:"generation"` // valid if Target is not ""
}

// Known says that the origin is one.
func (o Origin) Known() bool { return o.Target != "" }

// Reexec is what a process says that can replace itself: it holds a file
// named "moult-reexec" open. What it says is its own word.
type Reexec struct {
	Protocol   int  `json:"protocol"`
	Signal     int  `json:"signal"`     // which one makes it upgrade
	Generation int  `json:"generation"` // how often it has replaced itself
	Sealed     bool `json:"sealed"`     // nobody can have changed it since

	Rejected int  `json:"rejected,omitempty"` // how often it was asked and has rejected the new code, since this generation began
	Starting bool `json:"starting,omitempty"` // it is not ready, and may still go back to the code before
}

// HeldFile is a file that no directory has any more, and whose space is free
// only when the last process lets go of it.
type HeldFile struct {
	Path  string    `json:"path"` // as the kernel prints it, any bytes
	ID    Inode     `json:"-"`
	Bytes int64     `json:"bytes"` // allocated on disk; 0 if Unknown
	Since time.Time `json:"since,omitzero"`
	PIDs  []int     `json:"pids"`

	// Unknown says that the file may be deleted or not: on an overlay the number
	// of its names is not to be trusted. It is no part of the sum.
	Unknown bool `json:"unknown,omitempty"`
}

// Places knows of paths what /proc does not tell: which directory a path below
// a target would lead to if it were asked now, and which release is there.
// Its methods are called from several goroutines at once.
type Places interface {
	// Live turns a path below a generation into the same below the generation
	// that is live, and returns any other as it is. It is called with paths of
	// other mount namespaces and of what processes say, any bytes, too.
	Live(path string) string

	// Origin says which release has put the file at this path of the host, with
	// symbolic links resolved; false if none has, or it is not known.
	Origin(path string) (Origin, bool)
}

// Displacer is a Places that also knows files which have lost their place to
// another release's. It is optional.
type Displacer interface {
	// Displaced says which release had put this inode at this path of the host;
	// false if this is not known, or if it is still there.
	Displaced(path string, id Inode) (Origin, bool)
}

// Dater is a Places that also knows when a file lost its place. It is optional.
type Dater interface {
	// Replaced says when the file that the release has put at this path of the
	// host became another than the live one; false if this is not known.
	Replaced(path string, release Origin) (time.Time, bool)
}

// Settler is a Places that can also settle a suspicion. It is optional.
type Settler interface {
	// Intact says whether the file at this path of the host holds the very bytes
	// that its release put there, and when they were put there; false if this is
	// not known.
	Intact(path string) (intact bool, since time.Time, ok bool)
}
