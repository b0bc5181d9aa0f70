// Package python holds the source of shoal_jupyterhub, for a hub that `shoal serve` runs.
package python

import "embed"

// Hub is the package shoal_jupyterhub, in a directory of that name.
//
//go:embed shoal_jupyterhub/*.py
var Hub embed.FS
