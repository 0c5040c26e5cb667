package deploy

// Change is one line of a plan or of a comparison.
type Change struct {
	Action string `json:"action"` // add, replace, remove, keep, new (a release's file laid beside the user's)
	Path   Path   `json:"path"`
	Why    string `json:"why,omitempty"` // what differs
	Bytes  int64  `json:"bytes,omitempty"`
}

// Plan says what applying a release would do. Nothing has changed.
type Plan struct {
	Schema    int       `json:"schema"`
	Target    Path      `json:"target"`
	Layout    Layout    `json:"layout"`
	Name      string    `json:"name"`
	From      int       `json:"from"` // live generation, -1 for none
	Release   string    `json:"release"`
	Version   string    `json:"version,omitempty"`
	Same      bool      `json:"same"` // nothing would change
	Adopt     bool      `json:"adopt,omitempty"`
	Changes   []Change  `json:"changes"`
	Unchanged int       `json:"unchanged"`
	CopyBytes int64     `json:"copy_bytes"`
	Problems  []Problem `json:"problems,omitempty"` // why it would be refused
	Warnings  []string  `json:"warnings,omitempty"`
	Links     *Links    `json:"links,omitempty"`     // not there if nothing was looked at
	CutShort  bool      `json:"cut_short,omitempty"` // an earlier command was; the real run recovers first
}

// Result says what a job that writes has done.
type Result struct {
	Schema     int        `json:"schema"`
	Target     Path       `json:"target"`
	Layout     Layout     `json:"layout"`
	Name       string     `json:"name"`
	Job        string     `json:"job"` // stage, commit, apply, rollback
	From       int        `json:"from"`
	Generation int        `json:"generation"` // live now, or staged
	Release    string     `json:"release"`
	Version    string     `json:"version,omitempty"`
	Unchanged  bool       `json:"unchanged"` // this command had nothing to do
	Added      int        `json:"added"`
	Replaced   int        `json:"replaced"`
	Removed    int        `json:"removed"`
	Same       int        `json:"same"` // files that are what they were
	CopyBytes  int64      `json:"copy_bytes"`
	Kept       []Path     `json:"kept,omitempty"`      // changed by the user, left
	New        []Path     `json:"new,omitempty"`       // the release's version, laid beside
	Deferred   []Path     `json:"deferred,omitempty"`  // to be removed by gc, still mapped
	Conflicts  []Path     `json:"conflicts,omitempty"` // changed by someone in between, theirs kept
	Mended     []Path     `json:"mended,omitempty"`    // found damaged, and put right
	Recovered  *Recovered `json:"recovered,omitempty"` // what an earlier command had left
	Collected  []int      `json:"collected,omitempty"` // generations that gc took
	Links      *Links     `json:"links,omitempty"`     // of apply and stage; not there if nothing was looked at
	Warnings   []string   `json:"warnings,omitempty"`
}

// Recovered says what recovery found and did.
type Recovered struct {
	Schema     int    `json:"schema"`
	Target     Path   `json:"target"`
	Name       string `json:"name,omitempty"`
	Finished   string `json:"finished,omitempty"`   // the job that was cut short and is done now
	Generation int    `json:"generation,omitempty"` // that it has made live
	Discarded  int    `json:"discarded,omitempty"`  // stages and collections cut short, cleaned away
	Conflicts  []Path `json:"conflicts,omitempty"`
	Nothing    bool   `json:"nothing"` // all was in order
}
