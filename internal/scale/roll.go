package scale

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// Rollout is how the replacement of old machines stands.
type Rollout struct {
	Paused bool
	// Failed are new machines in a row that did not become ready, and Why the last one did not.
	Failed int
	Why    string
}

const (
	stopAfter = 3                // so many new machines that fail stop a rollout
	notice    = 15 * time.Minute // people are told of their machine's end so long before, or for the whole deadline
)

// Stopped reports whether nothing is replaced.
func (r Rollout) Stopped() bool { return r.Paused || r.Halted() }

// Halted reports whether the rollout has stopped by itself.
func (r Rollout) Halted() bool { return r.Failed >= stopAfter }

// EndOf is when a machine of the pool that is old ends with whoever is there; zero: it does not. It comes nearer only
// so far that people have notice.
func EndOf(p shoal.Pool, m shoal.Machine, r Rollout, now time.Time) time.Time {
	d := time.Duration(p.Rollout.Deadline)
	if d <= 0 || m.OldSince.IsZero() || r.Stopped() {
		return time.Time{}
	}
	at := m.OldSince.Add(d).Truncate(time.Second)
	if soonest := now.Add(min(d, notice)).Truncate(time.Second); at.Before(soonest) {
		at = soonest
		if !m.EndsAt.IsZero() && m.EndsAt.Before(at) {
			at = m.EndsAt
		}
	}
	return at
}

// Old reports whether a machine is not as its pool or its image is now.
func (m *Machine) Old() bool { return m.Stale || m.Outdated != "" }

// rolled reports whether the machine takes nobody new because it is old.
func (m *Machine) rolled() bool {
	return slices.ContainsFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Owner == shoal.CordonRollout })
}

// roll replaces machines that are not as the pool or its image is now. New machines come first, while there is room:
// as many at a time as may be above the limit. Once one of them is ready, old ones take nobody new as far as the rest has
// the seats, and go when they are empty. Without room one old machine at a time makes way.
func (p *plan) roll() {
	if p.Pool.Deleting || p.limit == 0 {
		return
	}
	for _, m := range slices.Clone(p.reserve) {
		if m.rolled() && m.Old() && m.mayGo() && (!p.Rollout.Stopped() || p.lacks(p.serving) <= 0) {
			p.retire(m, "outdated", "it is empty and outdated: %s", outdated(m))
		}
	}
	p.free()
	if p.Rollout.Stopped() {
		return
	}
	p.expire()
	var old []*Machine
	for _, m := range p.serving {
		if m.Old() && m.State == shoal.MachineReady {
			old = append(old, m)
		}
	}
	slices.SortStableFunc(old, func(a, b *Machine) int {
		return cmp.Or(cmp.Compare(a.Sessions+a.Tasks, b.Sessions+b.Tasks), a.IdleAt.Compare(b.IdleAt), cmp.Compare(a.ID, b.ID))
	})
	waiting := 0
	for _, m := range old {
		if !p.replace(m) {
			waiting++
		}
	}
	if n := min(waiting, max(p.Pool.Surge(), 1)-p.coming(), p.limit+p.Pool.Surge()-p.alive); n > p.Create && p.room() {
		p.Create = n
		p.Because = shoal.Reason{Code: "outdated", Sentence: fmt.Sprintf("it replaces machine %s, which is outdated", old[0].ID)}
	}
}

// free lets machines go that are empty, and that their provider wants to have gone and keeps clear itself: their host is to be freed.
func (p *plan) free() {
	for i := range p.Machines {
		m := &p.Machines[i]
		kept := slices.ContainsFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Owner == shoal.CordonProvider })
		if kept && m.Outdated != "" && m.State == shoal.MachineReady && m.Wanted == shoal.WantRun && m.empty() && m.Known && !p.retired(m.ID) &&
			onlyOf(m.Cordons, shoal.CordonProvider, shoal.CordonAutoscaler, shoal.CordonRollout) {
			p.retire(m, "outdated", "it is empty, and to go: %s", m.Outdated)
		}
	}
}

// replace lets an old machine go, or take nobody new. It reports whether nothing more is to be done for it now.
func (p *plan) replace(m *Machine) bool {
	running := slices.DeleteFunc(slices.Clone(p.serving), func(x *Machine) bool { return x == m || x.pending() })
	blocked := p.blocked()
	if m.mayGo() && !m.IdleAt.IsZero() {
		if at := m.IdleAt.Add(min(OutdatedAfter, p.idleTime())); p.now.Before(at) {
			p.due(at)
			return true
		}
		if lacks := p.lacks(running); lacks <= 0 || blocked && !p.making() {
			p.retire(m, "outdated", "it is empty and outdated: %s", outdated(m))
			return true
		}
		return false
	}
	proven := slices.ContainsFunc(running, func(x *Machine) bool { return !x.Old() && x.Accepts() })
	open := slices.ContainsFunc(running, func(x *Machine) bool { return x.Accepts() })
	enough := p.lacks(running) <= 0 || len(running) >= p.limit
	if p.short(running).seats > 0 || !(proven && enough || blocked && open && !p.making()) {
		return false
	}
	p.Roll = append(p.Roll, Change{m.ID, shoal.Reason{Code: "outdated", Sentence: outdated(m)}})
	p.serving = slices.DeleteFunc(p.serving, func(x *Machine) bool { return x == m })
	return true
}

