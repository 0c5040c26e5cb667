// Package destroytest does to the real program what may happen to it: it is
// killed at every change that it makes to a disk and at any moment, its disk
// fails, the power goes while it works on real file systems, and it is given
// targets and releases in every state that a file system can bring them into.
//
// There are only tests in this room. They build moult once and drive it as a
// user does, by its command line, with a registry of the test's own. What it
// leaves is judged by one rule: the old release or the new one, hash for hash,
// never a third; and what its exit status says is so. internal/deploy makes the
// same demand of far more states, in one process; here nothing is a model.
//
// The tests are short by default. More of each comes by environment variables:
// MOULT_KILLS is the number of kills at random moments for each job, MOULT_CUTS
// that of power cuts for each file system.
package destroytest
