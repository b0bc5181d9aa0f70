// Package route decides where a login goes: which machine of a pool a user is
// put on, whether she waits and for what, or why she cannot be served.
//
// It is pure: Place looks at a pool, its machines and sessions as they are and
// answers. Recording what it decided, waiting and telling the user are the
// broker's.
package route
