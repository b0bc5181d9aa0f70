// Command prove runs the tests with their full counts: properties over many seeds, every fuzz target for
// minutes, the faults and crowds of internal/e2e, transfers by the thousand, the whole under the race detector in many
// orders.
//
// It works in rounds and writes prove.json after each, so that it can be interrupted at any time
// and goes on where it was, as long as the commit is the same. A failure is recorded with its seed
// and its output, and does not stop the rest; the exit code is 1 if there was any.
package main
