package release

import (
	"fmt"
	"strings"
)

// scanTOML finds the keys of a text. It need not be right for what the parser
// refuses.
func scanTOML(text string) tomlLines {
	lines := tomlLines{}
	tables := map[string]int{}
	note := func(key string, line int) {
		if _, ok := lines[key]; !ok {
			lines[key] = line
		}
	}
	var table, plain string // the names of the table we are in, with and without its number
	line := 1
	for text != "" {
		start := line
		var statement string
		statement, text = cutStatement(text)
		line += strings.Count(statement, "\n")
		key, isHeader, isArray := statementKey(statement)
		switch {
		case key == "":
		case isArray:
			plain, table = key, fmt.Sprintf("%s#%d", key, tables[key])
			tables[key]++
			note(plain, start)
			note(table, start)
		case isHeader:
			plain, table = key, key
			note(key, start)
		case table == "":
			note(key, start)
		default:
			note(plain+"."+key, start)
			note(table+"."+key, start)
		}
	}
	return lines
}

// cutStatement cuts after the newline that ends the first statement, which is
// not one inside brackets or a string.
func cutStatement(text string) (statement, rest string) {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case '#':
			for i+1 < len(text) && text[i+1] != '\n' {
				i++
			}
		case '"', '\'':
			i += stringLen(text[i:]) - 1
		case '\n':
			if depth <= 0 {
				return text[:i+1], text[i+1:]
			}
		}
	}
	return text, ""
}

// stringLen is the length of the string that s begins with, quotes included.
func stringLen(s string) int {
	quote := s[:1]
	if strings.HasPrefix(s, strings.Repeat(quote, 3)) {
		quote = s[:3]
	}
	for i := len(quote); i < len(s); i++ {
		switch {
		case s[i] == '\\' && quote[0] == '"':
			i++
		case strings.HasPrefix(s[i:], quote):
			return i + len(quote)
		case s[i] == '\n' && len(quote) == 1:
			return i // not closed
		}
	}
	return len(s)
}

// statementKey returns the key of a statement: of a table's header, or of what
// stands before "=".
func statementKey(s string) (key string, isHeader, isArray bool) {
	s = strings.TrimSpace(s)
	if s == "" || s[0] == '#' {
		return "", false, false
	}
	isHeader, isArray = s[0] == '[', strings.HasPrefix(s, "[[")
	end := "="
	if isHeader {
		s, end = strings.TrimLeft(s, "["), "]"
	}
	i := 0
	for i < len(s) && !strings.HasPrefix(s[i:], end) {
		if s[i] == '"' || s[i] == '\'' {
			i += stringLen(s[i:]) - 1
		}
		i++
	}
	parts := strings.Split(s[:min(i, len(s))], ".")
	for j, p := range parts {
		parts[j] = strings.Trim(p, " \t\"'")
	}
	return strings.Join(parts, "."), isHeader, isArray
}
