// Package sshfront is the gateway's front end for SSH. To a client it is an
// SSH server, to a machine's sshd a client, and between them it moves channels
// and requests as they are.
//
// A visit is one client's connection. It is let in by the door, authenticates,
// and is held until its machine is ready and a connection to the machine's
// sshd stands; only then authentication succeeds. If waiting is of no use it
// succeeds as well, and every channel is told why and ends with status 75.
//
// A link is a connection to a machine's sshd. Visits of the same user, who came
// with the same key for the same pool, share one, until a visit asks for
// something by which programs on the machine reach back to the client
// (an agent, X11, a remote forward): it gets a link of its own, because on one
// connection sshd does not tell apart who asked.
//
// What the front end deliberately does not do: pass on the machines' host keys,
// keep anything on disk, or decide who may go where.
package sshfront
