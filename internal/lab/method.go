package lab

import "strings"

// method is one way to replace a file.
type method struct {
	name  string   // as --explain takes it
	title string   // as the table shows it
	needs []string // programs that must be here

	// one replaces the file $2 by the file $1, set the whole of the tree $2
	// by the tree $1: each is what a careful person would type, libraries
	// before programs where the tool lets one choose. "" is not a way to do
	// that. Both run by sh -eu; $MOULT is moult's path.
	one string
	set string

	small  bool   // the new file has fewer pages than the old one
	empty  bool   // it leaves no program or library at all, so no launches
	layout string // of moult apply, which takes trees; "" for all others
	probe  string // moult's subcommand that must be there
}

// each is the loop of the methods that take one file at a time. "$1" and "$2"
// are trees.
func each(body string) string {
	return `cd "$1"; for f in lib/* bin/*; do ` + body + `; done`
}

var methods = []method{
	{
		name: "cp", title: "cp", needs: []string{"cp"},
		one: `cp "$1" "$2"`,
		set: `cp "$1"/lib/* "$2/lib"; cp "$1"/bin/* "$2/bin"`,
	},
	{
		name: "cp-smaller", title: "cp, smaller file", needs: []string{"cp"}, small: true,
		one: `cp "$1" "$2"`,
	},
	{
		name: "echo", title: "echo >", empty: true,
		one: `echo > "$2"`,
	},
	{
		name: "rm-cp", title: "rm + cp", needs: []string{"rm", "cp"},
		one: `rm -f "$2"; cp "$1" "$2"`,
		set: each(`rm -f "$2/$f"; cp "$f" "$2/$f"`),
	},
	{
		name: "mv-aside", title: "mv aside + cp", needs: []string{"mv", "cp"},
		one: `mv "$2" "$2.old"; cp "$1" "$2"`,
		set: each(`mv -f "$2/$f" "$2/../aside/${f#*/}"; cp "$f" "$2/$f"`),
	},
	{
		name: "mv", title: "mv over", needs: []string{"mv", "cp"},
		one: `cp "$1" "$2.new"; mv -f "$2.new" "$2"`,
		set: each(`cp "$f" "$2/$f.new"`) + `; ` + each(`mv -f "$2/$f.new" "$2/$f"`),
	},
	{
		name: "install", title: "install", needs: []string{"install"},
		one: `install "$1" "$2"`,
		set: `install -t "$2/lib" "$1"/lib/*; install -t "$2/bin" "$1"/bin/*`,
	},
	{
		name: "ln", title: "ln -f", needs: []string{"ln"},
		one: `ln -f "$1" "$2"`,
		set: `ln -f -t "$2/lib" "$1"/lib/*; ln -f -t "$2/bin" "$1"/bin/*`,
	},
	{
		name: "rsync", title: "rsync", needs: []string{"rsync"},
		one: `rsync -a "$1" "$2"`,
		set: `rsync -a "$1/" "$2/"`,
	},
	{
		name: "rsync-inplace", title: "rsync --inplace", needs: []string{"rsync"},
		one: `rsync -a --inplace "$1" "$2"`,
		set: `rsync -a --inplace "$1/" "$2/"`,
	},
	{
		name: "rsync-delay-updates", title: "rsync --delay-updates", needs: []string{"rsync"},
		one: `rsync -a --delay-updates "$1" "$2"`,
		set: `rsync -a --delay-updates "$1/" "$2/"`,
	},
	{
		name: "moult-install", title: "moult install", needs: []string{"moult"}, probe: "install",
		one: `"$MOULT" install "$1" "$2"`,
		set: `"$MOULT" install -t "$2/lib" "$1"/lib/*; "$MOULT" install -t "$2/bin" "$1"/bin/*`,
	},
	{
		name: "moult-install-keep", title: "moult install --keep", needs: []string{"moult"}, probe: "install",
		one: `"$MOULT" install --keep "$1" "$2"`,
		set: `"$MOULT" install --keep -t "$2/lib" "$1"/lib/*; "$MOULT" install --keep -t "$2/bin" "$1"/bin/*`,
	},
	{
		name: "moult-apply-shared", title: "moult apply, shared", needs: []string{"moult"}, probe: "apply",
		set: `"$MOULT" apply "$1" "$2"`, layout: "shared",
	},
	{
		name: "moult-apply-owned", title: "moult apply, owned", needs: []string{"moult"}, probe: "apply",
		set: `"$MOULT" apply "$1" "$2"`, layout: "owned",
	},
}

// Names are the names of all methods, in the order of the report.
func Names() []string {
	var names []string
	for _, m := range methods {
		names = append(names, m.name)
	}
	return names
}

// find takes a name, or a title as the table shows it; nil if there is none.
func find(name string) *method {
	for i := range methods {
		if methods[i].name == name || methods[i].title == name {
			return &methods[i]
		}
	}
	return nil
}

// people is the command for one file, or for a release, as one reads it.
func (m *method) people() string {
	command := m.one
	if m.layout != "" {
		command = m.set
		return strings.NewReplacer(`"$MOULT"`, "moult", `"$1"`, "RELEASE", `"$2"`, "TARGET").Replace(command)
	}
	return strings.NewReplacer(`"$MOULT"`, "moult", `"$1"`, "NEW", `"$2"`, "FILE",
		`"$2.new"`, "FILE.new", `"$2.old"`, "FILE.old").Replace(command)
}
