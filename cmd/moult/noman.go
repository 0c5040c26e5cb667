//go:build !man

package main

// manCommands is none: see man.go.
func manCommands() []command { return nil }
