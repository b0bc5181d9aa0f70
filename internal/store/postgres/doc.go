// Package postgres is the PostgreSQL database under the store: its connections, its errors, its dialect, the way to
// the newest schema, and who may write.
//
// Of several servers on one database one leads: the one whose connection for
// Updates holds an advisory lock. Losing the connection is losing the lock, and
// without it nothing can be written. The database itself ends a connection that
// says nothing for Lease, so that a server that was frozen, or whose host died,
// makes room for another. Whoever leads anew takes the next epoch and moves the
// revision on in the same transaction; a former leader that comes back finds
// that neither is what it knows, and is lost. One that only lost its connection,
// because the database was started again, finds both and goes on.
//
// Statements are in SQLite's form, and few words of it have to be translated.
package postgres
