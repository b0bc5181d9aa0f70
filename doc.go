// Package shoal is the vocabulary of Shoal: the objects people write (Pool,
// Share, User, Group, Job), what Shoal observes (Machine, Session, Attempt),
// the words for their states with the tables by which those move, events,
// reasons, identifiers and errors.
//
// The types carry JSON tags because the vocabulary is the wire: an object has
// one form in the API, in the store, in a YAML file and in -o json. Package api
// adds only what is not an object: lists, problems, the agents' records.
//
// It holds data and rules that need nothing but their arguments. There is no
// I/O here, no clock, no goroutine and no interface; a noun that grows
// behaviour gets a package of its own.
package shoal
