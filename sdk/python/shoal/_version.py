"""The version of this package, in a module of its own so that a build can read it without running anything."""

VERSION = "0.2.0"
