package release

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/BurntSushi/toml"
)

// tomlError gives an error of the parser our form, and our words where people
// go wrong most: a value without its quotes, one of another type, a key twice.
func (c *Config) tomlError(text []byte, err error) error {
	var pe toml.ParseError
	if errors.As(err, &pe) {
		return c.at(pe.Position.Line, "%s", syntaxText(pe.Message))
	}
	// A value of the wrong type has its line in the text only.
	var line int
	var key string
	message := strings.TrimPrefix(err.Error(), "toml: ")
	if n, _ := fmt.Sscanf(message, "line %d (last key %q): ", &line, &key); n == 2 {
		_, message, _ = strings.Cut(message, "): ")
	}
	if i, ok := tableOf(text, key, message); ok {
		line = c.lines.find(i, strings.Split(key, ".")...)
	}
	return c.at(line, "%s: %s", key, typeText(key, message))
}

// tableOf finds the first of an array of tables whose key has a value of the
// type that the parser names: its own line is that of the last of them.
func tableOf(text []byte, key, message string) (int, bool) {
	array, key, _ := strings.Cut(key, ".")
	_, got, _ := strings.Cut(message, "TOML value has type ")
	got, _, _ = strings.Cut(got, ";")
	var file map[string]any
	if _, err := toml.Decode(string(text), &file); err != nil {
		return 0, false
	}
	tables, _ := file[array].([]map[string]any)
	for i, table := range tables {
		values := []any{table[key]}
		if list, ok := table[key].([]any); ok {
			values = append(values, list...)
		}
		for _, v := range values {
			if strings.ReplaceAll(fmt.Sprintf("%T", v), "interface {}", "any") == got {
				return i, true
			}
		}
	}
	return 0, false
}

// syntaxText is what the parser says of a text that is not TOML.
func syntaxText(message string) string {
	if value, ok := strings.CutPrefix(message, "expected value but found "); ok {
		value, _ = strings.CutSuffix(value, " instead")
		return value + " is no value: a text has quotes; true, false, numbers and [lists] have none"
	}
	if key, ok := strings.CutPrefix(message, "Key '"); ok {
		if key, ok := strings.CutSuffix(key, "' has already been defined."); ok {
			return key + ": it is there twice"
		}
	}
	return strings.TrimSuffix(message, ".")
}

// typeText is what the parser says of a value of another type than the key has;
// it names the types as Go does.
func typeText(key, message string) string {
	got, want, ok := strings.Cut(message, "; destination has type ")
	got, ok2 := strings.CutPrefix(got, "incompatible types: TOML value has type ")
	if !ok || !ok2 {
		if _, got, ok = strings.Cut(message, ": expected table but found "); !ok {
			return message
		}
		want = "table"
	}
	isTable := strings.HasPrefix(got, "map")
	switch {
	case want == "slice" && isTable:
		want = "[[" + key + "]], with two brackets"
	case want == "slice":
		want = `a list such as ["a", "b"]`
	case want == "string":
		want = "a text in quotes"
	case want == "boolean":
		want = "true or false, without quotes"
	case want == "table":
		want = "a table: [" + key + "]"
	}
	switch {
	case isTable:
		got = "a table"
	case strings.HasPrefix(got, "[]map"):
		got = "tables in two brackets"
	case strings.HasPrefix(got, "[]"):
		got = "a list"
	case got == "string":
		got = "a text"
	case got == "bool":
		got = "true or false"
	case got == "int64", got == "float64":
		got = "a number"
	}
	return fmt.Sprintf("want %s, got %s", want, got)
}

// unknown is the error for a key that into, a struct, has no field for. It names
// the keys that there are in that table.
func (c *Config) unknown(key toml.Key, into any) error {
	t := reflect.TypeOf(into)
	for _, name := range key[:len(key)-1] {
		f, ok := tomlField(t, name)
		if !ok {
			break
		}
		inner := f.Type
		if inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() != reflect.Struct {
			break
		}
		t = inner
	}
	var known []string
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("toml"); name != "" && name != "-" {
			known = append(known, name)
		}
	}
	return c.at(c.lines.find(-1, key...), "%q is not known; there are %s", key.String(), strings.Join(known, ", "))
}

func tomlField(t reflect.Type, name string) (reflect.StructField, bool) {
	return t.FieldByNameFunc(func(field string) bool {
		f, _ := t.FieldByName(field)
		return f.Tag.Get("toml") == name
	})
}
