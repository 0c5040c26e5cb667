package release

import "testing"

// TestConfigErrorText: what people get wrong in a moult.toml is answered in
// words of the file, not of the parser.
func TestConfigErrorText(t *testing.T) {
	for text, want := range map[string]string{
		"name = app":        `1: "app" is no value: a text has quotes; true, false, numbers and [lists] have none`,
		"times = yes":       `1: "yes" is no value: a text has quotes; true, false, numbers and [lists] have none`,
		"version = 1.2":     `1: version: want a text in quotes, got a number`,
		"version = true":    `1: version: want a text in quotes, got true or false`,
		"times = 'true'":    `1: times: want true or false, without quotes, got a text`,
		"exclude = '**/*'":  `1: exclude: want a list such as ["a", "b"], got a text`,
		"exclude = [1]":     `1: exclude: want a text in quotes, got a number`,
		"hooks = 'true'":    `1: hooks: want a table: [hooks], got a text`,
		"[[hooks]]":         `1: hooks: want a table: [hooks], got tables in two brackets`,
		"[hooks]\nafter=[]": `2: hooks.after: want a text in quotes, got a list`,
		"[file]\nmatch='a'": `1: file: want [[file]], with two brackets, got a table`,
		"file = 'a'":        `1: file: want a list such as ["a", "b"], got a text`,

		"[[file]]\nmatch='a'\nmode = 755":     `3: file.mode: want a text in quotes, got a number`,
		"[[restart]]\nunit='a'\nrun = 'true'": `3: restart.run: want a list such as ["a", "b"], got a text`,
		"name = 'a'\nname = 'b'":              `2: name: it is there twice`,
		"[hooks]\n[hooks]":                    `2: hooks: it is there twice`,

		"nam = 'a'":             `1: "nam" is not known; there are name, version, times, exclude, owner, group, file, hooks, restart, plugin`,
		"[[files]]\nmatch='a'":  `1: "files" is not known; there are name, version, times, exclude, owner, group, file, hooks, restart, plugin`,
		"[hooks]\nbefor = 'a'":  `2: "hooks.befor" is not known; there are before, after, timeout`,
		"[hooks.x]\ny = 1":      `1: "hooks.x" is not known; there are before, after, timeout`,
		"[[file]]\nname = 'a'":  `2: "file.name" is not known; there are match, owner, group, mode, caps, keep`,
		"[x.y.z]\na = 1\nb = 2": `1: "x.y.z" is not known; there are name, version, times, exclude, owner, group, file, hooks, restart, plugin`,

		"[[file]]\nmatch='a'\nmode=755\n[[file]]\nmatch='b'\nmode='0755'": `3: file.mode: want a text in quotes, got a number`,
		"[[file]]\nmatch='a'\nmode='755'\n[[file]]\nmatch='b'\nmode=755":  `6: file.mode: want a text in quotes, got a number`,
		"[[restart]]\nrun=[1]\n[[restart]]\nrun=['a']":                    `2: restart.run: want a text in quotes, got a number`,
	} {
		if _, err := parseConfig("m.toml", []byte(text)); err == nil || err.Error() != "m.toml:"+want {
			t.Errorf("%q:\ngot  %v\nwant m.toml:%s", text, err, want)
		}
	}
	want := "f.toml:1: \"hooks\" is not known; there are restart"
	if _, err := ParseRestart("f.toml", []byte("[hooks]\nafter='a'")); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
