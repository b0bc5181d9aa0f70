// Command bench measures what Shoal promises, beside a peer in the same run, and writes
// bench.json.
//
// A row is a measure: ours and the peer's samples of alternating rounds, the ratio of
// their medians, and the goal with a verdict. Everything runs on this host, as people would run it: the built
// binaries with their defaults, OpenSSH's client, tasks as their user in the slice with stored output. The
// peers are what one would use instead: sshd itself, ssh -J, HAProxy, Slurm, runc by hand,
// configurable-http-proxy, JupyterHub with its local spawner.
//
// A new measure is a function in one of the files here and a line in rows.
package main
