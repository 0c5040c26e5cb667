package main

import (
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// buildVersion is set by the Makefile, from git.
var buildVersion string

// version is what this moult calls itself: the Makefile's word, else the
// module's, else "devel".
func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "devel"
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:         "version",
		Short:       "print the version",
		Long:        "Print the version of moult, and what it was built for and with.",
		Example:     "  moult version\n  moult version --json",
		Annotations: exits(),
		Args:        operands(),
		RunE: func(*cobra.Command, []string) error {
			v := struct {
				Version string `json:"version"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
				Go      string `json:"go"`
			}{version(), runtime.GOOS, runtime.GOARCH, runtime.Version()}
			return a.print(v, func(w io.Writer) {
				fmt.Fprintf(w, "moult %s (%s/%s, %s)\n", v.Version, v.OS, v.Arch, v.Go)
			})
		},
	}
}
