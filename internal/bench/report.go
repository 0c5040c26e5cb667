package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Report is all that was measured.
type Report struct {
	Schema   int               `json:"schema"`
	Host     Host              `json:"host"`
	Versions map[string]string `json:"versions"`
	Scale    float64           `json:"scale"`
	Rounds   int               `json:"rounds"`
	Seconds  float64           `json:"seconds"` // that all of it took
	Sections []Section         `json:"sections"`
}

// Section is one job: those who did it, and what moult is held to.
type Section struct {
	Name    string  `json:"name"`
	Title   string  `json:"title"`
	Method  string  `json:"method,omitempty"` // how, where that is not plain
	Unit    string  `json:"unit"`             // of the values: "of rsync -a", "ms"
	Rows    []Row   `json:"rows"`
	Checks  []Check `json:"checks"`
	Skipped []Skip  `json:"skipped,omitempty"`
}

// Row is one who did the job.
type Row struct {
	Name    string   `json:"name"`
	Value   float64  `json:"value"`
	Note    string   `json:"note,omitempty"`
	Samples []Sample `json:"samples,omitempty"`
}

// Sample is one run.
type Sample struct {
	Seconds float64 `json:"seconds"`
	User    float64 `json:"user_seconds"`
	System  float64 `json:"system_seconds"`
	RSS     int64   `json:"max_rss_bytes"`
}

// Check is one target.
type Check struct {
	What   string  `json:"what"`
	Value  float64 `json:"value"`
	AtMost float64 `json:"at_most"`
	Unit   string  `json:"unit"`
	Met    bool    `json:"met"`
}

// Skip is one that could not be measured here.
type Skip struct {
	Name string `json:"name"`
	Why  string `json:"why"`
}

// check holds a value to a target.
func (s *Section) check(what string, value, atMost float64, unit string) {
	s.Checks = append(s.Checks, Check{what, value, atMost, unit, value <= atMost})
}

func (s *Section) skip(name, why string) { s.Skipped = append(s.Skipped, Skip{name, why}) }

// compare makes rows of entrants, whose values are their times in proportion to
// that of the first one that is called reference.
func (s *Section) compare(reference string, entrants ...*entrant) {
	ref := wallOf(reference, entrants)
	s.Unit = "of " + reference
	for _, e := range entrants {
		if e.failed != nil {
			s.skip(e.name, e.failed.Error())
			continue
		}
		row := Row{Name: e.name, Samples: samplesOf(e.samples)}
		if ref > 0 {
			row.Value = float64(e.wall()) / float64(ref)
		}
		s.Rows = append(s.Rows, row)
	}
}

// hold checks the time of one entrant in proportion to that of another.
func (s *Section) hold(name, reference string, atMost float64, entrants ...*entrant) {
	mine, ref := wallOf(name, entrants), wallOf(reference, entrants)
	if mine > 0 && ref > 0 {
		s.check(name, float64(mine)/float64(ref), atMost, "of "+reference)
	}
}

func wallOf(name string, entrants []*entrant) time.Duration {
	for _, e := range entrants {
		if e.name == name && e.failed == nil {
			return e.wall()
		}
	}
	return 0
}

func samplesOf(all []usage) []Sample {
	var samples []Sample
	for _, u := range all {
		samples = append(samples, Sample{u.wall.Seconds(), u.user.Seconds(), u.system.Seconds(), u.rss})
	}
	return samples
}

func (r *Report) writeJSON(w io.Writer, _ options) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func (r *Report) writeText(w io.Writer, o options) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s; %d processors; %s\n", r.Host.Kernel, r.Host.CPUs, r.Host.FileSystem)
	var versions []string
	for name, v := range r.Versions {
		versions = append(versions, name+" ("+v+")")
	}
	slices.Sort(versions)
	fmt.Fprintf(&b, "%s\n", strings.Join(versions, "; "))
	if r.Host.Warning != "" {
		fmt.Fprintf(&b, "WARNING: %s\n", r.Host.Warning)
	}
	if r.Scale != 1 {
		fmt.Fprintf(&b, "WARNING: at scale %g these are not the figures of the targets\n", r.Scale)
	}
	met, all := 0, 0
	for i := range r.Sections {
		r.Sections[i].writeText(&b, o)
		for _, c := range r.Sections[i].Checks {
			all++
			if c.Met {
				met++
			}
		}
	}
	fmt.Fprintf(&b, "\n%d of %d targets met; it took %.0f s\n", met, all, r.Seconds)
	_, err := io.WriteString(w, b.String())
	return err
}

func (s *Section) writeText(b *strings.Builder, o options) {
	fmt.Fprintf(b, "\n%s: %s\n", s.Name, s.Title)
	if s.Method != "" {
		fmt.Fprintf(b, "  (%s)\n", s.Method)
	}
	for _, row := range s.Rows {
		line := fmt.Sprintf("  %-36s %8s %s", row.Name, number(row.Value), s.Unit)
		if row.Note != "" {
			line += "; " + row.Note
		}
		fmt.Fprintln(b, line)
		if o.seconds && len(row.Samples) > 0 {
			fmt.Fprintln(b, "      "+row.seconds())
		}
	}
	for _, c := range s.Checks {
		mark := "met    "
		if !c.Met {
			mark = "NOT MET"
		}
		fmt.Fprintf(b, "  %s  %s: %s, at most %s %s\n", mark, c.What, c.value(), number(c.AtMost), c.Unit)
	}
	for _, skip := range s.Skipped {
		fmt.Fprintf(b, "  skipped  %s: %s\n", skip.Name, skip.Why)
	}
}

// seconds is the context of a row: what it took on this machine.
func (r *Row) seconds() string {
	value := func(f func(Sample) float64) float64 { return median(r.Samples, f) }
	wall := func(s Sample) float64 { return s.Seconds }
	least := slices.MinFunc(r.Samples, bySeconds).Seconds
	most := slices.MaxFunc(r.Samples, bySeconds).Seconds
	return fmt.Sprintf("%.3f s (%.3f to %.3f, %d runs), user %.3f, system %.3f, %.0f MB",
		value(wall), least, most, len(r.Samples),
		value(func(s Sample) float64 { return s.User }), value(func(s Sample) float64 { return s.System }),
		value(func(s Sample) float64 { return float64(s.RSS) / 1e6 }))
}

func bySeconds(a, b Sample) int {
	switch {
	case a.Seconds < b.Seconds:
		return -1
	case a.Seconds > b.Seconds:
		return 1
	}
	return 0
}

// value is the number, in as many digits as tell it from the target.
func (c *Check) value() string {
	if text := number(c.Value); c.Met || text != number(c.AtMost) {
		return text
	}
	return fmt.Sprintf("%.4g", c.Value)
}

// number has two digits after the point, or none if it is great.
func number(v float64) string {
	if v >= 99.5 || v == float64(int(v)) && v >= 10 {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
