// Package sim is a world in a box: a cloud that is slow and fails, people with daily rhythms, and jobs; and the packages
// that decide, as they are: scale, fleet, route and usage. A week is run through in seconds, and the same seed gives the
// same week.
//
// Time goes from event to event: somebody comes or goes, a machine is ready or lost, a minute is over. After each the
// world does what the engine does in a pass, and the invariants are looked at. The cloud keeps a ledger of its own,
// with which the bill must agree to the second.
//
// What is left out: the network, agents and the store. They are tested where they are.
package sim
