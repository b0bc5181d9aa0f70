// Package desk knows who may come to a desktop, and what proves it.
//
// The first packet of RDP names a user, in clear and without proof. So it wakes nothing: it leads to the user's session,
// if she has one, and what waits there is xrdp, which wants her password. A machine is started only for a source that
// is known: from which she has signed in during the last hours, or for which she has asked for a ticket (`shoal desktop`).
//
// A visit is one connection that the gateway has led to a machine. It is pending until that machine's agent has asked
// whether a password is the user's, and was told so. Passwords are looked at only for users with a pending visit on the
// very machine that asks, and slowed down by the source of the visit: a machine can guess for nobody, and neither can who
// comes to xrdp by another way. A ticket's password is good once, and is not slowed down: nobody guesses it.
//
// Sign-ins are kept in the store's settings, because a restart of the server should not lock people's desktops; tickets
// and visits are forgotten then.
package desk
