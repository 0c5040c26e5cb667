// Command selfupdate is an ordinary program that replaces itself: no server, no
// service. It runs on Linux, macOS and Windows.
//
//	selfupdate version              say which version this is
//	selfupdate update FILE SHA256   become FILE, if it has that digest
//	selfupdate work DIR             work; become DIR/new when there is one
package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"moult.example/reexec"
)

// version is set by the build: -ldflags "-X main.version=2".
var version = "1"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "selfupdate:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if version == "broken" {
		return errors.New("this version does not work") // for the test of the way back
	}
	// Whoever has relaunched this program may go; what is left of it goes too.
	reexec.Launched()
	switch {
	case len(args) == 1 && args[0] == "version":
		fmt.Println(version)
		return nil
	case len(args) == 3 && args[0] == "update":
		return update(args[1], args[2])
	case len(args) == 2 && args[0] == "work":
		return work(args[1])
	}
	return errors.New("usage: selfupdate version | update FILE SHA256 | work DIR")
}

// update replaces this program's file. The digest is of what will run, not of
// what was downloaded: nobody can exchange the one for the other in between.
func update(file, digest string) error {
	return reexec.ReplaceWith(file, reexec.ReplaceOptions{Verify: func(copy string) error {
		f, err := os.Open(copy)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != digest {
			return fmt.Errorf("its digest is %s, not %s", got, digest)
		}
		return nil
	}})
}

// work goes on until there is DIR/stop. When there is DIR/new it becomes that.
func work(dir string) error {
	note(dir, "works")
	for {
		time.Sleep(20 * time.Millisecond)
		if _, err := os.Stat(filepath.Join(dir, "stop")); err == nil {
			note(dir, "stops")
			return nil
		}
		new := filepath.Join(dir, "new")
		if _, err := os.Stat(new); err != nil {
			continue
		}
		err := reexec.Replace(new)
		if err == nil {
			note(dir, "is replaced")
			os.Remove(new)
			if err = reexec.Relaunch(reexec.RelaunchOptions{}); err == nil {
				note(dir, "ends") // only on Windows: the new version works
				return nil
			}
		}
		os.Remove(new)
		note(dir, "goes on: "+err.Error())
	}
}

// note writes a line to DIR/log.
func note(dir, what string) {
	f, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintf(f, "%s %s (%d)\n", version, what, os.Getpid())
}
