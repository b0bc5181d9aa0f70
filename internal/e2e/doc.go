// Package e2e runs the built binaries on this host, with real machines and OpenSSH, under faults, attacks
// and crowds. Its tests need root and what `scripts/setup test` installs; they are left out with -short.
//
// SHOAL_PROVE=1 raises the counts to the full ones. SHOAL_BIN names a directory with shoal and shoal-agent to
// be used instead of building them.
package e2e
