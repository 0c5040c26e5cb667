package deploy

func (p *plan) preflight() error    { p.adopt = p.toAdopt(); return nil }
func (s *state) checkMounts() error { return nil }
