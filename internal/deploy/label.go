package deploy

import (
	"context"
	"maps"

	"moult.example/internal/deploy/hostfacts"
	"moult.example/internal/disk"
	"moult.example/internal/release"
)

const selinuxLabel = "security.selinux"

// askLabels finds the labels that the policy has for the public paths of what
// is new. A file keeps through every rename the label that it was made with,
// and the policy's rules for names never see those renames: so it gets the
// label for the path where people will find it.
func (p *plan) askLabels(ctx context.Context) error {
	state, err := p.s.t.opts.Facts.SELinuxState()
	if err != nil || !state.Enabled {
		return err
	}
	p.labels = map[string]string{}
	kinds := map[release.Type]hostfacts.LabelKind{
		release.File: hostfacts.LabelFile, release.Dir: hostfacts.LabelDir, release.Symlink: hostfacts.LabelSymlink,
	}
	for typ, kind := range kinds {
		var paths []string
		for i := range p.steps {
			if st := &p.steps[i]; st.e.Type == typ && st.is != "" && (st.act == actCopy || typ == release.Dir) {
				paths = append(paths, p.s.t.abs(st.is))
			}
		}
		labels, err := hostfacts.Labels(ctx, p.s.t.opts.Facts, kind, paths)
		if err != nil {
			return err
		}
		maps.Copy(p.labels, labels)
	}
	return nil
}

// metaOf is what the disk has to set for the new file of a step.
func (p *plan) metaOf(st *step) disk.Meta {
	m := meta(st.e, st.uid, st.gid)
	if label := p.labels[p.s.t.abs(st.is)]; label != "" {
		m.Xattrs = maps.Clone(m.Xattrs)
		if m.Xattrs == nil {
			m.Xattrs = map[string]string{}
		}
		m.Xattrs[selinuxLabel] = label
	}
	return m
}
