// Package kernel is tests of mounts by the kernel's own clients of NFS and SMB. They run as root in a virtual machine that
// internal/sharetest boots, against file servers of the host, whose addresses are in the environment:
//
//	SHOAL_TEST_NFS           nfs://HOST:PORT; exports open (root is root) and squashed (root is nobody)
//	SHOAL_TEST_SMB           smb://HOST:PORT; shares team and sealed (encrypted connections only)
//	SHOAL_TEST_SMB_PASSWORD  of user team, and the key of the account of that name
//	SHOAL_TEST_CONTROL       http://HOST:PORT: POST /nfs/stop, /nfs/start, /smb/stop, /smb/start, /smb/password
package kernel
