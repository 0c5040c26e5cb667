package release

import (
	"bytes"
	"errors"
	"strconv"
)

// is compares without making a string of b.
func is(b []byte, s string) bool { return string(b) == s }

var errNumber = errors.New("not a number in its shortest form")

// parseInt reads a decimal number as strconv.AppendInt writes it, and no other.
func parseInt(b []byte) (int64, error) {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil || len(b) == 0 {
		return 0, errNumber
	}
	digits := b
	if b[0] == '-' {
		digits = b[1:]
	}
	if b[0] == '+' || digits[0] == '0' && len(b) > 1 {
		return 0, errNumber
	}
	return n, nil
}

// parseMode reads four octal digits.
func parseMode(b []byte, mode *uint32) bool {
	if len(b) != 4 {
		return false
	}
	for _, c := range b {
		if c < '0' || c > '7' {
			return false
		}
		*mode = *mode<<3 | uint32(c-'0')
	}
	return true
}

// parseHex reads lowercase hexadecimal into dst, which it must fill.
func parseHex(dst, src []byte) bool {
	if len(src) != 2*len(dst) {
		return false
	}
	for i := range dst {
		high, low := hexDigits[src[2*i]], hexDigits[src[2*i+1]]
		if high|low > 0xf {
			return false
		}
		dst[i] = high<<4 | low
	}
	return true
}

// hexDigits are the values of lowercase digits, and 0xff of what is none.
var hexDigits = func() (value [256]byte) {
	for c := range value {
		value[c] = 0xff
	}
	for i, c := range []byte("0123456789abcdef") {
		value[c] = byte(i)
	}
	return value
}()

// unescape undoes appendEscaped, and refuses what that would have written in
// another way.
func unescape(b []byte, inField bool) (string, bool) {
	if plainStart(b, inField) == len(b) {
		return string(b), true
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			out = append(out, b[i])
			continue
		}
		var c [1]byte
		switch {
		case bytes.HasPrefix(b[i:], []byte(`\n`)):
			c[0] = '\n'
			i++
		case bytes.HasPrefix(b[i:], []byte(`\\`)):
			c[0] = '\\'
			i++
		case bytes.HasPrefix(b[i:], []byte(`\x`)) && len(b) >= i+4 && parseHex(c[:], b[i+2:i+4]):
			i += 3
		default:
			return "", false
		}
		out = append(out, c[0])
	}
	s := string(out)
	return s, is(appendEscaped(out[:0:0], s, inField), string(b))
}
