//go:build faults

package main

import (
	"moult.example/internal/disk"
	"moult.example/internal/disk/disktest"
)

// faultyDisk lets the environment fail or kill moult at a chosen operation, for
// the tests that need the whole program: see [disktest.FromEnv].
func faultyDisk(*app) func(path string) (disk.FS, error) {
	return func(path string) (disk.FS, error) {
		fsys, err := disk.Open(path)
		if err != nil {
			return nil, err
		}
		return disktest.FromEnv(fsys)
	}
}
