// Package file is the SQLite file under the store: its connections, its errors, its lock and the way to the newest
// schema. Transactions and the one writer are package commit's, and what lies in the tables is package store's.
package file
