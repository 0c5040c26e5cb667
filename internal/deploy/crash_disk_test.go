package deploy

import (
	"path"

	"moult.example/internal/disk"
)

// renamed is a disk whose names are below a directory of another one.
type renamed struct {
	disk.FS
	below string
}

func (r renamed) at(name string) string { return path.Join(r.below, name) }

func (r renamed) Create(name string) (disk.File, error) { return r.FS.Create(r.at(name)) }
func (r renamed) Append(name string, data []byte) error { return r.FS.Append(r.at(name), data) }
func (r renamed) Mkdir(name string) error               { return r.FS.Mkdir(r.at(name)) }
func (r renamed) Symlink(text, name string) error       { return r.FS.Symlink(text, r.at(name)) }
func (r renamed) Link(oldname, newname string) error    { return r.FS.Link(r.at(oldname), r.at(newname)) }
func (r renamed) Rename(oldname, newname string) error {
	return r.FS.Rename(r.at(oldname), r.at(newname))
}
func (r renamed) Place(oldname, newname string) error {
	return r.FS.Place(r.at(oldname), r.at(newname))
}
func (r renamed) Exchange(a, b string) error             { return r.FS.Exchange(r.at(a), r.at(b)) }
func (r renamed) Remove(name string) error               { return r.FS.Remove(r.at(name)) }
func (r renamed) SetMeta(name string, m disk.Meta) error { return r.FS.SetMeta(r.at(name), m) }
func (r renamed) SyncDir(name string) error              { return r.FS.SyncDir(r.at(name)) }
