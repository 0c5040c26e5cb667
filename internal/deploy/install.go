package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"moult.example/internal/disk"
)

// InstallOptions say what Install is to do: the forms and flags of install(1),
// and moult's own. The zero value of each is what install(1) does without the
// flag.
type InstallOptions struct {
	Sources []string // files to install; with Directories the directories to make

	// Dest is where a file goes: under that name, or into it if it is a
	// directory, which it must be for several Sources. Empty with TargetDir and
	// with Directories.
	Dest        string
	TargetDir   string // -t: the directory into which all Sources go
	NoTargetDir bool   // -T: Dest is a name of a file, never a directory
	Directories bool   // -d: make directories
	MakeLeading bool   // -D: make the directories on the way to Dest, or TargetDir

	Mode         string // -m, octal or symbolic, as chmod(1) has it and without the umask; "" is 0755
	Owner, Group string // -o, -g: a name, else a number; "" is who runs this, and what the directory says
	Times        bool   // -p: the modification time of the source

	Strip        bool   // -s: strip symbols
	StripProgram string // what does it, called with a file's name; "" is strip

	Backup BackupKind
	Suffix string // of a simple backup; "" is ~

	Compare bool // -C: leave alone what is the same in content, owner and mode

	Keep     bool // mode, owner, ACL and label are those of the file that is replaced
	KeepCaps bool // as Keep, and its capabilities and set-id bits: privileges for new code

	Label  InstallLabel
	NoSync bool // do not wait for the disk: for staging roots of packages
	DryRun bool // find out what would be done, and change nothing

	// The rest is for tests.
	Disk     func(path string) (disk.FS, error) // nil is disk.Open
	LabelFor func(path string) string           // nil asks the policy, where SELinux is on
}

// InstalledFile is what became of one source.
type InstalledFile struct {
	Source, Dest string
	Replaced     bool   // there was something under that name
	Backup       string // where that is now; "" is nowhere
	Unchanged    bool   // all was as it should be, and was left alone
}

// InstallResult says what Install has done, or with DryRun what it would do.
type InstallResult struct {
	Made     []string // directories that were not there, parents first
	Files    []InstalledFile
	Warnings []string

	// Changed says that something is different from before. Beside an error it
	// means that a part was done: Made and Files say which.
	Changed bool
}

// The refusals of Install that a caller tells apart.
var (
	// ErrInstallMount: the destination is a mount point, as a single file that
	// is mounted into a container is; its name cannot be given to another file.
	ErrInstallMount = errors.New("is a mount point; its name cannot be given to another file")

	// ErrInstallImmutable: the destination or its directory has the immutable
	// or append-only attribute.
	ErrInstallImmutable = errors.New("is immutable or append-only")

	// ErrInstallPartly: some of the files are in place, others are not; or all
	// are, and a crash may still undo it.
	ErrInstallPartly = errors.New("only partly done")
)

// Install copies files to their places as install(1) does, and is safe for
// files in use: each is made complete and durable under a name of its own in
// the destination directory, and then one rename(2) gives it its name. Several
// files are all complete before the first is renamed. Nothing is ever written
// in place.
//
// An error without ErrInstallPartly means that nothing has changed: where
// install(1) goes on with the next file after an error, Install does nothing at
// all.
//
// A kill leaves at most files called .moult-install.*, which the next Install
// into that directory removes.
func Install(ctx context.Context, o InstallOptions) (InstallResult, error) {
	in := &installer{o: o}
	err := in.prepare()
	if err == nil {
		defer in.close()
		if o.Directories {
			err = in.makeDirectories(ctx)
		} else {
			err = in.installFiles(ctx)
		}
	}
	if err != nil && in.result.Changed {
		err = fmt.Errorf("%w: %w", ErrInstallPartly, err)
	}
	return in.result, err
}

// installer is one run of Install.
type installer struct {
	o        InstallOptions
	mode     installMode
	uid, gid int // -1 is not asked for

	path  string   // the directory that receives the files
	fs    disk.FS  // the same, for changes
	dir   *os.File // the same, for looking
	items []*installItem
	temp  string // name of the temporary file that stands for those of all items
	lock  int    // descriptor that holds the lock on it; -1 is none

	made   []installMade // directories that this run has made
	set    []disk.FS     // directories that were there and were changed
	partly bool          // something has changed that cannot be taken back

	result InstallResult
}

// prepare works out what the options say.
func (in *installer) prepare() error {
	o := &in.o
	in.lock = -1
	if o.Disk == nil {
		o.Disk = func(path string) (disk.FS, error) { return disk.Open(path) }
	}
	if o.LabelFor == nil {
		o.LabelFor = policyLabel
	}
	o.Keep = o.Keep || o.KeepCaps
	var ok bool
	if in.mode, ok = parseInstallMode(o.Mode); !ok {
		return fmt.Errorf("invalid mode %s", quoteName(o.Mode))
	}
	var err error
	if in.uid, err = installOwner(o.Owner, "user", "passwd"); err != nil {
		return err
	}
	if in.gid, err = installOwner(o.Group, "group", "group"); err != nil {
		return err
	}
	if o.StripProgram != "" && !o.Strip {
		in.warn("ignoring the strip program, since nothing is to be stripped")
	}
	if mode, _ := in.mode.adjust(0, false); o.Compare && mode&^0o777 != 0 {
		o.Compare = false
		in.warn("not comparing, since the mode has more than permission bits")
	}
	in.prepareLabel()
	return nil
}

func (in *installer) warn(text string) { in.result.Warnings = append(in.result.Warnings, text) }

// installFiles is Install for all but directories.
func (in *installer) installFiles(ctx context.Context) error {
	if err := in.resolve(); err != nil {
		return err
	}
	if err := in.plan(); err != nil {
		return err
	}
	if in.o.DryRun {
		return nil
	}
	if err := in.stage(ctx); err != nil {
		in.discard()
		in.unmake()
		return err
	}
	return in.commit()
}

// discard takes away what was staged.
func (in *installer) discard() {
	for _, it := range in.items {
		if it.file != nil {
			it.file.Close()
		}
		if it.temp != "" {
			in.fs.Remove(it.temp) // a failure leaves it to the next run
		}
	}
	if in.temp != "" {
		in.fs.Remove(in.temp)
	}
}

func (in *installer) close() {
	if in.lock >= 0 {
		unix.Close(in.lock)
	}
	if in.dir != nil {
		in.dir.Close()
	}
	closeDisk(in.fs)
	for _, m := range in.made {
		closeDisk(m.parent)
	}
	for _, d := range in.set {
		closeDisk(d)
	}
}

// openDisk holds a directory twice, for changes and for looking. Where the disk
// can say which directory it holds, both are the same one.
func (in *installer) openDisk(path string) (disk.FS, *os.File, error) {
	d, err := in.o.Disk(path)
	if err != nil {
		return nil, nil, err
	}
	var dir *os.File
	if l, ok := d.(interface {
		Lookup(string) (*os.File, error)
	}); ok {
		dir, err = l.Lookup(".")
	} else {
		dir, err = os.Open(path)
	}
	if err != nil {
		closeDisk(d)
		return nil, nil, err
	}
	return d, dir, nil
}

// about makes an error speak of the file that the user named, where it speaks
// of our temporary one.
func about(op, path string, err error) error {
	var p *fs.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &l):
		err = l.Err
	case errors.As(err, &p):
		err = p.Err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
