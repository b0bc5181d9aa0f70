// Package browsertest uses the built server as people do, with Debian's Chromium: it signs in, starts web apps,
// opens a notebook and looks at what it draws, and lets hostile pages try what they can. Its tests need root and
// what `scripts/setup test` installs; they are left out with -short.
//
// Chromium runs as nobody, in its own sandbox. SHOAL_SCREENSHOTS names a directory for pictures of the pages;
// SHOAL_BIN one with shoal and shoal-agent to be used instead of building them.
package browsertest
