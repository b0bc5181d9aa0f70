package sched

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// evictions is how many tasks of a pool are told to go in a minute for what is more urgent, at most:
// a mistake in a priority does not end all work at once. Logins do not wait for it.
const evictions = 30

// rest is how long a seat that a login took back is not lent again, although it is free: who comes and goes, as a script does that
// calls ssh, does not have the same task told to go each time.
const rest = instant(2 * time.Minute)

// eviction is what a machine has to give up to have room for a task.
type eviction struct {
	machine *machine
	victims []*run
	lost    instant // work, in nanoseconds of a machine
}

// preempt has tasks told to go: those on seats that somebody came back to, and those of low priority
// for more urgent ones that found no room. Nobody has to go unless the other starts by it.
func (w *pass) preempt() {
	told := map[*run]bool{}
	w.logins(told)
	w.refillAllowance()
	if len(w.soft) == 0 || len(w.wants) == 0 {
		return
	}
	if w.allowed < 1 {
		w.later(1)
		return
	}
	claims := map[*machine]shoal.Resources{} // room that somebody is to get already
	for _, v := range w.wants {
		if _, limit := w.most(v); limit == "" && (v.job.priority > Low || w.head.is(v)) {
			w.evict(v, told, claims)
		}
	}
}

// refillAllowance counts how many may be told to go now.
func (w *pass) refillAllowance() {
	p := w.pool
	if gone := time.Duration(w.now - p.refilled); p.refilled == 0 || gone >= time.Minute {
		p.allowed = evictions
	} else {
		p.allowed = min(evictions, p.allowed+evictions*gone.Minutes())
	}
	p.refilled = w.now
}

// evict makes room for a task that found none, and for the others of its shape and priority, if it can
// be made. What others have to give up already counts as theirs.
func (w *pass) evict(v *part, told map[*run]bool, claims map[*machine]shoal.Resources) {
	need := v.shape.nodes.Min
	if need > 1 && !w.head.is(v) {
		return // what it frees bit by bit would not stay free for it
	}
	all := w.evictions(v, told, claims)
	if len(all) < need {
		return
	}
	if need > 1 { // all of them or none
		all = all[:need]
		sum := 0
		for _, e := range all {
			sum += len(e.victims)
		}
		if most := float64(min(sum, evictions)); w.allowed < most {
			w.later(most)
			return
		}
		for _, e := range all {
			w.tell(v, e, told, claims)
		}
		return
	}
	for n := w.crowd(v) - w.awaited[v.shape]; n > 0 && len(all) > 0; n-- {
		e := all[0]
		if float64(len(e.victims)) > w.allowed {
			w.later(float64(len(e.victims)))
			return
		}
		w.tell(v, e, told, claims)
		all = all[1:]
		if e, ok := w.victims(v, e.machine, told, claims[e.machine]); ok { // it may hold one more
			i, _ := slices.BinarySearchFunc(all, e, compareEvictions)
			all = slices.Insert(all, i, e)
		}
	}
}

// await keeps the places of tasks that were told to go, with what is free beside them, for those that
// found no room: else something less urgent would take a part, and they would have left in vain.
func (w *pass) await(t *part) {
	if len(w.leaving) == 0 || t.job.priority == Low || t.shape.nodes.Max > 1 || w.head.is(t) {
		return
	}
	class, n := w.class(t.shape.needs), w.crowd(t)
	gone := func(r *run) bool { return r.going }
	for _, m := range slices.SortedFunc(maps.Keys(w.leaving), func(a, b *machine) int { return cmp.Compare(a.ID, b.ID) }) {
		if !m.known || m.Standing != Open || m.kept && t.job.priority <= w.head.priority {
			continue
		}
		for w.awaited[t.shape] < n && t.shape.resources.Fits(w.left(m, class, gone)) {
			r := t.job.run(0, t.shape, []shoal.MachineID{m.ID})
			r.hold, r.claim, r.rate, r.until = true, true, 0, w.ends(t.shape, w.now)
			r.occupy()
			w.begun = append(w.begun, r)
			w.awaited[t.shape]++
		}
	}
}

// crowd is how many tasks may be helped at once: those of the same shape and priority.
func (w *pass) crowd(v *part) int {
	if w.Limits.PerUser != (shoal.PerUser{}) || w.Limits.PerGroup != (shoal.PerGroup{}) {
		return 1 // of more nobody knows whether they are allowed to start
	}
	const most = 1000
	n := 0
	for _, a := range w.accounts {
		if b := a.queues[v.job.priority].of[v.shape]; b != nil {
			for _, e := range b.entries {
				if e.part != nil && n < most {
					n += e.part.ready()
				}
			}
		}
	}
	return min(n, most)
}

// evictions are the machines that can be made to hold a task, those that lose the least first.
func (w *pass) evictions(v *part, told map[*run]bool, claims map[*machine]shoal.Resources) []eviction {
	var all []eviction
	free := map[*machine]bool{}
	if v.shape.nodes.Min > 1 {
		for _, m := range w.find(nil, v.shape, v.shape.nodes.Min, v.job.priority, true) {
			free[m] = true
			all = append(all, eviction{machine: m})
		}
	}
	for m := range w.soft {
		if !m.known || m.Standing != Open || free[m] || m.kept && !w.head.is(v) && v.job.priority <= w.head.priority {
			continue
		}
		if e, ok := w.victims(v, m, told, claims[m]); ok {
			all = append(all, e)
		}
	}
	slices.SortFunc(all, compareEvictions)
	return all
}

