package deploy

// neighbours are the programs and libraries of the other products in a shared
// target, as the check of each has noted them: they may need a library that this
// release changes. A note that is missing, or makes no sense, is passed over.
func (c *linkCheck) neighbours() (all []loadable) {
	p := c.p
	if p.s.layout != Shared || len(c.names) == 0 {
		return nil
	}
	names, err := p.s.t.names()
	if err != nil {
		return nil
	}
	for _, name := range names {
		if name == p.s.name {
			continue
		}
		s, err := p.s.t.state(name)
		if err != nil {
			continue
		}
		live, err := s.live()
		if err != nil || live == noGeneration {
			continue
		}
		data, err := readBook(s.abs(s.books(genDir(live)) + "/" + linksFile))
		if err != nil {
			continue
		}
		if known, ok := decodeLinks(data); ok {
			all = append(all, known...)
		}
	}
	return all
}
