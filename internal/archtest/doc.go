// Package archtest holds the code to its plan. The plan is the table of packages in
// ARCHITECTURE.md and the budgets of STYLE.md; the rules here read both kinds of truth,
// the page and the source, and report where they differ.
//
// The rules look at syntax only, so that the whole tree is checked in about a second.
// What one of them refuses may be allowed by a line with a reason in allow.txt; a line
// that is needed no more is itself a finding, so the list only shrinks.
//
// It does not look at what the tests import: a test may use whatever it needs.
package archtest
