package hostfacts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// SELinux is the state of SELinux on this host.
type SELinux struct {
	Enabled   bool // there is a policy, and files have labels
	Enforcing bool // it refuses; else it only reports
}

// SELinuxState says whether SELinux is on, in the way of libselinux: its file
// system is mounted, and not read-only, as it is in containers that are to
// take SELinux for off.
func (o Options) SELinuxState() (SELinux, error) {
	name := o.path("/sys/fs/selinux/enforce")
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return SELinux{}, nil
	}
	if err != nil {
		return SELinux{}, err
	}
	if o.Root == "" {
		st, err := statfs(name)
		if err != nil {
			return SELinux{}, err
		}
		if uint32(st.Type) != unix.SELINUX_MAGIC || st.Flags&unix.ST_RDONLY != 0 {
			return SELinux{}, nil
		}
	}
	return SELinux{Enabled: true, Enforcing: strings.TrimSpace(string(text)) == "1"}, nil
}

// LabelKind is the type of file that a label is asked for.
type LabelKind string

// The kinds of file that the policy tells apart, as matchpathcon(8) calls them.
const (
	LabelFile    LabelKind = "file"
	LabelDir     LabelKind = "dir"
	LabelSymlink LabelKind = "link"
)

// Labels returns the label that the policy has for files at these absolute
// paths, which need not exist yet. A path for which it has none is not in the
// result. Where SELinux is off the result is empty.
func Labels(ctx context.Context, o Options, kind LabelKind, paths []string) (map[string]string, error) {
	labels := map[string]string{}
	state, err := o.SELinuxState()
	if err != nil || !state.Enabled {
		return labels, err
	}
	for _, batch := range batches(paths) {
		out, messages, err := o.run(ctx, "matchpathcon", append([]string{"-n", "-m", string(kind), "--"}, batch...)...)
		if err != nil {
			return nil, said("matchpathcon", messages, err)
		}
		// One line for each path and in their order; without -n a path with
		// a newline would break it in two.
		lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		if len(lines) != len(batch) {
			return nil, said("matchpathcon", messages, fmt.Errorf("%d labels for %d paths", len(lines), len(batch)))
		}
		for i, label := range lines {
			if label != "" && label != "<<none>>" {
				labels[batch[i]] = label
			}
		}
	}
	return labels, nil
}
