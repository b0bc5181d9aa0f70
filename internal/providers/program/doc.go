// Package program is the provider whose machines are made by an executable of somebody else, which speaks package wire's
// protocol. It bounds that program in time and output, and believes it only as far as what it says can be true:
//
//	hangs         a call has a limit; in mode once the process, in a session the whole program is killed with its group
//	garbage       is an error that can be tried again, and quotes what was said. A session that speaks garbage is ended:
//	              nobody knows what else it takes for what
//	lies          a list that names a machine twice, gives two machines one place, or holds what no machine can be is no
//	              list: nothing is concluded from it. Machines of another installation are not seen
//	half a list   is one that does not say that it is complete: absence means nothing then. One that says so and leaves out a machine
//	              that was there, and that nobody had asked it to delete, is believed only after a time in which no
//	              list showed it; meanwhile the machine takes nobody new, and says why
//
// # Goroutines
//
// A call runs on its caller's. A session has three: one writes requests, one reads answers, one what is written
// to standard error. They end with the process, which is started when it is needed and, where it ended early, not at once again.
package program
