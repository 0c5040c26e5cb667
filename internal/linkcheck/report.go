package linkcheck

import (
	"cmp"
	"path"
	"slices"
)

// Options says how files would be loaded. The zero value is this host as it is.
type Options struct {
	// Root is the directory that the checked system has as its root, another
	// host's tree for example; all paths, links and run paths are seen below it.
	// "" is "/". Preload files and caches are Root's as well.
	Root string

	// LibraryPath is what LD_LIBRARY_PATH has at the start of the programs,
	// directory by directory. Programs that gain privileges ignore it.
	LibraryPath []string

	// Preload is LD_PRELOAD, name by name, in addition to Root's
	// /etc/ld.so.preload.
	Preload []string

	// Overlay is what will be different: an absolute path as seen in Root, to
	// the staged file that will be there, as seen by this process (not below
	// Root); to "" where nothing will be any more. A staged symbolic link is
	// followed as it would be at its new place. A staged directory stands in
	// for all that is below its path. Directories on the way to a path need not
	// exist yet.
	Overlay map[string]string

	// Links are staged symbolic links that exist nowhere yet: a path as in
	// Overlay, to the text of the link.
	Links map[string]string

	// Plugins are the files that programs load by name while they run: an
	// absolute path as seen in Root, to the programs that load it. A plugin is
	// checked in each of them, whether or not it is among the paths.
	Plugins map[string][]string

	// HWCaps are the names below glibc-hwcaps/ that the processor serves, best
	// first. nil asks this host's; an empty list is none.
	HWCaps []string

	// MaxFindings limits the report; the rest is counted. 0 is 10,000.
	MaxFindings int
}

// Severity is how bad a finding is.
type Severity string

// The severities.
const (
	Break   Severity = "break"   // it will not start, or fail or misbehave when it gets there
	Warning Severity = "warning" // it may: it depends on what cannot be seen from here
	Note    Severity = "note"    // worth knowing
)

// Problem is the kind of a finding. The strings are for users and stay as they
// are.
type Problem string

// The problems.
const (
	BadFile            Problem = "bad-file"            // the loader cannot map it: no sound ELF file, of another machine, shorter than it says
	MissingInterpreter Problem = "missing-interpreter" // the loader that PT_INTERP names is not there
	MissingLibrary     Problem = "missing-library"     // a DT_NEEDED is found nowhere
	MissingVersion     Problem = "missing-version"     // a library has no such version (DT_VERNEED against DT_VERDEF)
	NoVersions         Problem = "no-versions"         // a version is wanted of a library that has none at all
	NewerLibc          Problem = "newer-libc"          // the version that is missing is one of a newer C library
	MissingSymbol      Problem = "missing-symbol"      // a symbol that a relocation names is defined nowhere
	CopySize           Problem = "copy-size"           // a copied object has another size than the program reserved
	KindChanged        Problem = "kind-changed"        // function against data, thread-local against not
	ProtectedCopy      Problem = "protected-copy"      // the program copies an object that the library does not share
	StaticTLS          Problem = "static-tls"          // a plugin wants more thread-local storage than may be left
	ExecutableStack    Problem = "executable-stack"    // refused when loaded by name, from glibc 2.41 on
	NotLoadable        Problem = "not-loadable"        // may not be loaded by name: DF_1_NOOPEN, or a program
	Alignment          Problem = "alignment"           // segments are less aligned than pages
	RelativeNeedsLibc  Problem = "relr-needs-libc"     // DT_RELR without asking for GLIBC_ABI_DT_RELR, or a loader too old for it
	ProcessorLevel     Problem = "processor-level"     // it is marked as needing instructions that the processor lacks
	SonameDiffers      Problem = "soname-differs"      // a library calls itself otherwise than those who need it do
	TwoMajors          Problem = "two-majors"          // one program gets two majors of one library
	TextRelocations    Problem = "text-relocations"    // code is written to when it is loaded
	Interposed         Problem = "interposed"          // a symbol comes from another library than before
)

