package deploy

import (
	"strings"

	"moult.example/internal/release"
)

// warnOneTop warns of a release that is packed one directory too deep, as
// "tar -cf r.tar build" makes one: all of it lies below one directory that the
// live release has not, and at least half of the live release would be found
// there. It is not refused, because a release may mean that.
func (p *plan) warnOneTop() {
	if p.liveM == nil || len(p.liveM.Entries) == 0 || len(p.m.Entries) == 0 {
		return
	}
	top, _, _ := strings.Cut(p.m.Entries[0].Path, "/")
	if p.liveM.Find(top) != nil {
		return
	}
	for i := range p.m.Entries {
		if e := &p.m.Entries[i]; e.Path == top && e.Type != release.Dir || e.Path != top && !strings.HasPrefix(e.Path, top+"/") {
			return
		}
	}
	there := 0
	for i := range p.liveM.Entries {
		if p.m.Find(top+"/"+p.liveM.Entries[i].Path) != nil {
			there++
		}
	}
	if 2*there < len(p.liveM.Entries) {
		return
	}
	name := Path(top).Quoted()
	p.warn("all of the release is in %s/, which what is live has not, and %d of its %d names are found in there: was the directory packed, and not what is in it (tar -C %s .)?",
		name, there, len(p.liveM.Entries), name)
}
