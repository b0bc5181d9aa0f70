// Package sharetest proves shares on real file servers, which internal/rig/fileservers runs.
//
// The kernel's clients of NFS and SMB are tested in a virtual machine, since many kernels have none: the tests of
// internal/sharetest/kernel, built as one static program, run there against the servers of this host. What needs no
// such kernel, rclone for SMB and sshfs for SFTP, is tested on this host through the whole product: a pool whose homes
// lie on the server, people who log in, a server that goes and comes back, a secret that is changed.
//
// It needs root and what scripts/setup test installs.
package sharetest
