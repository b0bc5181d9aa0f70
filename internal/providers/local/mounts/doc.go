// Package mounts makes the sources of shares reachable on this host and in its machines, and keeps them so.
//
// A share that is a directory is what it is. Another is mounted once on the host, by the kernel's client where there is one,
// else by a program in user space (rclone for SMB and Azure Files, sshfs for SFTP), and bound into every machine that has it.
// Homes on shares without owners are mounted once more for each user, with her numbers and nobody else's rights.
//
// # What is on disk
//
//	DIR/KEY/record.json   what is mounted: generation, process of the client, since when its secret is known
//	DIR/KEY/g3            a mount point; each mount is a generation of its own
//	DIR/KEY/log           what the client says
//	DIR/KEY/cache-g1      what rclone has not written to its server yet
//	DIR.known_hosts       keys of SSH servers, as they were at first
//	RUN/                  credentials, on a tmpfs, while a client needs them
//
// # Who moves what
//
// Run looks at every mount in use now and then. One that does not answer is in trouble, which Trouble tells, and is mounted anew
// beside the old one as soon as that is possible. Then the old one is let go lazily: who has files open
// there keeps them, and machines get the new one put in its place. The same happens when its secret was changed.
// What is mounted, by whom, and what a machine has are always read from the kernel, so a new server adopts
// what a former one left.
//
// Whatever may wait for a server that does not answer is done by a child with a time limit: this program itself, see
// Child. One that cannot be killed is left alone.
package mounts
