//go:build !faults

package main

import "moult.example/internal/disk"

// faultyDisk is nothing in a moult that is for use: the disk is the real one.
func faultyDisk(*app) func(path string) (disk.FS, error) { return nil }
