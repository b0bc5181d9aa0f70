// Package doctor looks at a host and says what keeps it from being a server of Shoal's,
// or may trouble it later, and the command that mends it.
//
// Where it can, it tries rather than reads: as root it mounts an overlay, makes a
// bridge and loads packet-filter rules in namespaces of its own that vanish with the
// look. It changes nothing on the host and needs no server.
package doctor
