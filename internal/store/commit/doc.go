// Package commit is what the store's databases have in common: Views on one snapshot, the one writer, group commit,
// the revisions, and who is told of a change. What lies in the tables is package store's; connections and their
// errors are those of package file (SQLite) and package postgres.
//
// One goroutine owns the only writing connection. Updates that arrive while it
// is busy share the next SQL transaction, each inside its savepoint: the cost of
// reaching the disk is paid once for all of them, and a failed closure takes
// back only its own changes.
//
// Each transaction that changes something moves the revision on from the one it
// knows. If the database has another, somebody else has written: this process
// has lost its right to, for ever, and Lost is closed.
package commit
