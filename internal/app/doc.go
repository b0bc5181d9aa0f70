// Package app puts a server together: it is the one place that knows every part.
//
// New reads like a bill of materials; each thing made leaves its cleanup on a stack that Close
// runs backwards. Run starts what has a loop and waits for all of it.
//
// On disk, below the data directory:
//
//	shoal.db, shoal.db.lock   the store, if it is in a file
//	serve.lock                held by who leads, if the store is in a database
//	shoal.sock                the API for root on this host
//	admin.token               the same rights for who cannot open the socket
//	tls/                      the authority for HTTPS: ca.crt, ca.key; acme/: certificates that others have signed
//	tls/agents/               the authority that agents on other hosts trust
//	chp.token, chp.routes     the token of --chp-listen, and what was written there
//	keys/                     the gateway's host key, the two signing keys, the key of the agents' tokens
//	control/agent.sock        what agents dial; the directory is bound into local machines
//	output/                   what tasks wrote
//	local/                    the local provider's
//
// A gateway that is a process of its own (Options.Role) has a directory with:
//
//	keys/                     its signing key, and the key of the mirror
//	gateway.json              who it is: its token, the gateways' host key, whom to trust
//	mirror                    what it knows of people and sessions, encrypted
//	serve.lock                held by the process
package app
