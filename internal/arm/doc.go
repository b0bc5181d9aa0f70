// Package arm reads and evaluates deployment templates of Azure's resource manager: what resources they
// describe, for given parameters, and their outputs. It asks nobody and changes nothing; package translate makes
// objects of ours of the result.
//
// A template is evaluated as its users know it: parameters (with their constraints), then variables, then resources
// and outputs, each when it is first asked for, so that reference() finds what another resource has. Circles are told
// with their path. All mistakes are told at once, each with file, line, column and the expression.
//
// Nothing is deployed, so what only a deployment would know (an address, a key) is answered by the caller where
// she can, and is unknown otherwise; that is a mistake only where the template's shape depends on it. Values of
// secure parameters, and what is computed from them, are secret in every message, note and output.
//
// Real files are taken as they are: names and keys in any letters' case, numbers and truth values in quotes,
// comments, a byte order mark. Bounds hold for the size and depth of files and values, for the number of resources,
// loops and linked templates, and for the steps and the memory of a whole evaluation.
package arm
