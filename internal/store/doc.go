// Package store keeps everything Shoal remembers, in one SQLite file.
//
// There is one concrete type, DB, and two ways in: View, a closure that reads
// one snapshot, and Update, a closure that reads and writes and whose effects
// are there entirely or not at all. An Update that returned nil is on disk
// (WAL, synchronous=FULL): it survives kill -9 and a power cut.
//
// Objects are JSON bodies beside the few columns that are searched for. Every
// change takes the next revision from one counter, and events are written in
// the transaction that made them happen, so whoever follows Watch or wakes on
// Changed misses nothing.
//
// One goroutine owns the only writing connection. Updates that arrive while it
// is busy share the next SQL transaction, each inside its savepoint: the cost of
// reaching the disk is paid once for all of them, and a failed closure takes
// back only its own changes.
//
// A full disk is an error of kind unavailable. Nothing acknowledged is lost by
// it, reading goes on, and updates work again as soon as there is space.
//
// What the store deliberately does not do: it knows no rules about the objects.
// Which states follow each other is the vocabulary's, who may write what is its
// callers'.
package store
