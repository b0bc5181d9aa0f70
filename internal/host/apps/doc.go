// Package apps and those below it run users' web apps on a machine, and let the gateway, and nobody else, in to them.
//
//	keeper      this package, part of the agent's `run`: takes orders, adopts what a former agent has started, reports. It may
//	            be killed and replaced at any moment.
//	supervisor  `shoal-agent app supervise`, one for each app: starts it as its user, watches it, and is the way in. It
//	            ends with the app. One for each, so that no app's connections suffer from another's end.
//
// The app listens on 127.0.0.1 at a port that it is given. The way in is a port below 1024 of the supervisor's own, at
// all addresses of the machine: only root can bind such a port, so nobody else can take it when an app has ended
// and have the gateway come to her. It lets in only those who come from the gateway's addresses.
//
// Whoever is let in is connected to the app's port, but not before the kernel has said whose the listening
// socket is (package owner): who binds the port before the app does gains nothing. From within the machine the local
// provider lets only root connect to the ports of apps, so that the user's neighbours get around neither the
// gateway nor its question who they are.
//
// Keeper and supervisor exchange lines of JSON over a socket in a directory that is root's alone and in memory, so
// that it is empty after each start of the machine. An order comes on the supervisor's standard input and is never
// on a disk: it may hold secrets.
package apps
