package main

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Who reads on a terminal gets lines that are broken between words where it ends.
// A pipe or a file gets one line a record, however long: programs and grep read
// those.

// narrowest is how many columns a terminal has at least, whatever it says.
const narrowest = 20

// foldTo is a text as it is to be written to w.
func foldTo(w io.Writer, text string) string {
	width := terminalWidth(w)
	if width == 0 {
		return text
	}
	return fold(text, width)
}

// fold breaks each line that is longer than a terminal is wide. What follows is
// set in under the first line: under its second column if it begins with a short
// one of its own, and by two otherwise. A word that is longer than that stays
// whole, so that a path can be copied.
func fold(text string, width int) string {
	width = max(width, narrowest)
	var b strings.Builder
	for line := range strings.Lines(text) {
		line, ended := strings.CutSuffix(line, "\n")
		foldLine(&b, line, width)
		if ended {
			b.WriteByte('\n')
		}
	}
	return b.String()
}

func foldLine(b *strings.Builder, line string, width int) {
	if len(line) <= width || visible(line) <= width {
		b.WriteString(line)
		return
	}
	pieces := pieces(line)
	if len(pieces) == 0 {
		return
	}
	hang := strings.Repeat(" ", hanging(pieces, width))
	column, begun := 0, false // begun: there is a word on the line
	for _, p := range pieces {
		gap := p.gap
		if begun && column+len(gap)+visible(p.word) > width {
			b.WriteByte('\n')
			gap, column = hang, 0
		}
		b.WriteString(gap)
		b.WriteString(p.word)
		column += len(gap) + visible(p.word)
		begun = true
	}
}

// piece is a word, and the blanks before it.
type piece struct{ gap, word string }

func pieces(line string) (all []piece) {
	for {
		text := strings.TrimLeft(line, " ")
		if text == "" {
			return all // blanks at the end do not count
		}
		end := wordEnd(text)
		all = append(all, piece{line[:len(line)-len(text)], text[:end]})
		line = text[end:]
	}
}

// wordEnd is where that ends which is not to be broken: a quoted name, a date with
// its time, a word.
func wordEnd(text string) int {
	end := 0
	switch open := strings.TrimPrefix(text, "("); {
	case strings.HasPrefix(open, `"`):
		end = len(text) - len(open) + quoteEnd(open)
	case isMoment(text):
		end = len(momentForm)
	}
	if n := strings.IndexByte(text[end:], ' '); n >= 0 {
		return end + n
	}
	return len(text)
}

// quoteEnd is where the quotation ends that a text begins with.
func quoteEnd(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// momentForm is how the times of day begin that when writes, a digit for each 0.
const momentForm = "0000-00-00 00:00"

func isMoment(text string) bool {
	if len(text) < len(momentForm) {
		return false
	}
	for i, want := range []byte(momentForm) {
		c := text[i]
		if want == '0' && (c < '0' || c > '9') || want != '0' && c != want {
			return false
		}
	}
	return true
}

// hanging is how far what follows is set in.
func hanging(pieces []piece, width int) int {
	indent := len(pieces[0].gap)
	if len(pieces) > 1 && len(pieces[1].gap) > 1 {
		if column := indent + visible(pieces[0].word) + len(pieces[1].gap); column <= width/3 {
			return column
		}
	}
	if strings.HasPrefix(pieces[0].word, "moult:") {
		return len("moult: ")
	}
	return min(indent+2, width/2)
}

// visible is how many columns a text takes: what changes the colour takes none.
func visible(text string) int {
	n := 0
	for {
		before, style, found := strings.Cut(text, "\x1b[")
		n += utf8.RuneCountInString(before)
		if !found {
			return n
		}
		_, text, _ = strings.Cut(style, "m")
	}
}

// widest is how many columns the longest line of a text takes.
func widest(text string) int {
	most := 0
	for line := range strings.Lines(text) {
		most = max(most, visible(strings.TrimSuffix(line, "\n")))
	}
	return most
}
