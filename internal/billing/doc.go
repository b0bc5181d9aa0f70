// Package billing makes bills of what the store has on record, and keeps the budgets: it knows how each stands, tells
// once a month when most of one is spent and when all is, and refuses new work, and holds what waits, where a budget says so.
//
// What is counted is package usage's to say. A budget counts what is used by its user, or its group's members; idle
// time belongs to pools. It stands as of the last look, a minute ago at most while little is on record, and longer ago
// where to look takes long. What is said once is on record, so that a restart does not say it again; a look that
// fails changes nothing.
package billing
