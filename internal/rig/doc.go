// Package rig runs the built binaries for tests and measurements: a server of one's own on free ports
// and a fresh directory, users, their ssh. It needs root and what `scripts/setup test` installs.
package rig