func compareEvictions(a, b eviction) int {
	return cmp.Or(cmp.Compare(len(a.victims), len(b.victims)), cmp.Compare(a.lost, b.lost), cmp.Compare(a.machine.ID, b.machine.ID))
}

// tell has the victims told to go.
func (w *pass) tell(v *part, e eviction, told map[*run]bool, claims map[*machine]shoal.Resources) {
	claims[e.machine] = claims[e.machine].Add(v.shape.resources)
	for _, r := range e.victims {
		if told[r] {
			continue // one task has several of the machines
		}
		told[r] = true
		w.allowed--
		reason := fmt.Sprintf("makes room for job %s, which is more urgent", v.job.id)
		if v.job.priority == Low {
			reason = fmt.Sprintf("was started ahead of job %s, which can start now", v.job.id)
		}
		w.plan.Preempt = append(w.plan.Preempt, Preemption{Task: r.task, For: v.job.id, Machine: e.machine.ID, Reason: reason})
	}
}

// later has a pass made when so many may be told to go.
func (w *pass) later(n float64) {
	w.soon(w.now + instant((n-w.allowed)/evictions*float64(time.Minute)) + 1)
}

// victims are the tasks that have to leave a machine for another to have room: the youngest, and no more
// than it takes.
func (w *pass) victims(v *part, m *machine, told map[*run]bool, claimed shoal.Resources) (eviction, bool) {
	e := eviction{machine: m}
	class, q := w.class(v.shape.needs), v.shape.resources
	chosen := map[*run]bool{}
	fits := func() bool {
		return q.Fits(w.left(m, class, func(r *run) bool { return r.going || told[r] || chosen[r] }).Sub(claimed))
	}
	if fits() {
		return e, true
	}
	for _, r := range w.youngest(m, func(r *run) bool {
		return r.lowly() && !r.going && !told[r] && w.state.tasks[r.task] == r && w.may(v, r)
	}) {
		chosen[r] = true
		e.victims = append(e.victims, r)
		if fits() {
			break
		}
	}
	if !fits() {
		return e, false
	}
	e.victims = slices.DeleteFunc(e.victims, func(r *run) bool {
		if delete(chosen, r); fits() {
			return true
		}
		chosen[r] = true
		return false
	})
	for _, r := range e.victims {
		e.lost += instant(float64(max(0, w.now-r.begun)) * float64(r.rate) / unit)
	}
	return e, true
}

// may reports whether a task of low priority may be told to go for another: when the other is more
// urgent and it has had its time, or when it was started ahead of the other.
func (w *pass) may(v *part, r *run) bool {
	if r.backfilled && w.head.is(v) && r.begun >= w.head.found && r.job != v.job {
		return true
	}
	if v.job.priority <= r.priority {
		return false
	}
	least := time.Duration(w.Limits.MinRunTime)
	if least <= 0 {
		least = time.Minute
	}
	if due := r.begun + instant(least); w.now < due {
		w.soon(due)
		return false
	}
	return true
}

// youngest are the tasks on a machine for which want is true, of the lowest priority first, then
// those that began last.
func (w *pass) youngest(m *machine, want func(*run) bool) []*run {
	var all []*run
	for _, r := range m.runs {
		if want(r) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b *run) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(b.begun, a.begun),
			cmp.Compare(b.job.number, a.job.number), cmp.Compare(b.task.Position, a.task.Position))
	})
	return all
}

// logins has tasks told to go that use what the sessions on their machine are entitled to, at once and
// however young they are.
func (w *pass) logins(told map[*run]bool) {
	if !w.Interactive {
		return
	}
	var all []*machine
	for m := range w.seated {
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b *machine) int { return cmp.Compare(a.ID, b.ID) })
	for _, m := range all {
		gone := func(r *run) bool { return r.going || r.hold || told[r] }
		left := w.left(m, loan, gone)
		for _, r := range w.youngest(m, func(r *run) bool { return r.shape.preemptible && !gone(r) && w.state.tasks[r.task] == r }) {
			if (shoal.Resources{}).Fits(left) {
				break
			}
			now := w.left(m, loan, func(o *run) bool { return o == r || gone(o) })
			if least(now, shoal.Resources{}) == least(left, shoal.Resources{}) {
				continue // it uses its own user's seat
			}
			left, told[r], w.resting[m] = now, true, w.now+rest
			w.plan.Preempt = append(w.plan.Preempt, Preemption{Task: r.task, Users: w.sitting(m), Machine: m.ID, Reason: "makes room for who logged in"})
		}
	}
}

// sitting are the users who are there and whose seat is not all in use by their own tasks.
func (p *pool) sitting(m *machine) []shoal.UserName {
	var all []shoal.UserName
	for _, s := range m.Sessions {
		if s.Active && p.seat(m, s.User, nil) != (shoal.Resources{}) {
			all = append(all, s.User)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
