// Package pump passes bytes between pairs of TCP connections, many pairs with one thread.
//
// A goroutine for each direction costs a message two wake-ups and an empty read beside the read and the write that it
// needs, and a websocket two stacks and buffers for as long as it is quiet, which is most of the time. Here a thread waits for
// all connections at once (epoll, edge-triggered) and has one buffer for all of them; a pair costs its two sockets and a
// few hundred bytes. Connections that the kernel alone does not know the content of, as those with TLS, are not for it.
//
// Who reads nothing is given up: what is read from one end is kept, in a buffer of its own, until the other end takes it, and
// nothing more is read meanwhile.
package pump
