// Package expr reads and evaluates the expressions of templates: [concat(parameters('name'), '-vnet')].
//
// It knows the functions whose answer depends on their arguments alone. Those that look at a deployment
// (parameters, reference, copyIndex and the like) come from the Scope that the caller gives. Names of functions and
// keys count without their letters' case.
//
// What is secret stays so: what a function makes of a secret is secret, unless it is only a truth value, a length
// or a position. What a deployment alone knows stays unknown in the same way. A Budget bounds the steps and the
// memory of a whole evaluation, and every value's size and depth.
package expr
