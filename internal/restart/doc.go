// Package restart brings stale processes to the new code: it makes a [Plan] of
// what is to be done to whom, and does it.
//
// The ways, from the gentlest: a program that has moult's re-exec library gets
// its signal, a systemd unit is restarted over D-Bus, anything else is done by a
// command that the administrator or the release names. Whatever has none of
// these is named and left alone.
//
// The rules of this room:
//
//   - Nothing is touched that this process needs to live: itself, its ancestors,
//     the unit or session that it runs in. No option changes that.
//   - What a whole host hangs on (init, the message bus, logins, displays,
//     containers, networks) is touched only if it is named.
//   - A process is signalled through a descriptor of it (pidfd_open(2)) that was
//     opened before it was looked at, so another one under its number is never
//     hit.
//   - A program that could not be started again is not stopped.
//   - "Restarted" is believed only when [stale.Find] no longer finds the process
//     and its unit is up. What a unit's job or a command says is not enough.
//   - What is known of processes comes from them and is hostile; no name of
//     theirs becomes part of a command line. They are handed to commands in the
//     environment, as numbers.
package restart
