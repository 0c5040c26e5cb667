//go:build !man

package main

import "github.com/spf13/cobra"

// manCommands is none: see man.go.
func manCommands(*app) []*cobra.Command { return nil }
