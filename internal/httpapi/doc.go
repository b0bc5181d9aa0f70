// Package httpapi is the REST API: one table of endpoints, each with who may and
// what it is for (table.go), and five faces of it.
//
//   - Control asks everybody for a bearer token: an API token of a user, or the
//     admin token. There are no cookies, so no page in a browser can use anybody's
//     rights.
//   - Browser is beside the pages of package web, and takes their cookie as well:
//     with a token that only our own pages hold, and with a member's rights unless
//     the very request has been confirmed.
//   - Local is for the server's own Unix socket, which only root can open: who
//     sends no token there is the host.
//   - Agent is for machines: the agent protocol of package api, and the users'
//     requests that agents relay, with a member's rights.
//   - Gateway is for gateways that are processes of their own, by their tokens; see
//     package gatehub.
//
// Who may do what is decided by package access: here for what is read from the
// store, in the services for what they do. An object that may not be seen reads
// exactly as one that is not there.
//
// Every error is a problem document with kind, hint and all mistakes; mistakes
// of Shoal's own are told by a reference to the log only. Streams that cannot go
// on are torn down and never ended as if they were complete, so that a client
// knows to come back.
//
// A new endpoint is a line of a table in the file of what it is about, and a
// method beside it: rest.Read, Take, Act or Stream make an action of that. How
// requests are read and answered is package rest's. What agents send is in
// agent.go.
//
// The handlers are plain; from huma come the OpenAPI document's types and the
// schemas made of ours.
package httpapi
