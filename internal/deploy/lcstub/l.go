package lcstub

import "io"

type Info struct {
	ELF, Program bool
	Soname       string
	Needed       []string
}

func Needs(r io.ReaderAt, size int64) (Info, error) { return Info{}, nil }
