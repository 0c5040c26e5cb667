package main

import (
	"time"

	"moult.example/internal/deploy"
	"moult.example/internal/restart"
	"moult.example/internal/stale"
)

// psDocument is the JSON document of ps. It has its own types, since names from
// processes are any bytes and have to be written as a [deploy.Path].
type psDocument struct {
	Time       time.Time     `json:"time"`
	Targets    []deploy.Path `json:"targets,omitempty"`
	Processes  []psProcess   `json:"processes"`  // with a verdict
	Suspects   []psProcess   `json:"suspects"`   // of which nothing is proven
	Scanned    int           `json:"scanned"`    // that were looked at
	Unreadable []int         `json:"unreadable"` // of which something could not be read
	Hidden     bool          `json:"hidden,omitempty"`
	Held       []psHeld      `json:"held"`
	HeldBytes  int64         `json:"held_bytes"`
	Empty      string        `json:"unit_without_process,omitempty"` // what the --unit is: stopped, unknown
}

type psIdentity struct {
	PID       int           `json:"pid"`
	Ticks     uint64        `json:"ticks"`
	Started   time.Time     `json:"started"`
	UID       int           `json:"uid"`
	User      string        `json:"user,omitempty"`
	Comm      deploy.Path   `json:"comm"`
	Exe       deploy.Path   `json:"exe,omitempty"`
	Command   []deploy.Path `json:"command"`
	Unit      *psUnit       `json:"unit,omitempty"`
	Container *psContainer  `json:"container,omitempty"`
}

type psProcess struct {
	psIdentity
	Verdict string     `json:"verdict,omitempty"`
	Since   time.Time  `json:"since,omitzero"`
	Runs    *psOrigin  `json:"runs,omitempty"`
	Gets    *psOrigin  `json:"gets,omitempty"`
	Files   []psFile   `json:"files"`
	Hints   []psHint   `json:"hints,omitempty"`
	Reexec  *psReplace `json:"reexec,omitempty"`
}

type psUnit struct {
	Name deploy.Path `json:"name"`
	User bool        `json:"user,omitempty"`
	UID  int         `json:"uid,omitempty"`
}

type psContainer struct {
	Engine string      `json:"engine"`
	Name   deploy.Path `json:"name"`
}

type psReplace struct {
	Protocol   int  `json:"protocol"`
	Signal     int  `json:"signal"`
	Generation int  `json:"generation"`
	Sealed     bool `json:"sealed"`
	Rejected   int  `json:"rejected,omitempty"`
	Starting   bool `json:"starting,omitempty"`
}

type psOrigin struct {
	Target     deploy.Path `json:"target"`
	Product    string      `json:"product,omitempty"`
	Release    string      `json:"release,omitempty"`
	Version    string      `json:"version,omitempty"`
	Generation int         `json:"generation"`
}

type psFile struct {
	Path        deploy.Path `json:"path"`            // as people know it
	Loads       deploy.Path `json:"loads,omitempty"` // as the loader would, if that is another one
	Mapped      deploy.Path `json:"mapped"`
	Kind        string      `json:"kind"`
	Verdict     string      `json:"verdict,omitempty"`
	Since       time.Time   `json:"since,omitzero"`
	Why         string      `json:"why,omitempty"`
	Notes       []string    `json:"notes,omitempty"`
	RunsBuildID string      `json:"runs_build_id,omitempty"`
	GetsBuildID string      `json:"gets_build_id,omitempty"`
	Runs        *psOrigin   `json:"runs,omitempty"`
	Gets        *psOrigin   `json:"gets,omitempty"`
}

type psHint struct {
	Kind  string      `json:"kind"`
	Path  deploy.Path `json:"path"`
	Since time.Time   `json:"since,omitzero"`
	Why   string      `json:"why"`
}

type psHeld struct {
	Path    deploy.Path `json:"path"`
	Bytes   int64       `json:"bytes"`
	Since   time.Time   `json:"since,omitzero"`
	PIDs    []int       `json:"pids"`
	Unknown bool        `json:"unknown,omitempty"`
}

func psDocumentOf(found psFound, f *psFlags) psDocument {
	d := psDocument{
		Time: found.at.UTC().Truncate(time.Millisecond), Processes: []psProcess{}, Suspects: []psProcess{}, Scanned: found.Scanned,
		Unreadable: append([]int{}, found.Unreadable...), Hidden: found.Hidden, Held: []psHeld{}, HeldBytes: found.HeldBytes,
	}
	if found.empty != nil {
		d.Empty = found.empty.state
	}
	for _, t := range f.targets {
		d.Targets = append(d.Targets, deploy.Path(t))
	}
	for _, p := range found.old {
		d.Processes = append(d.Processes, psProcessOf(p))
	}
	for _, p := range found.suspect {
		d.Suspects = append(d.Suspects, psProcessOf(p))
	}
	for _, h := range found.Held {
		d.Held = append(d.Held, psHeld{deploy.Path(h.Path), h.Bytes, h.Since.UTC(), append([]int{}, h.PIDs...), h.Unknown})
	}
	return d
}

func psProcessOf(p stale.Process) psProcess {
	d := psProcess{
		psIdentity: psIdentity{
			PID: p.PID, Ticks: p.Ticks, Started: p.Start.UTC(), UID: p.UID, User: p.User, Comm: deploy.Path(p.Comm), Exe: deploy.Path(p.Exe),
			Command: paths(p.Command), Unit: psUnitOf(p.Unit), Container: psContainerOf(p.Container),
		},
		Verdict: string(p.Verdict()), Since: utc(psSince(p)), Runs: psOriginOf(p.Runs), Gets: psOriginOf(p.Gets), Files: []psFile{},
	}
	for _, f := range p.Files {
		public, loads := restart.PublicPath(f.Path), ""
		if f.Path != public {
			loads = f.Path
		}
		d.Files = append(d.Files, psFile{
			Path: deploy.Path(public), Loads: deploy.Path(loads), Mapped: deploy.Path(f.Mapped), Kind: string(f.Kind), Verdict: string(f.Verdict), Since: utc(f.Since),
			Why: f.Why, Notes: f.Notes, RunsBuildID: f.RunsBuildID, GetsBuildID: f.GetsBuildID, Runs: psOriginOf(f.Runs), Gets: psOriginOf(f.Gets),
		})
	}
	for _, h := range p.Hints {
		d.Hints = append(d.Hints, psHint{string(h.Kind), deploy.Path(restart.PublicPath(h.Path)), utc(h.Since), h.Why})
	}
	if r := p.Reexec; r != nil {
		d.Reexec = &psReplace{r.Protocol, r.Signal, r.Generation, r.Sealed, r.Rejected, r.Starting}
	}
	return d
}

func psUnitOf(u stale.Unit) *psUnit {
	if u.Name == "" {
		return nil
	}
	return &psUnit{deploy.Path(u.Name), u.User, u.UID}
}

func psContainerOf(c stale.Container) *psContainer {
	if c == (stale.Container{}) {
		return nil
	}
	return &psContainer{c.Engine, deploy.Path(c.Name)}
}

func psOriginOf(o stale.Origin) *psOrigin {
	if !o.Known() {
		return nil
	}
	return &psOrigin{deploy.Path(o.Target), o.Product, o.Release, o.Version, o.Generation}
}

func paths(texts []string) []deploy.Path {
	all := []deploy.Path{}
	for _, text := range texts {
		all = append(all, deploy.Path(text))
	}
	return all
}

// utc leaves a zero time zero.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return t.UTC().Truncate(time.Millisecond)
}