// expire ends old machines whose time is over: those for which others are there and, without room for others, one at a time.
func (p *plan) expire() {
	for i := range p.Machines {
		m := &p.Machines[i]
		if m.State != shoal.MachineReady || m.Wanted != shoal.WantRun || !m.Old() || m.EndsAt.IsZero() || !onlyOurs(m.Cordons) || p.retired(m.ID) {
			continue
		}
		if p.now.Before(m.EndsAt) {
			p.due(m.EndsAt)
			continue
		}
		if !m.rolled() && (!p.blocked() || p.making()) {
			continue // another comes first
		}
		p.Force = append(p.Force, Change{m.ID, shoal.Reason{Code: "deadline", Sentence: "the deadline of its rollout has passed: " + outdated(m)}})
		p.serving = slices.DeleteFunc(p.serving, func(x *Machine) bool { return x == m })
		p.reserve = slices.DeleteFunc(p.reserve, func(x *Machine) bool { return x == m })
	}
}

// lacks is how many machines are short of what is wanted, with some of them.
func (p *plan) lacks(on []*Machine) int {
	if p.fixed {
		return p.limit - len(on)
	}
	n := p.short(on)
	return max(n.machines(), min(n.unplaced, 1))
}

// room reports whether one more machine may be made for a rollout.
func (p *plan) room() bool {
	over, _ := p.overspent()
	return over == "" && !p.full()
}

// full reports whether there is no place for one more machine, whatever it would cost.
func (p *plan) full() bool {
	return p.now.Before(p.Held.Until) || p.alive+p.Create >= p.limit+p.Pool.Surge()
}

// blocked reports whether no new machine will come before an old one has gone; then one could.
func (p *plan) blocked() bool {
	over, _ := p.overspent()
	return over == "" && p.full() && p.coming() == 0
}

// coming counts machines on their way.
func (p *plan) coming() (n int) {
	for _, m := range p.serving {
		if m.pending() {
			n++
		}
	}
	return n
}

// making reports whether a machine makes room already: it goes, or takes nobody new because it is old.
func (p *plan) making() bool {
	return len(p.Roll)+len(p.Force) > 0 || slices.ContainsFunc(p.Machines, func(m Machine) bool {
		return m.counts() && (m.Wanted != shoal.WantRun || m.State == shoal.MachineStopping || m.rolled() && m.Old()) || p.retired(m.ID)
	})
}

// takeBack gives old machines back to people who wait for a seat, where no new one is sure to come.
func (p *plan) takeBack() {
	on := p.serving
	if p.now.Before(p.Held.Until) || p.Rollout.Failed > 0 {
		on = slices.DeleteFunc(slices.Clone(on), (*Machine).pending)
	}
	missing := p.short(on).seats - p.Create
	for _, m := range p.reserve {
		if missing > 0 && m.rolled() && m.Old() && m.Sessions < max(p.Pool.Seats, 1) && m.Wanted == shoal.WantRun && !p.retired(m.ID) && !slices.Contains(p.Restore, m.ID) {
			p.Restore = append(p.Restore, m.ID)
			missing--
		}
	}
}

// clear takes the rollout's cordon from machines that are as the pool is, again.
func (p *plan) clear() {
	for i := range p.Machines {
		m := &p.Machines[i]
		if m.rolled() && !m.Old() && m.Wanted == shoal.WantRun && !p.retired(m.ID) && !slices.Contains(p.Restore, m.ID) {
			p.Restore = append(p.Restore, m.ID)
		}
	}
}

// sayRollout tells how the replacement of old machines stands.
func (p *plan) sayRollout() {
	old, draining := 0, 0
	for i := range p.Machines {
		if m := &p.Machines[i]; m.State == shoal.MachineReady && m.Old() {
			if old++; m.rolled() {
				draining++
			}
		}
	}
	if old == 0 || p.Pool.Deleting {
		return
	}
	sentence := fmt.Sprintf("%s not as the pool or its image is now", are(old, "machine"))
	switch {
	case p.Rollout.Paused:
		sentence += "; the rollout is paused, until `shoal pool rollout resume " + string(p.Pool.Name) + "`"
	case p.Rollout.Halted():
		sentence += fmt.Sprintf("; the rollout has stopped, since %d new machines in a row did not become ready (`shoal pool rollout undo %s` goes back, `resume` tries again); the last one: %s",
			p.Rollout.Failed, p.Pool.Name, p.Rollout.Why)
	case draining == 1:
		who := "it"
		if old > 1 {
			who = "one of them"
		}
		sentence += "; " + who + " takes nobody new, and goes when nobody is on it"
	case draining > 0:
		sentence += fmt.Sprintf("; %d of them take nobody new, and go when nobody is on them", draining)
	case p.coming() > 0 || p.Create > 0:
		sentence += "; a new one comes first"
	case !p.room():
		sentence += "; there is no room for a new one, so each goes once nobody is on it"
	}
	p.Reasons = append(p.Reasons, shoal.Reason{Code: "rollout", Sentence: sentence})
}

func are(n int, noun string) string {
	if n == 1 {
		return "1 " + noun + " is"
	}
	return count(n, noun) + " are"
}

func outdated(m *Machine) string {
	if m.Outdated != "" {
		return m.Outdated
	}
	return "the pool was changed since the machine was requested"
}
