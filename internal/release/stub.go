package release

import (
	"context"
	"errors"
	"io"
	"os"
)

func openStream(ctx context.Context, name string, in io.Reader, opt Options) (*Release, error) {
	return nil, errors.ErrUnsupported
}
func openFile(ctx context.Context, path string, fi os.FileInfo, opt Options) (*Release, error) {
	return nil, errors.ErrUnsupported
}
