package stale

import "context"

// Find finds every process that runs code of a file which is not what it would
// load if it were started now.
func Find(ctx context.Context, o Options) (*Report, error) {
	panic("not built yet")
}
