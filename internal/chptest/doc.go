// Package chptest holds our front end to configurable-http-proxy's contract: one table of what its API and its
// proxying do, run against ours and, where it is installed, against the original, so that the expectations are
// known to be right. JupyterHub's own tests of its proxy, where Debian's package of it is installed, run with ours
// in the original's place. Where ours differs on purpose, the case says why.
//
// The soak tests do what made the original leak sockets (its issues 388, 434 and 557), and look for what is left.
// SHOAL_PROVE=1 raises the counts.
package chptest
