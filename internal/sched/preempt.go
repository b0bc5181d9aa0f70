package sched

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// evictions is how many tasks of a pool are told to go in a minute for what is more urgent, at most:
// a mistake in a priority does not end all work at once. Logins do not wait for it.
const evictions = 30

// want is a task that found no room.
type want struct {
	account  *account
	part     *part
	priority Priority
}

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
		if v.priority > Low || w.isHead(v) {
			w.evict(v, told, claims)
		}
	}
}

func (w *pass) isHead(v want) bool { return w.head.is(v.account, v.part.shape, v.priority) }

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

// evict makes room for a task that found none, if it can be made. What others have to give up already
// counts as theirs.
func (w *pass) evict(v want, told map[*run]bool, claims map[*machine]shoal.Resources) {
	sh := v.part.shape
	need, n := sh.nodes.Min, sh.nodes.Min
	if need > 1 && !w.isHead(v) {
		return // what it frees bit by bit would not stay free for it
	}
	if need == 1 && w.Limits.PerUser == (shoal.PerUser{}) && w.Limits.PerGroup == (shoal.PerGroup{}) {
		n = min(v.part.ready(), evictions)
	}
	var all []eviction
	if need > 1 {
		for _, m := range w.find(nil, sh, need, High+1) {
			all = append(all, eviction{machine: m})
		}
	}
	for m := range w.soft {
		if !m.known || m.Standing != Open || m.kept && !w.isHead(v) && v.priority <= w.head.priority {
			continue
		}
		if need > 1 && slices.ContainsFunc(all, func(e eviction) bool { return e.machine == m }) {
			continue
		}
		if e, ok := w.victims(v, m, told, claims[m]); ok {
			all = append(all, e)
		}
	}
	if len(all) < need {
		return
	}
	slices.SortFunc(all, func(a, b eviction) int {
		return cmp.Or(cmp.Compare(len(a.victims), len(b.victims)), cmp.Compare(a.lost, b.lost), cmp.Compare(a.machine.ID, b.machine.ID))
	})
	all = all[:min(n, len(all))]
	sum := 0
	for _, e := range all {
		sum += len(e.victims)
	}
	if need > 1 && sum > 0 && w.allowed < float64(min(sum, evictions)) {
		w.later(float64(min(sum, evictions)))
		return // all of them or none
	}
	for _, e := range all {
		if need == 1 && float64(len(e.victims)) > w.allowed {
			w.later(float64(len(e.victims)))
			return
		}
		w.allowed -= float64(len(e.victims))
		claims[e.machine] = claims[e.machine].Add(sh.resources)
		for _, r := range e.victims {
			told[r] = true
			reason := fmt.Sprintf("makes room for job %s, which is more urgent", v.part.job.id)
			if v.priority == Low {
				reason = fmt.Sprintf("was started ahead of job %s, which can start now", v.part.job.id)
			}
			w.plan.Preempt = append(w.plan.Preempt, Preemption{Task: r.task, For: v.part.job.id, Machine: e.machine.ID, Reason: reason})
		}
	}
}

// later has a pass made when so many may be told to go.
func (w *pass) later(n float64) {
	w.soon(w.now + instant((n-w.allowed)/evictions*float64(time.Minute)) + 1)
}

// victims are the tasks that have to leave a machine for another to have room: the youngest, and no more
// than it takes.
func (w *pass) victims(v want, m *machine, told map[*run]bool, claimed shoal.Resources) (eviction, bool) {
	e := eviction{machine: m}
	class, q := w.class(v.part.shape.needs), v.part.shape.resources
	chosen := map[*run]bool{}
	fits := func() bool {
		return q.Fits(w.left(m, class, func(r *run) bool { return r.going || told[r] || chosen[r] }).Sub(claimed))
	}
	if fits() {
		return e, true
	}
	for _, r := range w.youngest(m, func(r *run) bool { return r.lowly() && !r.going && !told[r] && w.may(v, r) }) {
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
func (w *pass) may(v want, r *run) bool {
	if r.backfilled && w.isHead(v) {
		return true
	}
	if v.priority <= r.priority {
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
		for _, r := range w.youngest(m, func(r *run) bool { return r.shape.preemptible && !gone(r) }) {
			if (shoal.Resources{}).Fits(left) {
				break
			}
			now := w.left(m, loan, func(o *run) bool { return o == r || gone(o) })
			if least(now, shoal.Resources{}) == least(left, shoal.Resources{}) {
				continue // it uses its own user's seat
			}
			left, told[r] = now, true
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
