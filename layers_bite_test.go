package moult_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestStructureBites seeds a fault for each rule and wants it found: a rule that
// finds nothing in a clean tree may also have stopped looking.
func TestStructureBites(t *testing.T) {
	const head = "// Package stale is.\npackage stale\n\n"
	uses := func(imports, statement string) string {
		return head + "import " + imports + "\n\nfunc f() {\n\t" + statement + "\n}\n"
	}
	for _, seed := range []struct {
		check, path, text string
		want              string // "" if it is no fault
	}{
		{"imports", "internal/stale/a.go", head + `import _ "moult.example/internal/deploy"`, "imports point down"},
		{"imports", "internal/novel/a.go", "package novel\n", "not in the table of rooms"},
		{"imports", "internal/stale/a_test.go", head + `import _ "moult.example/internal/deploy"`, ""},
		{"empty rooms", "internal/stale/a.go", head, "has internal/disk, which holds no package"},
		{"refused imports", "internal/stale/a.go", head + `import _ "log/slog"`, "return errors"},
		{"refused imports", "internal/stale/a.go", head + `import _ "testing"`, "does not belong"},
		{"dependencies", "internal/stale/a.go", head + `import _ "github.com/spf13/cobra/doc"`, "cmd/moult"},
		{"dependencies", "internal/stale/a_test.go", head + `import _ "github.com/spf13/cobra"`, "cmd/moult"},
		{"dependencies", "internal/stale/a.go", head + `import _ "example.org/new"`, "does not know"},
		{"dependencies", "internal/stale/a.go", head + "import _ \"encoding/json\"\nimport _ \"golang.org/x/sys/unix\"", ""},
		{"go.mod", "go.mod", "require (\n\texample.org/new v1.0.0\n)\n", "what for"},
		{"go.mod", "go.mod", "require (\n\texample.org/new v1.0.0 // indirect\n)\n", ""},
		{"package comment", "internal/stale/a.go", "package stale\n", "0 package comments"},
		{"package comment", "internal/stale/a.go", "// Here be dragons.\npackage stale\n", "does not begin with"},
		{"package comment", "cmd/moult/a.go", "// Package main is.\npackage main\n", `"Command moult "`},
		{"vague names", "internal/stale/util.go", head, "says nothing"},
		{"vague names", "internal/common/a.go", "package common\n", "says nothing"},
		{"file length", "internal/stale/a.go", head + strings.Repeat("\n", worstFile), "two ideas"},
		{"file length", "internal/stale/a.go", head + strings.Repeat("\n", longFile), "one of ten"},
		{"gofmt", "internal/stale/a.go", head + "func  f() {}\n", "gofmt would change"},
		{"machine paths", "docs/a.md", "see /wo" + "rk/main", "somebody's machine"},

		{"printing", "internal/stale/a.go", uses(`"fmt"`, `fmt.Println()`), "fmt.Println"},
		{"printing", "internal/stale/a.go", uses(`"os"`, `os.Exit(1)`), "os.Exit"},
		{"printing", "internal/stale/a.go", uses(`"fmt"; import "os"`, `fmt.Fprintln(os.Stderr)`), "os.Stderr"},
		{"printing", "internal/stale/a.go", uses(`"os"`, `println("x")`), "println"},
		{"printing", "internal/stale/a.go", uses(`"fmt"`, `_ = fmt.Sprint()`), ""},
		{"printing", "cmd/moult/a.go", uses(`"os"`, `os.Exit(1)`), ""},

		{"disk", "internal/stale/a.go", uses(`"os"`, `os.Rename("a", "b")`), "os.Rename"},
		{"disk", "internal/stale/a.go", uses(`"os"`, `remove := os.RemoveAll; _ = remove`), "os.RemoveAll"},
		{"disk", "internal/stale/a.go", uses(`sys "os"`, `sys.WriteFile("a", nil, 0)`), "sys.WriteFile"},
		{"disk", "internal/stale/a.go", uses(`"golang.org/x/sys/unix"`, `unix.Renameat2(0, "a", 0, "b", 0)`), "unix.Renameat2"},
		{"disk", "internal/stale/a.go", uses(`"syscall"`, `syscall.Unlink("a")`), "syscall.Unlink"},
		{"disk", "internal/stale/a.go", uses(`"syscall"`, `syscall.Syscall(syscall.SYS_RENAME, 0, 0, 0)`), "syscall.Syscall"},
		{"disk", "internal/stale/a.go", uses(`"golang.org/x/sys/unix"`, `unix.Syscall6(unix.SYS_KCMP, 0, 0, 0, 0, 0, 0)`), ""},
		{"disk", "internal/stale/a.go", uses(`"os"`, `os.OpenFile("a", os.O_RDWR|os.O_CREATE, 0)`), "os.O_RDWR"},
		{"disk", "internal/stale/a.go", uses(`"golang.org/x/sys/unix"`, `unix.Openat(0, "a", unix.O_TMPFILE, 0)`), "unix.O_TMPFILE"},
		{"disk", "internal/stale/a.go", uses(`"os"`, `os.OpenFile("a", 0x41, 0)`), "with flags 0x41"},
		{"disk", "internal/stale/a.go", uses(`"os"`, `f, _ := os.Open("a"); f.Chmod(0)`), "f.Chmod"},
		{"disk", "internal/stale/a.go", uses(`"os"`, `os.OpenFile("a", os.O_RDONLY, 0)`), ""},
		{"disk", "internal/disk/a.go", uses(`"os"`, `os.Remove("a")`), ""},
		{"disk", "reexec/a.go", uses(`"golang.org/x/sys/windows"`, `windows.DeleteFile(nil)`), "windows.DeleteFile"},
		{"disk", "reexec/replace_windows.go", uses(`"golang.org/x/sys/windows"`, `windows.DeleteFile(nil)`), ""},
		{"disk", "internal/stale/a_test.go", uses(`"os"`, `os.Remove("a")`), ""},
	} {
		t.Run(fmt.Sprintf("%s/%s", seed.check, seed.want), func(t *testing.T) {
			s, err := parse(seed.path, []byte(seed.text))
			if err != nil {
				t.Fatal(err)
			}
			got := strings.Join(checks[seed.check]([]*source{s}), "\n")
			if seed.want == "" && got != "" || !strings.Contains(got, seed.want) {
				t.Errorf("%s in\n%s\ngot %q, want %q", seed.check, seed.text, got, seed.want)
			}
		})
	}
}
