package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// Rules of a release (restarts, plugins) are a line of JSON in its manifest.

// ruleError says where in moult.toml a rule is wrong: the table's i-th, and in
// which key, if it is one.
func (c *Config) ruleError(table string, i int, key string, err error) error {
	if key == "" {
		return c.at(c.lines.find(i, table), "%s: %w", table, err)
	}
	return c.at(c.lines.find(i, table, key), "%s: %w", key, err)
}

// encodeRules writes rules as one line of JSON; "" for none. There is one way to
// write them.
func encodeRules[R any](rules []R) string {
	if len(rules) == 0 {
		return ""
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(rules); err != nil {
		return "" // texts and truth values can always be written
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// decodeRules reads what encodeRules wrote, and no other form.
func decodeRules[R any](text string) (rules []R, err error) {
	if len(text) > maxRuleBytes {
		return nil, fmt.Errorf("%d bytes are more than the %d that rules can have", len(text), maxRuleBytes)
	}
	dec := json.NewDecoder(strings.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&rules); err != nil {
		return nil, err
	}
	if len(rules) == 0 || encodeRules(rules) != text {
		return nil, errors.New("the rules are not written as they should be")
	}
	return rules, nil
}
