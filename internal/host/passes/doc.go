// Package passes lets the nodes of one attempt at a task, and nobody else, log in to each other as the task's user
// while the attempt lives.
//
// An attempt has a key pair of its own. On each of its nodes a pass says that the key opens the user's account, for
// those who come from the attempt's nodes. What sshd and ssh read is made from the passes there are:
//
//	live/alice/17.0.1   a pass, root's alone: what keys/alice is put together from
//	keys/alice          the keys that open an account, sshd's AuthorizedKeysFile
//	client/17.0.1.conf  what ssh is told on this node, read by every ssh of the machine and in effect inside the task only
//	client/17.0.1.known the host keys of the other nodes
//
// Inside the task, and in what comes by its passes, is where SHOAL_SCRATCH names the attempt's scratch directory. sshd
// sets that for who comes by a pass, so that it holds on all nodes, and that what was started so is found again.
//
// The door (PAM) asks Of which attempt a key is for, and puts the login into the control group of that attempt, with
// which it ends. A login by a key that is no longer there is ended at the door.
//
// All is in a directory that is gone with each start of the machine. Methods may be called by several processes at
// once: the file of keys is put together under a lock.
package passes
