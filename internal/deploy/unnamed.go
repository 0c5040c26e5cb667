package deploy

import "moult.example/internal/release"

// warnOther warns, in a shared target, of a release that does not say what it is
// and has no file of what is live. It goes by the target's name, as the first
// that came without one did, so what is live goes; most likely it is another
// product. It is not refused, because a product may be made anew.
func (p *plan) warnOther() {
	if p.s.layout != Shared || p.opts.Name != "" || p.m.Name != "" || p.liveM == nil {
		return
	}
	files := 0
	for e, was := range p.m.Beside(p.liveM) {
		if was == nil || was.Type == release.Dir {
			continue
		}
		if e != nil {
			return
		}
		files++
	}
	if files > 0 {
		p.warn("no file of the live release is in this one, so all of them go (%d): if it is another product, say so with --name, or name in moult.toml, and both stay; moult rollback brings back what has gone", files)
	}
}
