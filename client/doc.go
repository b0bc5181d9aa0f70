// Package client speaks Shoal's REST API: to a server by URL and token, or to a
// Unix socket (root's at the server, or a machine's own, where nobody needs to
// sign in).
//
// Every error is a *shoal.Error as the server meant it, with its kind, hint and
// mistakes. A server that cannot be reached is KindUnavailable, a context that
// ended KindCancelled.
//
// What can be repeated without harm is: reading, and creating with an idempotency
// key. A break of a moment goes unnoticed. Whatever takes long (following output
// or events, waiting for a job) goes on where it was after the server was
// restarted, as long as that takes less than the client's patience; but a server
// that was not reached even once is an error at once.
package client
