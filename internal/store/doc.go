// Package store keeps everything Shoal remembers.
//
// There is one concrete type, DB, and two ways in: View, a closure that reads
// one snapshot, and Update, a closure that reads and writes and whose effects
// are there entirely or not at all. An Update that returned nil is on disk
// and stays: it survives kill -9 and a power cut.
//
// Objects are JSON bodies beside the few columns that are searched for. Every
// change takes the next revision from one counter, and events are written in
// the transaction that made them happen, so whoever follows Watch or wakes on
// Changed misses nothing.
//
// The one writer and group commit are package commit's. Package file opens a
// store in a SQLite file, package postgres one in a PostgreSQL. How attempts that are long over are written is package
// pack's. Here are the tables. A new kind of object is a line in table.go, a
// numbered file in migrations, and a file of its own for what is asked of it.
//
// A full disk is an error of kind unavailable. Nothing acknowledged is lost by
// it, reading goes on, and updates work again as soon as there is space.
//
// What the store deliberately does not do: it knows no rules about the objects.
// Which states follow each other is the vocabulary's, who may write what is its
// callers'.
package store
