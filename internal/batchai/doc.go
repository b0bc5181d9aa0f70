// Package batchai reads the files of Batch AI, a service that is no more: job.json and cluster.json of
// the API of 2018-05-01. A job becomes a JobSpec of the dialect "batchai", a cluster a Pool and its Shares.
//
// It is strict: a key that the format lacks, or a variable $AZ_… that nothing sets, is a mistake with its
// place and, where there is one, the word that was probably meant. Lenient reading takes old files: keys of
// the versions of 2017 and March 2018, misspelt ones, variables that never had a value. Each such liberty is
// told. What the old command line took without a word is taken here too: a byte order mark, comments,
// commas before a closing bracket, keys in other letters' case, numbers in quotes.
//
// Secrets written into a file are never part of what is made or said. References to a key vault become the
// names of secrets.
//
// Mounts of Azure become directories of shares, by a table that the user gives. Where the user says nothing,
// a file share becomes a Share with an azurefiles:// source, and what a job finds below $AZ_BATCHAI_MOUNT_ROOT
// is taken to be where a translated cluster has it.
package batchai
