// Package usage turns stored intervals into the bill: who used how many
// machine-seconds, and what they cost.
//
// It is pure. The seconds of a machine are divided among those who were on it,
// moment by moment: each live session and each running task is one occupant and
// all occupants count equally, whatever they asked for. A moment without an
// occupant is idle time of the pool. Divided this way the rows always add up to
// the machine intervals, exactly: nothing is lost and nothing counted twice.
package usage
