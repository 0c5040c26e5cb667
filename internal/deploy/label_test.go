package deploy

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"moult.example/internal/deploy/hostfacts"
	"moult.example/internal/testneed"
)

// TestLabels: a new file has the label that the policy has for its public path,
// in both layouts, although it is made under another name. The policy is the
// test's own; the labels are real attributes.
func TestLabels(t *testing.T) {
	testneed.Root(t)
	for _, layout := range []Layout{Owned, Shared} {
		t.Run(string(layout), func(t *testing.T) {
			top := t.TempDir()
			tree{"root/sys/fs/selinux/enforce": "1"}.write(t, top)
			dir := filepath.Join(top, "app")
			policy := func(_ context.Context, name string, args ...string) (stdout, stderr []byte, err error) {
				for _, path := range args[slices.Index(args, "--")+1:] {
					stdout = append(stdout, "system_u:object_r:"+filepath.Base(path)+"_t:s0\n"...)
				}
				return stdout, nil, nil
			}
			target := open(t, dir, func(o *Options) { o.Facts = hostfacts.Options{Root: top + "/root", Run: policy} })
			apply(t, target, v1, ApplyOptions{Layout: layout})
			for _, name := range []string{"bin/tool", "lib/libx.so.1.0", "lib/libx.so.1", "share/same"} {
				value := make([]byte, 256)
				path := filepath.Join(dir, name)
				if layout == Owned {
					path = filepath.Join(dir, ".moult/live", name)
				}
				n, err := unix.Lgetxattr(path, selinuxLabel, value)
				if want := "system_u:object_r:" + filepath.Base(name) + "_t:s0"; err != nil || strings.TrimRight(string(value[:max(n, 0)]), "\x00") != want {
					t.Errorf("%s: got %q, %v, want %q", name, value[:max(n, 0)], err, want)
				}
			}
		})
	}
}
