// Package realtest tests the real program with real input: PostgreSQL, trees of
// thousands of ELF files, thousands of launches a second, a systemd that is booted,
// processes in every kind of corner.
//
// There are only tests in this room. They build moult once and drive it as a
// user does, by its command line. What the command line has no word for, such
// as a shorter time of grace, is asked of internal/deploy. Each thing that must
// not happen under moult is shown to happen under cp or mv by the same means,
// or else its test would prove nothing.
package realtest
