package deploy

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Verbose is what install -v says, line by line, for a program of that name.
func (r InstallResult) Verbose(program string) []string {
	var lines []string
	for _, dir := range r.Made {
		lines = append(lines, program+": creating directory "+quoteName(dir))
	}
	for _, f := range r.Files {
		if f.Unchanged {
			continue
		}
		if f.Replaced && f.Backup == "" {
			lines = append(lines, "removed "+quoteName(f.Dest))
		}
		line := quoteName(f.Source) + " -> " + quoteName(f.Dest)
		if f.Backup != "" {
			line += " (backup: " + quoteName(f.Backup) + ")"
		}
		lines = append(lines, line)
	}
	return lines
}

// Planned is what a dry run says, line by line.
func (r InstallResult) Planned() []string {
	var lines []string
	for _, dir := range r.Made {
		lines = append(lines, "would create directory "+quoteName(dir))
	}
	for _, f := range r.Files {
		how := ""
		switch {
		case f.Unchanged:
			lines = append(lines, "would leave "+quoteName(f.Dest)+" alone: it is the same")
			continue
		case f.Backup != "":
			how = ", and keep the old one as " + quoteName(f.Backup)
		case f.Replaced:
			how = ", in place of the old one"
		}
		lines = append(lines, "would install "+quoteName(f.Source)+" as "+quoteName(f.Dest)+how)
	}
	return lines
}

// quoteName quotes a file name as the GNU tools do in messages: so that a shell
// reads it as the same name, whatever is in it.
func quoteName(name string) string {
	if strings.Contains(name, "'") && strings.IndexFunc(name, notPlain) < 0 && utf8.ValidString(name) {
		return `"` + name + `"`
	}
	var b strings.Builder
	b.WriteByte('\'')
	escaped := false // inside of $'…'
	escape := func(text string) {
		if !escaped {
			b.WriteString("'$'")
		}
		escaped = true
		b.WriteString(text)
	}
	for i := 0; i < len(name); {
		r, n := utf8.DecodeRuneInString(name[i:])
		short := strings.IndexRune("\a\b\f\n\r\t\v", r)
		switch {
		case short >= 0:
			escape(`\` + "abfnrtv"[short:short+1])
		case r == utf8.RuneError && n == 1 || !unicode.IsPrint(r):
			for _, c := range []byte(name[i : i+n]) {
				escape(fmt.Sprintf(`\%03o`, c))
			}
		case r == '\'':
			b.WriteString(`'\''`)
			escaped = false
		default:
			if escaped {
				b.WriteString("''")
			}
			escaped = false
			b.WriteRune(r)
		}
		i += n
	}
	b.WriteByte('\'')
	return b.String()
}

// notPlain says that a character may mean something between double quotes, or
// is not printable.
func notPlain(r rune) bool {
	return !unicode.IsPrint(r) || r < utf8.RuneSelf && !unicode.IsLetter(r) && !unicode.IsDigit(r) &&
		!strings.ContainsRune(" '%+,-./:]_", r)
}
