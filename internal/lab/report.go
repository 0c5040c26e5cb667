package lab

// Report is what one run saw. Its fields are the JSON document of moult lab,
// schema 1 (the number itself is added where documents are printed): none of
// them changes its meaning or goes away under that number.
type Report struct {
	Kernel     string    `json:"kernel"`      // release, as uname -r
	Machine    string    `json:"machine"`     // amd64, arm64
	FileSystem string    `json:"file_system"` // type, as in /proc/mounts
	Dir        string    `json:"dir"`         // where the work directory was
	Root       bool      `json:"root"`        // without it, owners cannot differ
	Quick      bool      `json:"quick"`
	Tools      []Tool    `json:"tools"`
	Rows       []Row     `json:"rows"`
	Untried    []Untried `json:"untried"`
}

// Tool is a program that the report depends on.
type Tool struct {
	Name    string `json:"name"`
	Version string `json:"version"` // the first line of its --version
}

// Untried is a method that could not be tried here.
type Untried struct {
	Method string `json:"method"`
	Title  string `json:"title"`
	Why    string `json:"why"`
}

// Row is what one method did.
type Row struct {
	Method  string `json:"method"`  // the name, as --explain takes it
	Title   string `json:"title"`   // the name, as the table shows it
	Command string `json:"command"` // for one file, or for a release

	// The file that is replaced is the program itself, or a library of 1 MiB.
	// Asleep is a process that waits in the kernel meanwhile; Calling one that
	// calls its code without a pause, and most of whose pages are not in
	// memory. Both are asked afterwards, with a call into every page.
	ExeAsleep  Fate `json:"executable_asleep"`
	ExeCalling Fate `json:"executable_calling"`
	LibAsleep  Fate `json:"library_asleep"`
	LibCalling Fate `json:"library_calling"`

	// LibFix is LibAsleep, but the new library differs from the old one in
	// constants only: every function is where it was.
	LibFix Fate `json:"library_small_fix"`

	// LibShared is a second program that uses the library, is not to be
	// touched and is not restarted; Started is the first one, which is.
	LibShared Fate `json:"library_shared"`

	// Plugin is a running program that loads its third library only after
	// that was replaced.
	Plugin Fate `json:"plugin_late"`

	Traits   Traits    `json:"traits"`
	Launches *Launches `json:"launches"` // null: not a way to replace a set
}

// Outcome is what became of a running program.
type Outcome string

// The outcomes.
const (
	Unharmed Outcome = "unharmed" // answers as before
	Refused  Outcome = "refused"  // the tool failed and the file is as it was; the program answers as before
	Wrong    Outcome = "wrong"    // runs on, and answers differently
	Mixed    Outcome = "mixed"    // the old program runs with the new plugin
	Unloaded Outcome = "no load"  // runs on, without its plugin, which does not load
	Killed   Outcome = "killed"   // ended by a signal
	Exited   Outcome = "exited"   // ended by itself, as when the loader gives up
	Hung     Outcome = "hung"     // gives no answer; ended by the lab
)

// What runs, or what is started, after a replacement.
const (
	Old     = "old"
	New     = "new"
	Garbled = "garbled" // functions that belong to neither
	Nothing = "nothing" // ended, or does not start
)

// Fate is what became of a program whose file was replaced.
type Fate struct {
	Outcome Outcome `json:"outcome"`
	Signal  string  `json:"signal,omitempty"` // of Killed: SIGSEGV, SIGBUS
	Status  int     `json:"status,omitempty"` // of Exited
	Errno   string  `json:"errno,omitempty"`  // of Refused: ETXTBSY
	Running string  `json:"running"`          // the code that answers in the old process
	Started string  `json:"started"`          // the code that a process started afterwards runs
	Said    string  `json:"said,omitempty"`   // the first line of what the tool, or a failed program, said
	Held    Held    `json:"held"`
	Faults  int     `json:"major_faults"` // pages of code read from the disk again

	// Home says where the running program is now to look for what lies beside
	// it: "kept" if /proc/PID/exe names a file in the directory that it was
	// started from, else the other directory, relative to the target. The
	// loader's $ORIGIN comes from there. "" if the program has ended.
	Home string `json:"home"`
}

// Held is the disk space, in bytes, that the replaced file still takes.
type Held struct {
	Deleted int64 `json:"deleted"` // without a name; free when the process ends
	Kept    int64 `json:"kept"`    // under another name: a backup, a generation
}

// Traits are what the file is like afterwards. The old file had mode 0750 and
// an owner of its own, the new one 0711 and another.
type Traits struct {
	Inode string `json:"inode"` // "new" or "same"
	Mode  string `json:"mode"`  // "kept", "source" or the octal number
	Owner string `json:"owner"` // "kept", "source", "caller"; "" without root

	// Links is what another hard link of the old file holds: "old" or "new"
	// bytes, or "other".
	Links string `json:"hard_links"`
}

// Launches counts programs that were started, back to back, while the whole
// set of program and libraries was switched to and fro.
type Launches struct {
	Switches int            `json:"switches"`
	Errors   int            `json:"errors"` // switches that the tool did not finish
	Said     string         `json:"said,omitempty"`
	Launches int            `json:"launches"`
	Mixed    int            `json:"mixed"`   // ran files of both versions
	Failed   int            `json:"failed"`  // did not start, or died
	Reasons  map[string]int `json:"reasons"` // of the failed
}
