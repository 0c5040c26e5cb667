package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// operands checks how many arguments there are that are not flags. Each name
// stands for one, [NAME] for one that may be left out, NAME... for one or more.
func operands(names ...string) cobra.PositionalArgs {
	least, most := 0, 0
	for _, name := range names {
		switch {
		case strings.HasSuffix(name, "..."):
			least++
			most = 1 << 30
		case strings.HasPrefix(name, "["):
			most++
		default:
			least++
			most++
		}
	}
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && len(args) <= most {
			return nil
		}
		return &usageError{
			message: wrongOperands(names, args, most),
			hint:    "usage: " + cmd.UseLine() + "; more with " + cmd.CommandPath() + " --help",
		}
	}
}

// wrongOperands says which operand is missing, or which is too many.
func wrongOperands(names, args []string, most int) string {
	if len(args) > most {
		if most == 0 {
			return fmt.Sprintf("it takes no operands, so %q is one too many", args[0])
		}
		return fmt.Sprintf("%q is one operand too many", args[most])
	}
	var missing []string
	for _, name := range names[len(args):] {
		if !strings.HasPrefix(name, "[") {
			missing = append(missing, "no "+strings.TrimSuffix(name, "..."))
		}
	}
	return strings.Join(missing, " and ") + " is given"
}

// unknownCommand names the command that was meant, if one is near.
func unknownCommand(cmd *cobra.Command, name string) error {
	var names []string
	meant := ""
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
		if slices.Contains(c.SuggestFor, name) {
			meant = c.Name()
		}
	}
	err := &usageError{message: fmt.Sprintf("unknown command %q", name), hint: "moult --help lists the commands"}
	if near := cmp.Or(meant, nearest(name, names)); near != "" {
		err.hint = "did you mean moult " + near + "?"
	}
	return err
}

// flagError makes a usage error of what the flag parser says, and names the
// flag that was meant, if one is near.
func flagError(cmd *cobra.Command, err error) error {
	text, _, isNumber := strings.Cut(err.Error(), "strconv.ParseInt")
	if isNumber {
		text += "want a whole number"
	}
	usage := &usageError{message: text, hint: cmd.CommandPath() + " --help lists the flags"}
	name, isUnknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !isUnknown {
		return usage
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, f.Name)
		}
	})
	if near := nearest(name, names); near != "" {
		usage.hint = "did you mean --" + near + "?"
	}
	return usage
}

// nearest is the one of names that is written most like name, or "" if none is
// within two letters or begins with it.
func nearest(name string, names []string) string {
	best, bestDistance := "", 3
	for _, candidate := range names {
		d := distance(name, candidate)
		if len(name) > 2 && strings.HasPrefix(candidate, name) {
			d = min(d, 1)
		}
		if d < bestDistance && d < len(name) {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// distance is how many letters have to be put in, left out or changed to make b
// of a (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
