package sched

import (
	"cmp"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// head is the first task of a pool that found no room. What goes after it may pass it, but not keep
// it from starting at the time it was promised.
//
// The promise is the least time at which as many machines as the task needs have room for it, when
// everything that runs goes on to its limit: on those machines places are kept. A task may pass if
// it is gone by then, or fits beside the place that is kept. So on each of them what may still run
// at that time and the place kept are never more than the machine has, which holds when the places
// are chosen and after each start that is allowed; an early end only makes room. Hence a promise
// found anew is never later, as long as limits are enforced, no machine is lost and nothing that
// goes before the head comes.
//
// Once found it stays the head until it has been served, whatever happens to its user's place in
// line: only a higher priority goes before it. Where too much has no limit there is no promise; the
// machines that seem to be free first are kept all the same, and the same ones until it starts.
type head struct {
	part     *part
	shape    *shape // of the part, when it was found
	priority Priority
	found    instant // it waits from then on
	since    instant // the same, or when the latest machine came
	machines []*machine
	promised instant // never: it cannot be said
	size     int     // of the pool, in machines that take tasks
	beginner bool    // nothing of its user's runs
}

// is reports whether the head is the next task of a part.
func (h *head) is(t *part) bool { return h != nil && h.part == t && h.shape == t.shape }

// job is whose task it is.
func (h *head) job() *job { return h.part.job }

// waits reports whether it still does.
func (h *head) waits() bool {
	return h.part.queued && h.shape == h.part.shape && h.priority == h.part.job.priority
}

// demand is what it will use.
func (h *head) demand() shoal.Resources { return times(h.shape.resources, h.shape.nodes.Min) }

// place is a machine on which the head may be served, and when.
type place struct {
	machine *machine
	at      instant
}

// keep makes a task that found no room the head, or finds anew what is kept for it. It is false, and
// nothing is kept, if no number of ends could make room, or if that takes machines that have not come for long.
func (w *pass) keep(t *part) bool {
	sh, p := t.shape, w.pool
	h := &head{part: t, shape: sh, priority: t.job.priority, found: w.now, since: w.now, promised: never, size: p.size()}
	old := p.head
	if old.is(t) {
		if h.found, h.since, h.beginner = old.found, old.since, old.beginner; h.size > old.size {
			h.since = w.now
		}
	}
	need := sh.nodes.Min
	all := w.candidates(sh)
	coming := p.coming(sh)
	// Machines that come soon may serve it sooner. Those that are here by then wait for them.
	soon := h.since + instant(2*p.boot())
	if len(all) < need && old.is(t) && soon <= w.now {
		t.gaveUp = h.size
	}
	if len(all)+coming < need || len(all) < need && t.gaveUp >= max(h.size, 1) {
		if old.is(t) {
			p.unkeep()
		}
		return false
	}
	chosen := w.choose(all, need, sh)
	if len(chosen) == need {
		h.promised = chosen[need-1].at
	} else {
		w.soon(soon)
	}
	if ready := freeBy(chosen, soon); coming == 0 || soon <= w.now || soon > h.promised || ready+coming < need {
		soon = h.promised
	} else {
		w.soon(soon)
	}
	p.unkeep()
	p.head = h
	for _, c := range chosen {
		c.machine.kept, c.machine.keptUntil = true, h.promised
		if c.at <= soon {
			c.machine.keptUntil = soon
		}
		h.machines = append(h.machines, c.machine)
	}
	for _, m := range h.machines {
		p.reindex(m)
	}
	return true
}

// freeBy counts the places that are free by a time.
func freeBy(places []place, by instant) (n int) {
	for _, c := range places {
		if c.at <= by {
			n++
		}
	}
	return n
}

// candidates are the machines that could hold a task of a shape.
func (w *pass) candidates(sh *shape) []place {
	all := w.scratch[:0]
	class := w.class(sh.needs)
	for m := range w.whole.fitting(sh.resources) {
		if class == loan || sh.resources.Fits(w.base(m, class)) {
			all = append(all, place{m, w.earliest(m, sh, w.now)})
		}
	}
	w.scratch = all
	return all
}

// choose returns the n places that are free first. Where nobody knows when, it stays with those that
// were chosen before, and prefers those with the least to wait for.
func (w *pass) choose(all []place, n int, sh *shape) []place {
	compare := func(a, b place) int {
		if c := cmp.Compare(a.at, b.at); c != 0 {
			return c
		}
		if a.at == never {
			if a.machine.kept != b.machine.kept {
				if a.machine.kept {
					return -1
				}
				return 1
			}
			if c := cmp.Compare(w.lasting(a.machine), w.lasting(b.machine)); c != 0 {
				return c
			}
		}
		return cmp.Compare(a.machine.ID, b.machine.ID)
	}
	if n == 1 && len(all) > 1 {
		return []place{slices.MinFunc(all, compare)}
	}
	slices.SortFunc(all, compare)
	return all[:min(n, len(all))]
}

// lasting is how much of a machine is used by what has no limit.
func (p *pool) lasting(m *machine) int64 {
	var sum int64
	for _, r := range m.runs {
		if r.end() == never {
			sum += p.rate(r.shape.resources, 1)
		}
	}
	return sum
}

// served is called when the head starts.
func (p *pool) served() {
	p.favoured = p.head.beginner
	p.unkeep()
}

// unkeep gives up what is kept for the head.
func (p *pool) unkeep() {
	if p.head == nil {
		return
	}
	machines := p.head.machines
	p.head = nil
	for _, m := range machines {
		m.kept, m.keptUntil = false, 0
		p.reindex(m)
	}
}

// size is how many machines take tasks.
func (p *pool) size() int {
	n := 0
	for _, c := range p.whole.chunks {
		n += len(c.slots)
	}
	return n
}

// coming is how many machines are on their way, or may come, that could hold a task of a shape.
func (p *pool) coming(sh *shape) int {
	n := 0
	if p.Machine == (shoal.Resources{}) || sh.resources.Fits(p.Machine) {
		n = p.Room
	}
	for m := range p.starting {
		if sh.resources.Fits(m.Resources) {
			n++
		}
	}
	return n
}

func (p *pool) boot() time.Duration {
	if p.Boot > 0 {
		return p.Boot
	}
	return 5 * time.Minute
}
