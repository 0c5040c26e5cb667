package abi

import (
	"strings"
	"testing"
)

// Tables and texts that are exported grow from version to version.
func TestObjects(t *testing.T) {
	for name, tt := range map[string]struct{ was, is, want string }{
		"a table grows":           {was: "int table[4] = { 1 };", is: "int table[8] = { 1 };"},
		"a table shrinks":         {was: "int table[8] = { 1 };", is: "int table[4] = { 1 };", want: "the object: was an array of 8, is one of 4"},
		"rows are longer":         {was: "int table[4][2] = { 1 };", is: "int table[4][3] = { 1 };", want: "the object: was an array of 8, is one of 12"},
		"elements are larger":     {was: "int table[4] = { 1 };", is: "long table[4] = { 1 };", want: "the object: was int (4 bytes), is long int (8 bytes)"},
		"a text is longer":        {was: `const char version[] = "1.9";`, is: `const char version[] = "1.10";`},
		"a text is shorter":       {was: `const char version[] = "1.10";`, is: `const char version[] = "2.0";`},
		"a buffer is shorter":     {was: "char buffer[10];", is: "char buffer[9];", want: "the object: was an array of 10, is one of 9"},
		"a struct grows":          {was: "struct s { int a; } v;", is: "struct s { int a, b; } v;"},
		"a struct shrinks":        {was: "struct s { int a, b; } v;", is: "struct s { int a; } v;", want: "struct s: b is gone"},
		"a member moves":          {was: "struct s { int a; } v;", is: "struct s { int b, a; } v;", want: "struct s: a was at byte 0, is at byte 4"},
		"an array of structs":     {was: "struct s { int a; } v[4];", is: "struct s { int a, b; } v[4];", want: "struct s: was 4 bytes, is 8 bytes"},
		"a struct, and by value":  {was: "struct s { int a; } v; int f(struct s x) { return 1; }", is: "struct s { int a, b; } v; int f(struct s x) { return 1; }", want: "struct s: was 4 bytes, is 8 bytes"},
		"a struct becomes a text": {was: "struct s { int a; } v;", is: "char v[4];", want: "the object: was struct s, is"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := compare(t, build(t, "cc", "", tt.was), build(t, "cc", "", tt.is), Options{})
			got := ""
			if len(r.Changes) > 0 {
				got = r.Changes[0].String()
			}
			if r.Compared == 0 || len(r.Changes) > 1 || !strings.HasPrefix(got, tt.want) || got != "" && tt.want == "" {
				t.Errorf("compared %d, got %v, want %q alone", r.Compared, r.Changes, tt.want)
			}
		})
	}
}
