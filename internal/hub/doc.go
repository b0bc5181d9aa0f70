// Package hub runs Debian's JupyterHub for pools that have an endpoint named jupyter, and keeps it running.
//
// The hub is a child of this process under an account number of its own, in a mount namespace where DIR is
// at /mnt: all it can read of the data directory. It dies with this process, and so does nobody's notebook
// server: those are apps of their users', which agents run. What it knows is in its database; a hub that
// starts asks Shoal what became of each server and puts its routes back.
//
//	DIR/config/   jupyterhub_config.py and two tokens, written at each start; root's, the tokens the hub's to read
//	DIR/lib/      the package shoal_jupyterhub
//	DIR/state/    the hub's own: database, cookie secret, the socket where it listens
//	DIR/custom.py what an administrator adds to the configuration
//	DIR/port      where machines find its API: notebook servers keep the address
//	DIR/pid       its process while it runs
//	DIR/hub.log   what it writes, and hub.log.1 before that
//
// States: off (no pool wants it) → starting → up ⇄ ill (does not answer) → down (a pause, longer each time) →
// starting; missing while it is not installed. Run moves them; Why tells `shoal why pool`, events tell changes.
//
// Machines reach nothing of the hub but /hub/api, through a listener on the bridge.
package hub
