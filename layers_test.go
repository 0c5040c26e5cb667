package moult_test

// The tables of the structure. A new package, a new dependency or a new
// exception is a line here, with its reason, so that it is seen in review.

// rooms says which of the module's packages each package may import. Imports
// point down: cmd, then what drives the engine, then the engine, then what it
// is made of. Tests may import what they like.
var rooms = map[string][]string{
	".":         {},
	"cmd/moult": {"internal/lab", "internal/deploy", "internal/release", "internal/stale", "internal/linkcheck", "internal/restart", "internal/disk", "internal/disk/disktest"},

	"internal/lab":    {"internal/deploy", "internal/release", "internal/stale", "internal/disk"},
	"internal/bench":  {"internal/disk", "internal/linkcheck", "internal/reexecload"},
	"internal/deploy": {"internal/deploy/hostfacts", "internal/linkcheck", "internal/linkcheck/abi", "internal/stale", "internal/release", "internal/disk"},

	"internal/deploy/hostfacts":    {},
	"internal/release":             {"internal/disk"},
	"internal/stale":               {},
	"internal/restart":             {"internal/release", "internal/stale"},
	"internal/restart/restarttest": {"internal/testneed"},
	"internal/linkcheck":           {},
	"internal/linkcheck/abi":       {},
	"internal/disk":                {},
	"internal/disk/disktest":       {"internal/disk", "internal/testneed"},
	"internal/testneed":            {},
	"internal/reexecload":          {},
	"reexec":                       {"internal/disk"},
	"reexec/reexechttp":            {"reexec"},
	"internal/realtest":            {}, // tests alone
	"internal/destroytest":         {}, // tests alone
	"include":                      {}, // tests alone
}

// dependencies says which packages may import each module that is not ours.
// Packages whose name ends in _test stand for the tests of a package.
var dependencies = map[string]dependency{
	"golang.org/x/sys":                   {"the system calls that package os does not have; checkDisk holds those that change a disk", []string{anyone}},
	"github.com/spf13/cobra":             {"the command line, its help, completion and man pages", []string{"cmd/moult"}},
	"github.com/spf13/pflag":             {"the flags of the command line", []string{"cmd/moult"}},
	"github.com/BurntSushi/toml":         {"moult.toml", []string{"internal/release"}},
	"github.com/coreos/go-systemd/v22":   {"units, as systemd's own D-Bus interface has them", []string{"internal/restart", "internal/restart/restarttest"}},
	"github.com/godbus/dbus/v5":          {"the D-Bus that go-systemd speaks; in tests, a systemd of our own", []string{"internal/restart", "internal/restart/restarttest"}},
	"github.com/klauspost/compress":      {"zstd, for packed releases", []string{"internal/release"}},
	"github.com/ianlancetaylor/demangle": {"the names of C++ and Rust symbols", []string{"internal/linkcheck"}},
	"github.com/rogpeppe/go-internal":    {"command scripts as tests", []string{"cmd/moult_test"}},
	"honnef.co/go/tools":                 {"staticcheck, a tool that nothing imports", nil},
}

// anyone stands for all packages.
const anyone = "*"

type dependency struct {
	why      string
	packages []string
}

// Who may call what changes a file system, beside internal/disk and the tests: a
// package, or one file of a package.
var mayChangeDisk = map[string]string{
	"internal/disk":                "the one room for it",
	"internal/disk/disktest":       "builds the trees that a crash would leave",
	"internal/stale/query.go":      "asks /proc by ioctl(2), which may be anything, and nothing else",
	"internal/lab":                 "shows what cp and mv do, in a work directory of its own",
	"internal/bench":               "builds the trees that it measures on",
	"internal/testneed":            "only tests import it",
	"internal/reexecload":          "replaces the servers that it loads",
	"internal/restart/restarttest": "builds the services that tests restart; only tests import it",

	"reexec/replace_unix.go":    "internal/disk is for Linux; this is for macOS",
	"reexec/replace_windows.go": "the same, for Windows",
}

// Who may print, log and exit.
var mayPrint = map[string]string{
	"cmd/moult":      "it is the program",
	"internal/bench": "a program of its own",
	"reexec":         "a preflight ends the process before its program begins",

	"internal/testneed": "runs a package's tests in another namespace, for its TestMain",
}

// Standard packages that are refused, and who may import them all the same.
var refusedImports = map[string]struct {
	why string
	may []string
}{
	"log":       {"return errors; nothing below cmd/moult logs", nil},
	"log/slog":  {"return errors; nothing below cmd/moult logs", nil},
	"io/ioutil": {"it is deprecated, and hides changes of the file system", nil},
	"flag":      {"flags belong to cmd/moult, which uses pflag", []string{"internal/bench"}},
	"testing":   {"it does not belong into the program", []string{"internal/testneed", "internal/disk/disktest", "internal/restart/restarttest"}},
	"unsafe":    {"only a system call that has no wrapper needs it", []string{"internal/disk", "internal/release", "internal/lab", "internal/stale", "reexec"}},
	"plugin":    {"the program is static", nil},
	"C":         {"the program is static: CGO_ENABLED=0", nil},
}

// Names under which everything and nothing can be found.
var vagueNames = []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "base", "lib"}

const (
	longFile  = 350 // lines; nine files of ten are shorter
	worstFile = 450 // lines; no file is longer
)
