// Package webfront is the gateway's front end for browsers: HTTPS with HTTP/1.1, HTTP/2 and websockets.
//
// Who answers a request, by its decoded path:
//
//	/_chp_healthz          the front end itself
//	/shoal/app/POOL/NAME/  the signed-in user's own app of a pool
//	/shoal/                the pages
//	/api/v1/               the API
//	anything else          a route of the table, which a hub of JupyterHub writes through package chp
//
// A host name below the domain of apps has routes only.
//
// Requests are written anew for the server behind, never copied: the length of a body is said once, in one way, and
// headers that concern one connection stay on it. Connections to servers behind are kept and used again; one that was closed
// meanwhile is noticed before it is used. Bytes are passed on as they come.
package webfront
