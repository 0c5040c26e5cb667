package release

import (
	"context"
	"errors"
	"io"
	"os"
)

type Config struct{}

const configName = "moult.toml"

func (c *Config) excludes(string) bool                              { return false }
func (r *Release) findConfig(opt Options, own, beside string) error { return nil }
func (r *Release) settle(opt Options) error {
	r.Manifest.Name, r.Manifest.Version, r.Manifest.Times = opt.Name, opt.Version, opt.Times
	return r.Manifest.Check()
}
func openStream(ctx context.Context, name string, in io.Reader, opt Options) (*Release, error) {
	return nil, errors.ErrUnsupported
}
func openFile(ctx context.Context, path string, fi os.FileInfo, opt Options) (*Release, error) {
	return nil, errors.ErrUnsupported
}
