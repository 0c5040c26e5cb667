package deploy

import (
	"path/filepath"
	"strings"

	"moult.example/internal/linkcheck"
)

// wasBefore says for each finding of after whether before has it too, no milder.
// It is the same if the file is: two programs of one name are two. A file that
// was not there before may be one that was moved, so there the name decides.
func wasBefore(before, after *linkcheck.Report) []bool {
	exact, named := map[string]linkcheck.Severity{}, map[string]linkcheck.Severity{}
	note := func(m map[string]linkcheck.Severity, key string, s linkcheck.Severity) {
		if was, ok := m[key]; !ok || worse(s, was) {
			m[key] = s
		}
	}
	for i := range before.Findings {
		f := &before.Findings[i]
		note(exact, findingKey(f, f.Object), f.Severity)
		note(named, findingKey(f, filepath.Base(f.Object)), f.Severity)
	}
	was := make([]bool, len(after.Findings))
	for i := range after.Findings {
		f := &after.Findings[i]
		s, ok := exact[findingKey(f, f.Object)]
		if !ok && !exists(f.Object) {
			s, ok = named[findingKey(f, filepath.Base(f.Object))]
		}
		was[i] = ok && !worse(f.Severity, s)
	}
	return was
}

func findingKey(f *linkcheck.Finding, object string) string {
	key := []string{string(f.Problem), object, filepath.Base(f.Needs), f.Symbol, f.Version}
	if f.Symbol == "" && f.Needs == "" {
		key = append(key, f.Detail)
	}
	return strings.Join(key, "\x00")
}

func worse(a, b linkcheck.Severity) bool {
	return a != b && (a == linkcheck.Break || b == linkcheck.Note)
}
