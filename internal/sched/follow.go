package sched

import "time"

// Brief tasks cost less to run than to be told of. So that agents are not idle meanwhile, and each message carries
// several, some are placed behind others where there is no room: the agent begins each when the one before has
// ended, in its place. Until then it takes up nothing here.
const (
	briefTime = 100 * time.Millisecond
	briefs    = 16 // so many in a row of one user and shape make those that follow be taken for brief
	maxBehind = 32 // of one task
	maxNeeds  = 100
	maxLooked = 1000 // jobs, some of which may not be placed so
)

// ran notes for how long a task ran that has ended; 0: nobody knows.
func (a *account) ran(n needs, d time.Duration) {
	if d <= 0 || d > briefTime {
		delete(a.brief, n)
		return
	}
	if a.brief == nil || len(a.brief) > maxNeeds {
		a.brief = map[needs]int{}
	}
	a.brief[n] = min(a.brief[n]+1, briefs)
}

// follow places tasks behind those that the pass starts, if they are brief, have no room, and nobody else
// waits in the pool: else users would not take turns.
func (w *pass) follow() {
	if len(w.begun) == 0 {
		return
	}
	a, sh, priority := w.begun[0].account, w.begun[0].shape, w.begun[0].priority
	b := a.queues[priority].of[sh]
	if b == nil || a.brief[sh.needs] < briefs || sh.failed != w.number || sh.nodes.Max > 1 || sh.resources.GPUs > 0 || !w.alone(a) {
		return
	}
	var last []int // in the plan, of each line
	for i, r := range w.begun {
		if r.account != a || r.shape != sh || r.priority != priority {
			return
		}
		last = append(last, len(w.plan.Starts)-len(w.begun)+i)
	}
	// The last ones are spread over all that run.
	n := min(maxBehind, b.count(maxBehind*2*a.person.tasks)/(2*a.person.tasks)) * len(last)
	for _, e := range b.entries[b.start:min(len(b.entries), b.start+maxLooked)] {
		if e.part == nil || e.part.job.maxRunning > 0 || e.part.job.unshiftable {
			continue
		}
		for i := 0; i < e.part.waiting(); i++ {
			t := Task{e.part.job.id, e.part.position(i)}
			if w.filled[t] {
				continue
			}
			if n--; n < 0 || len(w.plan.Starts) >= w.budget {
				return
			}
			before := w.plan.Starts[last[0]]
			last = append(last[1:], len(w.plan.Starts))
			w.plan.Starts = append(w.plan.Starts, Placement{Task: t, Machines: before.Machines, Memory: before.Memory, Behind: before.Task})
		}
	}
}

// alone reports whether of nobody else something waits in the pool, nor places are kept.
func (w *pass) alone(a *account) bool {
	for _, g := range w.parties {
		for _, o := range g.accounts {
			for priority := range o.queues {
				if o != a && o.waits(Priority(priority)) {
					return false
				}
			}
		}
	}
	return len(w.state.holds) == 0
}

// count is how many tasks are ready, but not more than most.
func (b *bucket) count(most int) int {
	n := 0
	for _, e := range b.entries[b.start:] {
		if e.part != nil {
			n += e.part.ready()
		}
		if n >= most {
			return most
		}
	}
	return n
}

// behind puts a run behind the last of those that wait for the end of another. It does nothing if that has ended.
func (r *run) behind(o *run) {
	if o == nil {
		return
	}
	for o.next != nil {
		o = o.next
	}
	o.next, r.before = r, o
}

// leave takes a run out of its line and returns the one whose turn it is now.
func (r *run) leave() *run {
	if r.next != nil {
		r.next.before = r.before
	}
	if r.before == nil {
		return r.next
	}
	r.before.next = r.next
	return nil
}
