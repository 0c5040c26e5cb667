package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// schema is the number of the JSON documents' form. It grows when a key changes
// its meaning or goes away; new keys do not count.
const schema = 1

// print is how a command gives its result: as one JSON document with a schema
// number, or as text for people, buffered so that it comes whole.
func (a *app) print(v any, human func(io.Writer)) error {
	a.progress.finish()
	a.printed = true
	var out []byte
	if a.json {
		var err error
		if out, err = document(v); err != nil {
			return err
		}
	} else {
		var b bytes.Buffer
		human(&b)
		out = b.Bytes()
	}
	if _, err := a.stdout.Write(out); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// document is v, which must be a struct or a map, with the schema number first
// if it does not carry one itself.
func document(v any) ([]byte, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	fields, isObject := bytes.CutPrefix(bytes.TrimSpace(body.Bytes()), []byte("{"))
	if !isObject {
		return nil, fmt.Errorf("%T is no JSON object", v)
	}
	whole := []byte("{")
	if !bytes.HasPrefix(fields, []byte(`"schema":`)) {
		whole = fmt.Appendf(whole, `"schema":%d`, schema)
		if string(fields) != "}" {
			whole = append(whole, ',')
		}
	}
	whole = append(whole, fields...)
	var out bytes.Buffer
	if err := json.Indent(&out, whole, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// table writes rows in columns; cells are separated by tabs.
func table(w io.Writer, rows func(row func(cells ...any))) {
	var b bytes.Buffer
	tw := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	rows(func(cells ...any) {
		for i, c := range cells {
			if i > 0 {
				fmt.Fprint(tw, "\t")
			}
			fmt.Fprint(tw, c)
		}
		fmt.Fprintln(tw)
	})
	tw.Flush()
	for line := range strings.Lines(b.String()) {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

// size writes bytes for people: 999 B, 1.2 kB, 35 MB.
func size(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	value, unit := float64(n), 0
	for value >= 999.5 && unit < 5 {
		value /= 1000
		unit++
	}
	digits := 0
	if value < 9.95 {
		digits = 1
	}
	return strconv.FormatFloat(value, 'f', digits, 64) + " " + []string{"B", "kB", "MB", "GB", "TB", "PB"}[unit]
}

// count writes a number with its noun: 1 file, 2 files.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// when writes a time for people, in their zone.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

// orDash stands in for what is not there.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
