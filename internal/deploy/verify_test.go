package deploy

import (
	"context"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// meanwhile is a context that does something when it is first asked, which is
// when the files are about to be read.
type meanwhile struct {
	context.Context
	do func()
}

func (m meanwhile) Done() <-chan struct{} {
	m.do()
	return m.Context.Done()
}

// A commit that passes while the live release is read is no damage.
func TestVerifyWhileCommitted(t *testing.T) {
	for _, layout := range []Layout{Owned, Shared} {
		t.Run(string(layout), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "app")
			target := open(t, dir)
			apply(t, target, v2, ApplyOptions{Layout: layout})
			ctx := meanwhile{context.Background(), sync.OnceFunc(func() {
				apply(t, open(t, dir), v1, ApplyOptions{}) // which has a name less at the top
			})}
			v, err := target.Verify(ctx, "")
			must(t, err)
			if v.Generation != 2 || len(v.Damage) > 0 {
				t.Errorf("got %+v, want generation 2 without damage", v)
			}
		})
	}
}

// A file that is not as released is told of although commits pass.
func TestVerifyDamageWhileCommitted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "local")
	target := open(t, dir)
	apply(t, target, v1, ApplyOptions{Layout: Shared})
	ctx := meanwhile{context.Background(), sync.OnceFunc(func() {
		apply(t, open(t, dir), v2, ApplyOptions{})
		tree{"bin/tool": "0755:broken"}.write(t, dir)
	})}
	v, err := target.Verify(ctx, "")
	must(t, err)
	if !slices.ContainsFunc(v.Damage, func(p Problem) bool { return p.Path == "bin/tool" }) {
		t.Errorf("got %+v, want bin/tool to be damaged", v)
	}
}
