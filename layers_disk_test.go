package moult_test

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
)

// changes are the functions that change a file system, by import path.
var changes = map[string][]string{
	"os": {
		"Chmod", "Chown", "Chtimes", "CopyFS", "Create", "CreateTemp", "Lchown", "Link", "Mkdir", "MkdirAll",
		"MkdirTemp", "OpenInRoot", "OpenRoot", "Remove", "RemoveAll", "Rename", "Symlink", "Truncate", "WriteFile",
	},
	"golang.org/x/sys/unix": slices.Concat(systemCalls, []string{
		"CopyFileRange", "Fallocate", "Fchmodat2", "Fremovexattr", "Fsetxattr", "IoctlFileClone",
		"IoctlFileCloneRange", "IoctlFileDedupeRange", "IoctlSetInt", "IoctlSetPointerInt", "Lremovexattr",
		"Lsetxattr", "Lutimes", "MountSetattr", "MoveMount", "Renameat2", "SyncFileRange", "Syncfs", "UtimesNanoAt",
	}),
	"golang.org/x/sys/windows": {
		"CreateDirectory", "CreateFile", "CreateHardLink", "CreateSymbolicLink", "DeleteFile", "MoveFile", "MoveFileEx",
		"RemoveDirectory", "SetFileAttributes", "SetFileInformationByHandle", "SetFileTime", "WriteFile",
	},
	"syscall": systemCalls,
}

// systemCalls are in both syscall and x/sys/unix. A raw call may be anything.
var systemCalls = []string{
	"Chmod", "Chown", "Creat", "Fchmod", "Fchmodat", "Fchown", "Fchownat", "Fdatasync", "Fsync", "Ftruncate",
	"Futimes", "Futimesat", "Lchown", "Link", "Linkat", "Mkdir", "Mkdirat", "Mkfifo", "Mknod", "Mknodat", "Mount",
	"PivotRoot", "RawSyscall", "RawSyscall6", "RawSyscallNoError", "Removexattr", "Rename", "Renameat", "Rmdir",
	"Sendfile", "Setxattr", "Symlink", "Symlinkat", "Sync", "Syscall", "Syscall6", "SyscallNoError", "Truncate",
	"Unlink", "Unlinkat", "Unmount", "Utime", "Utimes", "UtimesNano",
}

// writeFlags make of an open(2) a change. Naming one is enough to be found, so
// that flags may be handed on in a variable.
var writeFlags = []string{"O_WRONLY", "O_RDWR", "O_CREATE", "O_CREAT", "O_TRUNC", "O_APPEND", "O_TMPFILE"}

// opens take their flags as the argument of that index. A number there says
// nothing to this test, nor to a reader.
var opens = map[string]map[string]int{
	"os":                    {"OpenFile": 1},
	"syscall":               {"Open": 1, "Openat": 2},
	"golang.org/x/sys/unix": {"Open": 1, "Openat": 2},
}

// rawReads are the system calls without a wrapper that may be called raw.
// setresuid(2) has one, but that changes all threads, not one.
var rawReads = []string{"SYS_GETXATTRAT", "SYS_LISTXATTRAT", "SYS_KCMP", "SYS_SETRESUID", "SYS_RT_SIGACTION", "SYS_PRLIMIT64", "SYS_EXECVEAT"}

// methods change a file that is open, whoever opened it.
var methods = []string{"Chmod", "Chown"}

const diskReason = "only internal/disk changes a file system, so that every change can be failed, killed and cut off in a test"

// checkDisk finds what changes a file system outside the room for it. It looks
// at uses, not at calls alone: os.Rename may be handed on as a value.
func checkDisk(all []*source) (problems []string) {
	for _, s := range programFiles(all) {
		if _, may := mayChangeDisk[s.dir()]; may || mayChangeDisk[s.path] != "" {
			continue
		}
		imports := importNames(s)
		free := map[ast.Node]bool{} // raw calls that only read
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			what := ""
			switch n := n.(type) {
			case *ast.CallExpr:
				what = hiddenFlags(imports, n)
				if readsOnly(n) {
					free[n.Fun] = true
				}
			case *ast.SelectorExpr:
				pkg := imports[receiver(n)]
				if (slices.Contains(changes[pkg], n.Sel.Name) || slices.Contains(writeFlags, n.Sel.Name)) && !free[n] ||
					pkg == "" && slices.Contains(methods, n.Sel.Name) {
					what = name(n)
				}
			}
			if what != "" {
				problems = append(problems, fmt.Sprintf("%s: %s: %s", s.at(n), what, diskReason))
			}
			return true
		})
	}
	return problems
}

// hiddenFlags names the call if it opens a file with a number for flags.
func hiddenFlags(imports map[string]string, call *ast.CallExpr) string {
	sel, isSel := call.Fun.(*ast.SelectorExpr)
	if !isSel {
		return ""
	}
	index, opens := opens[imports[receiver(sel)]][sel.Sel.Name]
	if !opens || index >= len(call.Args) {
		return ""
	}
	what := ""
	ast.Inspect(call.Args[index], func(n ast.Node) bool {
		if number, isNumber := n.(*ast.BasicLit); isNumber {
			what = name(sel) + " with flags " + number.Value
		}
		return true
	})
	return what
}

// readsOnly says that a call is a raw system call that changes nothing.
func readsOnly(call *ast.CallExpr) bool {
	if len(call.Args) == 0 {
		return false
	}
	number, isSel := call.Args[0].(*ast.SelectorExpr)
	return isSel && slices.Contains(rawReads, number.Sel.Name)
}

// importNames maps the names under which a file has imported packages to their
// paths.
func importNames(s *source) map[string]string {
	names := map[string]string{}
	for _, i := range s.syntax.Imports {
		p := strings.Trim(i.Path.Value, `"`)
		name := p[strings.LastIndexByte(p, '/')+1:]
		if i.Name != nil {
			name = i.Name.Name
		}
		names[name] = p
	}
	return names
}

// checkPrinting finds what prints, or ends the process, below cmd/moult.
func checkPrinting(all []*source) (problems []string) {
	refused := map[string][]string{
		"fmt": {"Print", "Printf", "Println", "Scan", "Scanf", "Scanln"},
		"os":  {"Stdin", "Stdout", "Stderr", "Exit"},
	}
	for _, s := range programFiles(all) {
		if _, may := mayPrint[s.dir()]; may {
			continue
		}
		imports := importNames(s)
		ast.Inspect(s.syntax, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				if slices.Contains(refused[imports[receiver(n)]], n.Sel.Name) {
					problems = append(problems, fmt.Sprintf("%s: %s: nothing below cmd/moult prints, logs or exits; return it", s.at(n), name(n)))
				}
			case *ast.CallExpr:
				if f, isName := n.Fun.(*ast.Ident); isName && (f.Name == "print" || f.Name == "println") {
					problems = append(problems, fmt.Sprintf("%s: %s: nothing below cmd/moult prints, logs or exits; return it", s.at(n), f.Name))
				}
			}
			return true
		})
	}
	return problems
}

// receiver is the name before the dot, "" if it is more than a name.
func receiver(sel *ast.SelectorExpr) string {
	if x, isName := sel.X.(*ast.Ident); isName {
		return x.Name
	}
	return ""
}

func name(sel *ast.SelectorExpr) string {
	if r := receiver(sel); r != "" {
		return r + "." + sel.Sel.Name
	}
	return "." + sel.Sel.Name
}
