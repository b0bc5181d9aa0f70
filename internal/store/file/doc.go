// Package file is the SQLite file under the store: its connections, its one writer, the transactions and the way to
// the newest schema. What lies in the tables is package store's.
//
// One goroutine owns the only writing connection. Updates that arrive while it
// is busy share the next SQL transaction, each inside its savepoint: the cost of
// reaching the disk is paid once for all of them, and a failed closure takes
// back only its own changes.
package file
