// Package include has the tests of moult.h, the header for C and C++ programs
// that replace themselves.
//
// They compile real programs, with the compilers that are there, put faults into
// them, and drive them from outside. There is no code here but tests.
package include
