package linkcheck

import (
	"bufio"
	"bytes"
)

// encodeReport is a report as the index keeps it: every string once, since the
// findings of a host share most of theirs.
func encodeReport(r *Report) []byte {
	var b bytes.Buffer
	e := indexEncoder{w: bufio.NewWriter(&b), words: map[string]uint64{}}
	for _, n := range []int{r.More, r.Programs, r.Libraries, r.Loaded, int(r.References)} {
		e.number(uint64(n))
	}
	e.list(r.Skipped)
	e.number(uint64(len(r.Findings)))
	for i := range r.Findings {
		f := &r.Findings[i]
		for _, s := range f.texts() {
			e.word(*s)
		}
		e.word(string(f.Problem))
		e.word(string(f.Severity))
		e.number(uint64(f.MorePrograms))
		for _, l := range f.lists() {
			e.list(*l)
		}
	}
	e.w.Flush()
	return b.Bytes()
}

func (f *Finding) texts() []*string {
	return []*string{&f.Object, &f.Needs, &f.Found, &f.Symbol, &f.Name, &f.Version, &f.Detail}
}

func (f *Finding) lists() []*[]string { return []*[]string{&f.Programs, &f.Searched, &f.Near} }

// decodeReport reads what encodeReport made; false if it is not that.
func decodeReport(b []byte) (*Report, bool) {
	d := indexDecoder{b: b}
	r := &Report{More: int(d.number()), Programs: int(d.number()), Libraries: int(d.number()), Loaded: int(d.number())}
	r.References = int64(d.number())
	r.Skipped = d.list()
	for range d.count() {
		var f Finding
		for _, s := range f.texts() {
			*s = d.word()
		}
		f.Problem, f.Severity, f.MorePrograms = Problem(d.word()), Severity(d.word()), int(d.number())
		for _, l := range f.lists() {
			*l = d.list()
		}
		r.Findings = append(r.Findings, f)
	}
	return r, !d.bad && len(d.b) == 0
}

// word writes a string in full the first time, and its number from then on.
func (e *indexEncoder) word(s string) {
	if n, ok := e.words[s]; ok {
		e.number(n)
		return
	}
	e.words[s] = uint64(len(e.words) + 1)
	e.number(0)
	e.text(s)
}

func (e *indexEncoder) list(all []string) {
	e.number(uint64(len(all)))
	for _, s := range all {
		e.word(s)
	}
}

func (d *indexDecoder) word() string {
	n := d.number()
	if n == 0 {
		s := d.text()
		d.words = append(d.words, s)
		return s
	}
	if n > uint64(len(d.words)) {
		d.bad, d.b = true, nil
		return ""
	}
	return d.words[n-1]
}

func (d *indexDecoder) list() []string {
	n := d.count()
	if n == 0 {
		return nil
	}
	all := make([]string, n)
	for i := range all {
		all[i] = d.word()
	}
	return all
}
