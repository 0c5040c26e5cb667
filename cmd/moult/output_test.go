package main

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy"
)

// A list that is printed item by item is the same document as in one piece.
func TestPrintList(t *testing.T) {
	type item struct {
		Text string   `json:"text"`
		More []string `json:"more"`
	}
	type list struct {
		First string `json:"first"`
		Items []item `json:"items"`
		Last  int    `json:"last"`
	}
	one := item{"\n  \"items\": [], <&>", []string{"a", "b"}}
	for _, items := range [][]item{{}, {one}, {one, {"", []string{}}, one}} {
		d := list{First: "\n  \"items\": []", Items: items, Last: 1}
		want, err := document(d)
		if err != nil {
			t.Fatal(err)
		}
		d.Items = []item{}
		var got bytes.Buffer
		a := newApp(nil, &got, &got, nil)
		if err := a.printList(d, "items", func(yield func(any) bool) {
			for _, x := range items {
				if !yield(&x) {
					return
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.Bytes(), want) {
			t.Errorf("got\n%s\nwant\n%s", got.Bytes(), want)
		}
	}
}

// The schema number comes first, once.
func TestDocument(t *testing.T) {
	for _, x := range []struct {
		v    any
		want string
	}{
		{struct{}{}, "{\n  \"schema\": 1\n}\n"},
		{map[string]int{"a": 2}, "{\n  \"schema\": 1,\n  \"a\": 2\n}\n"},
		{struct {
			Schema int `json:"schema"`
		}{3}, "{\n  \"schema\": 3\n}\n"},
	} {
		if got, err := document(x.v); err != nil || string(got) != x.want {
			t.Errorf("%+v: got %q, %v, want %q", x.v, got, err, x.want)
		}
	}
	if got, err := document([]int{1}); err == nil {
		t.Errorf("a list: got %q, want an error", got)
	}
}

// full is a standard output that takes nothing.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, unix.ENOSPC }

// What is done and cannot be said has not the status of what has changed nothing.
func TestResultUnsaid(t *testing.T) {
	a := newApp(nil, full{}, io.Discard, nil)
	for _, c := range []struct {
		unchanged bool
		status    int
	}{{false, statusUnfinished}, {true, statusFailed}} {
		err := a.printResult(deploy.Result{Job: "apply", Unchanged: c.unchanged}, nil)
		if d := diagnose(err); !errors.Is(err, unix.ENOSPC) || d.Status != c.status {
			t.Errorf("unchanged %t: got %v, status %d, want %d", c.unchanged, err, d.Status, c.status)
		}
	}
}
