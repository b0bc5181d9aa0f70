// Package sim is a world in a box: a cloud that is slow, fails and lies, people with daily rhythms, jobs, operators,
// agents that fall silent and a clock that jumps; and the packages that decide, as they are: scale, fleet, route and
// usage. A week is run through in a second or two, and the same seed gives the same week.
//
// Time goes from event to event: somebody comes or goes, a machine is ready or lost, a minute is over. After each the
// world does what the engine does in a pass, and the invariants are looked at (promises.go):
//
//   - nobody's session ends by scaling, nor by what a provider says of a machine that works
//   - machines that run take logins, unless an operator or the schedule says otherwise, and never more than they have seats
//   - whoever waits while there may be a further machine gets one
//   - a pool stays within its bounds, and no machine stays that nobody needs, or knows
//   - no machine is made or goes without a reason; an operator's cordon is nobody else's
//   - the bill, however it is made up, is the cloud's own ledger to the second
//
// What is left out: the network, agents and the store. They are tested where they are.
package sim
