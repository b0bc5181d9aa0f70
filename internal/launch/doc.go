// Package launch turns one node of one attempt into the order that its machine's agent carries out:
// what is run there, with which variables and files.
//
// # Who starts what
//
//	each   every node runs the command. With more processes than nodes, a script on each starts its part of them
//	head   the first node runs it, the others keep their places (Idle)
//	mpi    the first node runs mpirun, which starts the processes on all nodes by ssh; the others keep their places
//
// # Which variables win
//
// From the least to the most: those of the frameworks, those of the dialect (the old service or scheduler that a job
// was written for), the job's own, its task's, those of its item, and last what Shoal promises: SHOAL_*.
//
// # Files
//
// An attempt of several nodes, or of mpi, finds these in api.TaskDir on each of them. A file that begins with "#!" is a
// program:
//
//	hostfile      the nodes, as Open MPI wants them
//	machinefile   the same for MPICH and its kin
//	ssh           ssh to the other nodes, and to nowhere else
//	ssh_config, ssh_key, known_hosts   what it needs
//	env           the variables of this node, to be read by a shell
//	inside        runs its arguments in the job's container, where processes run in one; the agent makes it
//	rank          reads them and runs the command as one process of many
//
// What mpirun starts on another node does not inherit the variables of the first, and must not: its GPUs, rank and
// scratch directory are others. Hence env and rank.
//
// It does not read secrets, choose nodes or make keys: it is told.
package launch
