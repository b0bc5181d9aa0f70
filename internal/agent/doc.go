// Package agent is the loop of a machine: it joins, receives what the machine should be, has that
// done, and reports what it sees. What is done to Linux is behind Host, Tasks and Watcher, so the loop
// runs in a test without a machine.
//
// Goroutines and what they own:
//
//	link     joins, keeps the stream open and takes its records in order
//	settle   once per start of the machine boots it: setup, accounts, mounts, a login; then makes accounts and
//	         files as the newest record wants, and tries again what failed
//	report   all that is sent: one request at a time, so that what comes meanwhile goes in the next
//	relay    requests of users to /run/shoal.sock, handed on in their names
//
// A record that is lost costs nothing: the next Snapshot holds it. A report that is lost is
// made again: what it held counts as sent once the answer is there.
//
// Nothing ticks but the heartbeat. While somebody is present, or a task runs, the machine is looked
// at more often, and the less changes the more seldom.
package agent
