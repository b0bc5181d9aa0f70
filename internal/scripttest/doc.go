// Package scripttest runs the acceptance scripts of testdata/script against the built binaries:
// a real server in a fresh data directory and on free ports for each script, real machines, and plain ssh.
//
// The scripts are testscript archives; README.md in testdata/script lists the commands they
// have beside the usual ones. Several run at the same time, so a script has nothing to itself but its directory
// ($WORK), its ports and its data: what it looks for on the host it looks for by these names. Whatever a script
// leaves on the host fails it.
package scripttest
