// Package rdpfront is the gateway for remote desktops. It reads the first packet of RDP, which names a user in clear and
// proves nothing, and leads the connection to a machine; then it moves bytes and looks at none: TLS is the client's and
// the machine's own.
//
// A connection is a guest at the Door until package desk says that its user has proved who she is: at the machine, with
// her password. What cannot be served is answered with the failure that the protocol has, which clients show as an error
// of the connection, and the reason is logged. While a machine starts the connection is held: clients wait for the first
// answer, if not for ever.
package rdpfront
