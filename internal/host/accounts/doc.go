// Package accounts makes the people of a machine: the lines of passwd, group, shadow and
// gshadow, their homes, and the directories that groups share.
//
// A Keeper writes the four files whole each time, merging what the image brought with what is
// wanted. Which lines are Shoal's is remembered in a file that is written before the first of them,
// so that a crash between leaves nobody behind for ever. Accounts of the image with a number below
// 1000 are never replaced: they own the image's files.
//
// Whatever touches a share is described by a Work, and done by a process of its own with a time
// limit: a file server that does not answer then costs that process and not the agent. A Work
// follows no symbolic link below its root and changes owners by descriptor only, because people can
// put links where root comes along.
package accounts
