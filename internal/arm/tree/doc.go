// Package tree holds JSON as templates have it: every value knows where it was written, the keys of an object keep
// their order and are found in whatever letters' case, and what is secret or cannot be known yet is marked.
//
// A Value is never changed once it is made, so that many places share one. How large it would be if it were
// written out is known without looking at all of it, which is how bombs of copies are stopped.
package tree
