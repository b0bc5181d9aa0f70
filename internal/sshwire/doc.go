// Package sshwire is what Shoal needs of SSH beyond golang.org/x/crypto/ssh:
// certificates of minutes for users and the check of machines' certificates, a
// connection that costs no buffers while it is quiet, the choice of a cipher by
// what the client can do, a pulse that notices when the other side has stopped
// answering, and pipes that carry channels and requests from one connection to
// another without losing or reordering what programs can observe.
//
// A Pipe keeps these promises:
//
//   - data of each stream arrives byte for byte, and all of it before the end
//     of the channel is passed on, whichever side ends it;
//   - end of file is not the end of the channel: a program whose input has
//     ended goes on writing, and one that has closed its output goes on reading;
//   - requests are passed on and answered in their order, those that start a
//     program before any of its input;
//   - the exit status or signal comes after all output.
//
// The package knows connections and channels. It knows no users, pools or
// machines and decides nothing about them.
package sshwire
