package main

import (
	"os"
	"syscall"
	"testing"
	"time"
)

// What does not answer in time hangs, and is asked again when the child that has
// asked is over: that this one was killed is no answer.
func TestServersAsked(t *testing.T) {
	dir := t.TempDir()
	s := servers{self: dir + "/asks"}
	asks := func(script string) {
		t.Helper()
		if err := os.WriteFile(s.self+".how", []byte(script+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// A process that another test forks meanwhile would hold it open for writing,
	// and nobody could execute it: ETXTBSY.
	syscall.ForkLock.RLock()
	err := os.WriteFile(s.self, []byte("#!/bin/sh\n. \"$0.how\"\n"), 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	asks(`test "$*" = "ps --ask-file-system /mnt" || kill -9 $$; exit 1`)
	if !s.answer("/mnt", time.Hour) {
		t.Error("an error is no answer")
	}
	asks("kill -9 $$")
	if s.answer("/mnt", time.Hour) {
		t.Error("that the child was killed is an answer")
	}
	asks("exec sleep 600")
	for range 2 {
		if s.answer("/mnt", time.Millisecond) {
			t.Error("a file system that hangs answers")
		}
		<-s.hanging["/mnt"] // the child heeds the kill
	}
	over := make(chan struct{})
	s.hanging["/mnt"] = over
	asks("exit 0")
	if s.answer("/mnt", time.Hour) {
		t.Error("it answers, although a child still hangs there")
	}
	close(over)
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
