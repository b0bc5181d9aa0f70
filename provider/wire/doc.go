// Package wire is the provider seam as JSON, for providers that are programs of their own. What is written here for
// people who write such programs is in docs/reference/provider-protocol.md.
//
// A provider written in Go implements provider.Provider and hands itself to Main. One in any other language reads a Request and
// writes an Answer:
//
//	once      a process for each request: it comes on standard input, its answer goes to standard output, and the
//	          exit status says of which kind an error is
//	session   one process for all: a line for each request, in any order a line for each answer with the
//	          request's id, and between them lines that say that Observe would show something else
//
// Numbers are plain ones (processors, bytes, seconds), so that nothing of Shoal's notation need be known.
package wire
