// Package catalog keeps the objects that people write: shares, groups, users and
// pools. It checks everything before anything changes, so that a file with one
// mistake in it leaves no half behind, and it changes everything in one
// transaction.
//
// It gives out uids and gids, both from one range because every user has a group
// of her own with the number of her uid. A number is never given to another name,
// not even after its first holder was removed: files with that number may still
// lie on a share.
//
// It makes no machine and ends no process by itself; what follows from a change is
// found by the engine, the agents and the hooks in Config.
package catalog
