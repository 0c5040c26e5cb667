package deploy

import (
	"fmt"
	"strings"

	"moult.example/internal/release"
)

// choose finds the books of the product that a release is of, or says what they
// would be.
func (t *Target) choose(rel *release.Release, o ApplyOptions) (*state, error) {
	layout, err := t.readLayout()
	if err != nil {
		return nil, err
	}
	name := o.Name
	if name == "" {
		name = rel.Manifest.Name
	}
	if name != "" && !cleanName(name) {
		return nil, refuse("", fmt.Sprintf("%q cannot be the name of a product", name), "letters, digits and . _ + -, not first a dot")
	}
	if layout == "" {
		if layout, err = t.firstLayout(o); err != nil {
			return nil, err
		}
	} else if o.Layout != "" && o.Layout != layout {
		return nil, refuse("", fmt.Sprintf("%s has the layout %s already", t.path, layout), "moult forget it first, then apply with the other layout")
	} else if o.Adopt && layout == Shared {
		return nil, refuse("", t.path+" is a shared target of moult's already", "moult forget it first, then apply --adopt")
	}
	if layout == Owned {
		s := &state{t: t, layout: Owned, dir: dotMoult, name: name}
		return s, t.checkOwnedName(s)
	}
	if name, err = t.sharedName(name); err != nil {
		return nil, err
	}
	return &state{t: t, layout: Shared, name: name, dir: dotMoult + "/" + name}, nil
}

// firstLayout decides for a target that has none yet.
func (t *Target) firstLayout(o ApplyOptions) (Layout, error) {
	strangers, err := t.strangers()
	if err != nil {
		return "", err
	}
	switch {
	case t.path == "/" && o.Layout == "":
		return "", refuse("", "the target is the root directory", "if it is meant, --layout shared; it will hold what the release has, beside all else")
	case o.Layout == Shared && o.Adopt:
		return "", refuse("", "only an owned target adopts", "drop --adopt or --layout shared")
	case o.Layout != "" || len(strangers) > 0 && !o.Adopt:
		if o.Layout == Owned {
			return Owned, nil
		}
		return Shared, nil
	}
	return Owned, nil
}

func (t *Target) checkOwnedName(s *state) error {
	live, err := s.live()
	if err != nil || live == noGeneration {
		if s.name == "" {
			s.name = t.defaultName()
		}
		return err
	}
	info, err := s.info(live)
	if err != nil {
		return err
	}
	if s.name == "" {
		s.name = info.Name
	}
	if info.Name != "" && s.name != info.Name {
		return refuse("", fmt.Sprintf("%s holds %s, not %s: an owned target is for one product", Path(t.path).Quoted(), info.Name, s.name),
			"give the other product its own directory, or say --name "+info.Name)
	}
	return nil
}

// sharedName is the product's name in a shared target: a release that does not
// say may only go where there is no doubt.
func (t *Target) sharedName(name string) (string, error) {
	if name != "" {
		return name, nil
	}
	names, _ := t.names()
	switch fallback := t.defaultName(); {
	case len(names) == 0 || len(names) == 1 && names[0] == fallback:
		return fallback, nil
	default:
		return "", refuse("", fmt.Sprintf("%s holds %s, and this release does not say what it is", Path(t.path).Quoted(), strings.Join(names, ", ")),
			"say it with --name, or name in moult.toml")
	}
}

// defaultName is what a product is called if nobody says: as its target.
func (t *Target) defaultName() string {
	name := []byte("")
	base := t.path[len(parentOf(t.path)):]
	for _, c := range []byte(base) {
		if cleanName("x" + string(c)) {
			name = append(name, c)
		}
	}
	if !cleanName(string(name)) {
		return "default"
	}
	return string(name)
}
