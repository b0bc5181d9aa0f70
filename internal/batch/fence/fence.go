// Package fence says when what ran on a machine that is not heard of is certainly over.
//
// An agent that is not answered for the time of the lease ends its tasks by itself. It counts from when
// it sent what was answered last; the control plane counts from when it answered, which is later, and
// waits for the grace of the tasks and a margin besides. So no clocks need to agree: only that an
// agent's clock runs at about the same rate, which the margin allows for. A control plane that was
// started anew counts from its start.
//
// When many machines fall silent together it is more likely that we are cut off than that they died:
// then nothing is taken for over until most of them are back, or somebody says what became of them. Machines that
// their provider misses, too, are not among the many: somebody else sees what we see.
package fence

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// Rules are the times that count.
type Rules struct {
	Lease  time.Duration // for which agents let tasks run without an answer
	Grace  time.Duration // between SIGTERM and SIGKILL
	Margin time.Duration // for clocks that run slower, and for what comes late
	Quiet  time.Duration // a machine is silent when it was not answered for so long
}

// The bounds of a lease. A short one has tasks of machines that are lost begin again soon, and lets them outlive only short
// troubles of the network and of the server.
const (
	Shortest = 15 * time.Second
	Longest  = 5 * time.Minute
)

// Default is what holds unless somebody wants a shorter lease.
func Default() Rules { return For(Longest) }

// For are the rules with a lease, of which agents are told; zero: the longest.
func For(lease time.Duration) Rules {
	if lease == 0 {
		lease = Longest
	}
	return Rules{Lease: lease, Grace: 10 * time.Second, Margin: lease / 5, Quiet: lease * 4 / 5}
}

// Heard is since when nothing has been heard of a machine that was answered last at a time, by a server that began at another: a
// former server may have given a machine that is older the longest lease.
func (r Rules) Heard(m shoal.Machine, answered, began time.Time) time.Time {
	if m.Started.Before(began) {
		began = began.Add(For(Longest).Over() - r.Over())
	}
	if answered.After(began) {
		return answered
	}
	return began
}

// Over is after what silence a machine's tasks are over.
func (r Rules) Over() time.Duration { return r.Lease + r.Grace + r.Margin }

// The bounds of a mass disconnect: more than a part of several machines fall silent within an interval.
const (
	atLeast  = 4
	percent  = 30
	interval = 5 * time.Minute
)

// Verdict is what is known of all machines.
type Verdict struct {
	// Over are the machines whose tasks are over.
	Over map[shoal.MachineID]bool
	// Frozen are those that are silent for long enough, but together with too many others.
	Frozen map[shoal.MachineID]bool
	Silent int
	// Next is when another verdict may differ though nobody is heard of; zero: never.
	Next time.Time
}

// Pools are those of which people are told that they are frozen, or that they are no more, as they were before.
func (v Verdict) Pools(machines map[shoal.MachineID]shoal.Machine, before map[shoal.PoolName]bool) map[shoal.PoolName]bool {
	pools := map[shoal.PoolName]bool{}
	for id, m := range machines {
		if v.Frozen[id] || len(v.Frozen) == 0 && before[m.Pool] {
			pools[m.Pool] = true
		}
	}
	return pools
}

// News is what people are told when tasks of so many machines begin not to be taken for lost, or are again.
func (v Verdict) News(machines int) (code, sentence string) {
	if len(v.Frozen) == 0 {
		return "lossesThawed", "machines are heard of again: tasks of those that are not are taken for lost in time"
	}
	return "lossesFrozen", fmt.Sprintf("%d of %d machines fell silent together: it may be the server that is cut off, so their tasks are not taken for lost", v.Silent, machines)
}

// missed reports whether a machine's provider tells trouble of it while its agent is silent.
func missed(m shoal.Machine) bool {
	return m.Health == shoal.HealthDown && slices.ContainsFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Owner == shoal.CordonProvider })
}

// Judge says what is known at a time of machines by when each was last answered.
func Judge(answered map[shoal.MachineID]time.Time, machines map[shoal.MachineID]shoal.Machine, now time.Time, r Rules) Verdict {
	v := Verdict{Over: map[shoal.MachineID]bool{}, Frozen: map[shoal.MachineID]bool{}}
	var silent []time.Time
	for id, at := range answered {
		if now.Sub(at) >= r.Quiet && !missed(machines[id]) {
			silent = append(silent, at)
		}
	}
	v.Silent = len(silent)
	for id, at := range answered {
		if due := at.Add(r.Over()); now.Before(due) {
			if v.Next.IsZero() || due.Before(v.Next) {
				v.Next = due
			}
			continue
		}
		together := 0
		for _, other := range silent {
			if at.Sub(other).Abs() <= interval {
				together++
			}
		}
		if len(answered) >= atLeast && together*100 > len(answered)*percent && !missed(machines[id]) {
			v.Frozen[id] = true
		} else {
			v.Over[id] = true
		}
	}
	return v
}
