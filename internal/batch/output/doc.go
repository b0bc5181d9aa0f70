// Package output keeps what tasks write, and reads it to whoever follows.
//
// A piece of output is appended by its offset before anybody is told that it is there, so a reader
// never sees less than was acknowledged. How far a live attempt's streams are kept is in memory, in
// an Attempt; that of an attempt that has ended is in its row.
//
// What it deliberately does not do: it knows neither jobs nor who may read them. Package batch says
// how an attempt stands, and wakes readers.
package output