// Finding is one thing that would go wrong. Everything in it was read from
// files and is not to be trusted on a terminal. Lists are short.
type Finding struct {
	Problem  Problem
	Severity Severity

	// Object is the file that has the problem: the one that needs, refers or
	// cannot be loaded. Its path is as seen in Root.
	Object string

	// Programs are the checked files in which it shows, if they are others than
	// Object: it is a library of theirs, or their plugin. At most maxPrograms
	// are named; MorePrograms counts the rest.
	Programs     []string
	MorePrograms int

	Needs   string // what Object needs: a DT_NEEDED name, an interpreter, the file name that a version is wanted of
	Found   string // the file that was found for it; "" if none
	Symbol  string // the symbol as it is in the file; "" if it is not about one
	Name    string // the symbol as a programmer writes it; "" if that is the same
	Version string // the version that is wanted; "" if none

	Searched []string // where it was looked for, in order
	Near     []string // what would have been near it: the symbol with another version, a library of another major, a similar name
	Detail   string   // what else is to be said, in words: sizes, kinds, faults of a file; "" if nothing
}

// maxPrograms is how many programs a finding names.
const maxPrograms = 8

// Unread is a file that could not be judged, and why.
type Unread struct {
	Path string
	Err  error
}

// Report is what Check found.
type Report struct {
	Findings   []Finding // breaks first, then by object, problem and symbol
	More       int       // findings beyond Options.MaxFindings
	Programs   int       // programs that were checked
	Libraries  int       // libraries and plugins that were checked on their own account
	Loaded     int       // different files that were read
	References int64     // symbols that were looked up
	Skipped    []string  // paths that are no program or library: scripts, data, other ELF files
	Unread     []Unread  // what could not be told
}

// Worst is the worst severity of all findings; "" if there are none.
func (r *Report) Worst() Severity {
	worst := Severity("")
	for i := range r.Findings {
		if worst == "" || rank(r.Findings[i].Severity) < rank(worst) {
			worst = r.Findings[i].Severity
		}
	}
	return worst
}

// Count is how many findings have a severity.
func (r *Report) Count(s Severity) (n int) {
	for i := range r.Findings {
		if r.Findings[i].Severity == s {
			n++
		}
	}
	return n
}

func rank(s Severity) int {
	switch s {
	case Break:
		return 0
	case Warning:
		return 1
	default:
		return 2
	}
}

// Added are the findings of after that before does not have, and those that are
// worse than they were: what a change adds. A finding is the same if problem,
// object, needed name, symbol and version are; the directories of files do not
// count, since a release may bring its own.
func Added(before, after *Report) []Finding {
	was := make(map[findingKey]Severity, len(before.Findings))
	for i := range before.Findings {
		f := &before.Findings[i]
		if s, ok := was[f.key()]; !ok || rank(f.Severity) < rank(s) {
			was[f.key()] = f.Severity
		}
	}
	var added []Finding
	for i := range after.Findings {
		f := &after.Findings[i]
		if s, ok := was[f.key()]; !ok || rank(f.Severity) < rank(s) {
			added = append(added, *f)
		}
	}
	return added
}

type findingKey struct {
	problem                 Problem
	object, needs           string
	symbol, version, detail string
}

func (f *Finding) key() findingKey {
	k := findingKey{f.Problem, path.Base(f.Object), path.Base(f.Needs), f.Symbol, f.Version, ""}
	if f.Symbol == "" && f.Needs == "" {
		k.detail = f.Detail
	}
	return k
}

func compareFindings(a, b Finding) int {
	return cmp.Or(
		cmp.Compare(rank(a.Severity), rank(b.Severity)),
		cmp.Compare(a.Object, b.Object),
		cmp.Compare(a.Problem, b.Problem),
		cmp.Compare(a.Needs, b.Needs),
		cmp.Compare(a.Symbol, b.Symbol),
		cmp.Compare(a.Version, b.Version),
	)
}

// Sort puts the findings in order: breaks first, then by object, problem and symbol.
func (r *Report) Sort() { slices.SortStableFunc(r.Findings, compareFindings) }
