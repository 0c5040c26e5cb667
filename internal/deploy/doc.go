// Package deploy is the engine on this host: it stages releases as generations
// of a target, commits them, rolls back, recovers and collects.
//
// The rules of this room:
//
//   - The order is always stage, sync, journal, rename, sync directories. All
//     that can run out of space or be refused happens before the journal is
//     there; after it there are renames and removals only, each of which can be
//     done twice.
//   - The journal's presence is the decision. Recovery finishes what a journal
//     says and removes what a stage without one has left; it asks nobody, and
//     it decides by content, never by name or time.
//   - Whatever writes takes the target's lock first and recovers before it does
//     its own work. Whatever reads takes no lock and writes nothing.
//   - The engine is sequential but for the copying of files while staging.
//   - Nothing is printed: results are returned, progress goes to
//     [Options.OnEvent].
//
// Where to look: target.go and state.go say what lies where; stage*.go makes a
// generation; commit.go is the one way to make it live, with owned.go and
// shared.go for the two layouts; journal.go and recover.go are what happens
// after a power cut; gc.go is who may go.
package deploy
