// Package cgroups keeps the control groups of a machine's users, on version 1, version 2 and the hybrid of both.
//
// Below the group that the machine sees as its root:
//
//	system          version 2 only: init, sshd and the agent
//	u20001          the slice of a user: processor weight, memory, processes
//	u20001/login    all that she has by sshd or another door
//	u20001/17.0.1   one of her tasks, with limits of its own
//
// Slices weigh the same, so that a user with a thousand processes gets as much of the processor as one with
// two; see Shares for machines that may use less than their host has. Of the memory, logins may have what others leave: see Balance. What a machine may use as a whole is limited outside of what it can see; nothing here can lift that.
//
// Version 2 allows no processes in a group that hands controllers down. So the first process of a
// machine calls Settle before it starts anything, which moves it into system; its children are born there. Open
// then hands the controllers down. On version 1 Settle does nothing. Where nothing can be
// written, Open says so, and a nil Tree and the zero Group it gives out do nothing.
//
// A program is started in a group in one of two ways. A caller with a process that exists uses Add. Spawn is for
// starting many: on version 2 the child is born in the group; on version 1 the one thread that forks
// goes there and back, which takes no lock that the whole kernel waits for, as moving a process does. A slot, which serves
// one task after another, has a thread that stays there.
package cgroups
