// Package restarttest is a systemd for tests: an org.freedesktop.systemd1 on a
// message bus of its own, whose units are real processes.
//
// It answers what moult asks of systemd, with the same methods, properties and
// signals; it is no other part of systemd. Only tests import it.
package restarttest
