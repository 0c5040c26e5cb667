package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// schema is the number of the JSON documents' form. It grows when a key changes
// its meaning or goes away; new keys do not count.
const schema = 1

// print is how a command gives its result: as one JSON document with a schema
// number, or as text for people, buffered so that it comes whole, and folded
// where it goes to a terminal.
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
		if out = b.Bytes(); !a.asIs {
			out = []byte(foldTo(a.stdout, b.String()))
		}
	}
	if _, err := a.stdout.Write(out); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// document is v, which must be a struct or a map, with the schema number first
// if it does not carry one itself.
func document(v any) ([]byte, error) {
	var d indented
	enc := json.NewEncoder(&d)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	if d.whole == nil {
		return nil, fmt.Errorf("%T is no JSON object", v)
	}
	return d.whole, nil
}

// printList is print for JSON with a list that may be long: the value of key in
// v, which is empty there and whose items come one by one. No copy of the whole
// is made.
func (a *app) printList(v any, key string, items iter.Seq[any]) error {
	a.progress.finish()
	a.printed = true
	doc, err := document(v)
	if err != nil {
		return err
	}
	// No string of the document has a line break in it.
	before, after, found := bytes.Cut(doc, fmt.Appendf(nil, "\n  %q: []", key))
	if !found {
		return fmt.Errorf("%T has no empty list %q", v, key)
	}
	w := bufio.NewWriterSize(a.stdout, 32<<10)
	fmt.Fprintf(w, "%s\n  %q: [", before, key)
	one := listed{to: w, between: "\n    "}
	enc := json.NewEncoder(&one)
	enc.SetEscapeHTML(false)
	for item := range items {
		if err := enc.Encode(item); err != nil {
			return fmt.Errorf("print the result: %w", err)
		}
	}
	if one.between != "\n    " {
		w.WriteString("\n  ")
	}
	w.WriteByte(']')
	w.Write(after)
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print the result: %w", err)
	}
	return nil
}

// listed takes each item of a list from an encoder, in one piece, and indents it.
type listed struct {
	to      *bufio.Writer
	between string // what comes before the next item
	text    bytes.Buffer
}

func (l *listed) Write(item []byte) (int, error) {
	l.text.Reset()
	if err := json.Indent(&l.text, bytes.TrimSpace(item), "    ", "  "); err != nil {
		return 0, err
	}
	l.to.WriteString(l.between)
	l.between = ",\n    "
	if _, err := l.to.Write(l.text.Bytes()); err != nil {
		return 0, err
	}
	return len(item), nil
}

// indented takes what an encoder writes, in one piece, and makes a document of
// it: each copy of a long one costs as much as to find out what is in it.
type indented struct{ whole []byte }

func (d *indented) Write(body []byte) (int, error) {
	text := bytes.TrimSpace(body)
	if !bytes.HasPrefix(text, []byte("{")) {
		return len(body), nil
	}
	var out bytes.Buffer
	out.Grow(len(text) + len(text)/2)
	head := 0
	if !bytes.HasPrefix(text, []byte(`{"schema":`)) {
		fmt.Fprintf(&out, "{\n  \"schema\": %d", schema)
		if head = out.Len(); string(text) == "{}" {
			out.WriteString("\n}\n")
			d.whole = out.Bytes()
			return len(body), nil
		}
	}
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return 0, err
	}
	out.WriteByte('\n')
	d.whole = out.Bytes()
	if head > 0 {
		d.whole[head] = ',' // where the object began
	}
	return len(body), nil
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
func when(t time.Time) string { return whenAs(t, toSecond) }

// How exactly a time is written.
const (
	toSecond = "2006-01-02 15:04:05"
	toMinute = "2006-01-02 15:04"
	toDay    = "2006-01-02"
)

func whenAs(t time.Time, form string) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(form)
}

// orDash stands in for what is not there.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
