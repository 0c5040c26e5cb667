package deploy

import "moult.example/internal/release"

// LiveRules are what the live release of a product says of how its processes
// are brought to new code.
type LiveRules struct {
	Target  string // the target's path
	Name    string // the product
	Version string
	Rules   []release.RestartRule // their paths are relative to the target
}

// RestartRules returns the rules of every live release of the target; a name
// picks one product. A target that others can write to is refused, since rules
// are commands.
func (t *Target) RestartRules(name string) ([]LiveRules, error) {
	states, err := t.states()
	if err == nil && len(states) > 0 {
		err = t.checkTrust()
	}
	if err != nil {
		return nil, err
	}
	var all []LiveRules
	for _, s := range states {
		if name != "" && s.name != name {
			continue
		}
		n, err := s.live()
		if err != nil {
			return nil, err
		}
		if n == noGeneration {
			continue
		}
		m, err := s.manifest(n)
		if err != nil {
			return nil, err
		}
		if err := t.checkCommands(m); err != nil && len(m.Restart) > 0 {
			return nil, err
		}
		all = append(all, LiveRules{t.path, s.name, m.Version, m.Restart})
	}
	return all, nil
}
