// Package gatehub is the control side of gateways that are processes of their own: the protocol of api.GatewayRecord.
//
// Each gateway has a signing key that it made itself. An administrator adds it by a name, which gives a token; with that it
// enrols, once, which binds the name to the key. Machines trust the keys of all gateways on record (Keys), so a gateway that is removed
// comes to no machine any more.
//
// Down to a gateway goes all it needs to let people in by itself for a while: who may come with which keys, and the sessions on
// machines that run. Up come logins, one request for each, and reports of which connections there are. A gateway without a report for a
// grace is lost: its connections are taken off the record, and only what agents see of them holds sessions.
//
// A gateway is believed about its own connections only: what it names carries its name on record, and where it asks for something of a
// user's or a machine's it must have a connection there. That somebody has proved who she is it is believed, which is what a gateway
// is for; see docs/decisions/016-gateways.md.
package gatehub
