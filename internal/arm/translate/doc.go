// Package translate makes pools, shares and users of the resources of an evaluated template: of scale sets with
// their load balancers, extensions and autoscale settings, and of copies of plain virtual machines.
//
// Nothing is dropped in silence. What is understood otherwise than it was written, and what has no meaning here
// (public addresses, virtual networks, storage accounts), is told as a Note with its place. What cannot be right
// (an unknown size, two endpoints on one port) is a mistake, and all mistakes are told at once.
//
// Secrets of the template (an account's key, a password) are no part of a document or a note: they are handed back
// apart, for a store of secrets. Translating depends on no provider: Windows machines become a pool that says so in
// its providerConfig, and a provider that has none refuses it when it is applied.
package translate
