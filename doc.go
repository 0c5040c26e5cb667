// Package moult is the root of the module. It holds no code: the program is in
// cmd/moult, the engine in internal/deploy, and what a program imports to
// replace itself in reexec.
//
// What is here are the tests of the structure: which room may import which, who
// may touch a file system, how long a file may be. Each says why when it fails.
package moult
