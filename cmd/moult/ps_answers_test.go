package main

import (
	"testing"
	"time"
)

// A path that is still being asked is not asked again.
func TestServersAsked(t *testing.T) {
	asked := make(chan struct{})
	s := servers{hanging: map[string]<-chan struct{}{"/mnt": asked}}
	for range 2 {
		if s.answer("/mnt", time.Millisecond) {
			t.Error("a file system that hangs answers")
		}
	}
	close(asked)
	if !s.answer("/mnt", time.Hour) || len(s.hanging) != 0 {
		t.Errorf("it does not answer, or is remembered: %v", s.hanging)
	}
}

// The child ends with an answer, whatever it is.
func TestAskFileSystem(t *testing.T) {
	if err := askFileSystem("/"); err != nil {
		t.Errorf("asked for /: %v", err)
	}
	if err := askFileSystem("/nowhere/at/all"); err == nil {
		t.Error("what is not there has answered")
	}
}
