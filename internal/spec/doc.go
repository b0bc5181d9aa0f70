// Package spec reads what people write: YAML or JSON documents become objects of
// the vocabulary, and objects become documents again.
//
// It is strict, and it reports everything at once. An unknown key, a wrong type, a
// duplicate, a value that cannot be: each is a mistake with its file, line, column,
// path and, where there is one, a hint. Parse returns either objects that are whole,
// with their defaults filled in, or all the mistakes.
//
// The rules for single objects (CheckPool and its like) hold for objects that came
// some other way too. Rules between objects (a pool mounts a share that exists) are
// not here: only whoever knows all objects can tell.
package spec
