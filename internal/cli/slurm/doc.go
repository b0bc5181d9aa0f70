// Package slurm lets scripts and workflow engines written for Slurm run jobs of Shoal: it answers as sbatch, squeue,
// sacct, scancel, scontrol, srun, sinfo and, for who only asks, sacctmgr do, with the options, output formats and exit codes that such scripts use.
//
// What becomes what: a partition is a pool; a job's number is the same; a task of an array is 12_3, as in Slurm, where
// Shoal says 12/3; a batch script runs once, on the job's first node, in the directory it was submitted from, with
// its output in slurm-12.out there. Options without a meaning here (accounts, mail, licences) are taken and noted on stderr;
// options whose absence would change what a job does (--hold, --begin) are refused.
//
// Sources: the manual pages of Slurm 22.05, the version of Debian 12.
package slurm
