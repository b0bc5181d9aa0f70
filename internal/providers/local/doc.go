// Package local makes machines on this Linux host: OCI containers that Debian's
// runc runs on an overlay. It needs root, runc and nftables.
//
// # How a machine is made
//
// An operating system thread of its own (never the main one, as which the process is seen)
// leaves the host's mount and network namespaces, assembles the root file system there (overlays over an image of
// package rootfs, a tmpfs for /run with the join file), gets its end of a virtual
// cable, and runs runc. The container inherits the thread's network namespace, and its
// mount namespace is a copy of the thread's. So no mount and no named namespace of a
// machine is ever on the host, and whatever dies takes them along: what remains to be
// removed is control groups, a directory, and elements of a packet filter's sets.
//
// # What is on disk
//
//	DIR/lock              held while a provider is open
//	DIR/bin/              copies of shoal-agent and shoal, bound read-only at /opt/shoal/bin
//	DIR/images/           lowers, see package rootfs
//	DIR/network.json      the subnet
//	DIR/shares/NAME-…/    network shares and homes on them, mounted on the host, see package mounts
//	DIR/runc/             runc's own state
//	DIR/machines/ID/      spec.json    what is wanted: written before any effect
//	                      run.json     what was started: process, its start time, which start
//	                      upper, work, trees/   the overlays' writable layers
//	                      root, run    mount points, used in the machine's namespaces only
//	                      config.json, pid, init.log, runc.log
//	DIR/trash/            machines being removed
//
// # Who moves what
//
// Create, Start, Stop and Delete write spec.json and wake the machine's worker, of which
// there is one goroutine at most. The worker compares what is wanted with what is, acts, and
// tries again later when it fails. Observe reads memory and asks the kernel once which
// processes live. New reads the directory, finds which processes are still those that run.json
// or runc names, removes what belongs to no machine, and wakes every worker.
//
// # Trying an agent by hand
//
//	SHOAL_LOCAL_BIN=/directory/with/shoal-agent/and/shoal go test -run TestForeground -v -timeout 0 ./internal/providers/local
//
// makes one machine of the image host, prints its address and the command that enters it,
// and removes it when interrupted. SHOAL_LOCAL_CONTROL names the directory bound at
// /run/shoal/control, SHOAL_LOCAL_INIT another first process.
//
// # What it does not do
//
// It does not limit disk space, which a file system's quota does better. It does not follow
// mounts below a shared local directory. It fetches no image from a registry.
package local
