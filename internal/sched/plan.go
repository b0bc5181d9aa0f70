package sched

import (
	"cmp"
	"container/heap"
	"maps"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// Plan returns what is to be done now: tasks to start, at most budget, in order. The state changes only by
// Apply of the starts that were carried out; Plan itself remembers for which shape it keeps a
// machine, which is no part of what Apply builds.
func (s *State) Plan(_ time.Time, budget int) Plan {
	var out []Placement
	for _, name := range slices.Sorted(maps.Keys(s.pools)) {
		p := s.pools[name]
		if !p.dirty || len(out) >= budget {
			continue
		}
		n := len(out)
		out = newPass(s, p, budget).run(out)
		p.dirty = len(out) > n
	}
	return Plan{Starts: out}
}

// Next is when Plan may answer something else although nothing was applied; zero: never.
func (s *State) Next(time.Time) time.Time { return time.Time{} }

// Usage is what users used, by pool, group and name.
func (s *State) Usage(time.Time) []UserUsage { return nil }

// pass is one look at one pool. What it would start it notes here and not in the state.
type pass struct {
	*pool
	budget  int
	spent   map[shoal.MachineID]shoal.Resources
	use     map[shoal.UserName]shoal.Resources
	largest shoal.Resources // no open machine has more left of anything
	stale   bool            // something was given away since largest was found
	keeping bool            // the kept machine has been settled: a shape in need is served first come
}

func newPass(_ *State, p *pool, budget int) *pass {
	w := &pass{pool: p, budget: budget, spent: map[shoal.MachineID]shoal.Resources{}, use: map[shoal.UserName]shoal.Resources{}}
	w.measure()
	if k := p.keep; k != nil {
		m := p.machines[k.machine]
		if m.Standing != Open || !k.shape.Fits(m.Resources) || !p.waits(k.shape, k.priority) {
			p.keep = nil
		}
	}
	w.keeping = p.keep != nil
	return w
}

// measure finds the largest free amount of each resource, so that what fits nowhere costs no look
// at every machine.
func (w *pass) measure() {
	w.largest, w.stale = shoal.Resources{}, false
	for _, m := range w.machines {
		if m.Standing != Open {
			continue
		}
		f := w.free(m)
		w.largest.CPUs = max(w.largest.CPUs, f.CPUs)
		w.largest.Memory = max(w.largest.Memory, f.Memory)
		w.largest.GPUs = max(w.largest.GPUs, f.GPUs)
	}
}

// waits reports whether anything of a shape and priority waits.
func (p *pool) waits(shape shoal.Resources, priority Priority) bool {
	for _, shapes := range p.queues[priority] {
		if shapes[shape] != nil {
			return true
		}
	}
	return false
}

// free is what is left of a machine, what this pass gave away included.
func (w *pass) free(m Machine) shoal.Resources {
	return m.Resources.Sub(w.used[m.ID]).Sub(w.spent[m.ID])
}

func (w *pass) run(out []Placement) []Placement {
	if w.largest == (shoal.Resources{}) && w.keep != nil {
		return out // full, and it is settled who is next
	}
	for priority := High; priority >= Low; priority-- {
		out = w.level(priority, out)
	}
	return out
}

// level serves one priority: the user with the least in use, of her jobs the first that fits.
func (w *pass) level(priority Priority, out []Placement) []Placement {
	var users turns
	for name, shapes := range w.queues[priority] {
		u := &turn{user: name, cpus: w.inUse(name).CPUs}
		for shape, b := range shapes {
			l := &lane{shape: shape, bucket: b}
			l.skip()
			u.lanes = append(u.lanes, l)
		}
		heap.Init(&u.lanes)
		users = append(users, u)
	}
	heap.Init(&users)
	fits := map[shoal.Resources]*places{}
	for len(users) > 0 && len(out) < w.budget {
		u := users[0]
		l := u.lanes[0]
		machine, ok := w.place(u.user, l.shape, priority, fits)
		if !ok {
			heap.Pop(&u.lanes)
		} else {
			out = append(out, Placement{Task: l.task(), Machines: []shoal.MachineID{machine}})
			w.spent[machine] = w.spent[machine].Add(l.shape)
			w.stale = true
			w.use[u.user] = w.use[u.user].Add(l.shape)
			u.cpus += l.shape.CPUs
			if l.advance() {
				heap.Fix(&u.lanes, 0)
			} else {
				heap.Pop(&u.lanes)
			}
		}
		if len(u.lanes) == 0 {
			heap.Pop(&users)
		} else {
			heap.Fix(&users, 0)
		}
	}
	return out
}

func (w *pass) inUse(user shoal.UserName) shoal.Resources {
	return w.pool.use[user].Add(w.use[user])
}

// place finds a machine for one task of a shape. When there is none, and no machine is kept yet
// for somebody at least as urgent, one is kept for this shape.
func (w *pass) place(user shoal.UserName, shape shoal.Resources, priority Priority, fits map[shoal.Resources]*places) (shoal.MachineID, bool) {
	if most := w.Limits.PerUser.GPUs; most > 0 && shape.GPUs > 0 && w.inUse(user).GPUs+shape.GPUs > most {
		return "", false
	}
	c := fits[shape]
	if c == nil {
		c = &places{machines: w.candidates(shape, priority)}
		fits[shape] = c
	}
	for c.next < len(c.machines) {
		// A machine that has become too full stays so for this pass.
		if m := c.machines[c.next]; shape.Fits(w.free(m)) && w.allowed(m.ID, shape, priority) {
			if w.keep != nil && w.keep.shape == shape {
				w.keep = nil // served
			}
			return m.ID, true
		}
		c.next++
	}
	if w.keep == nil && !w.keeping || w.keep != nil && w.keep.priority < priority {
		w.reserve(shape, priority)
	}
	return "", false
}

// places are the machines a shape fits on, in the order in which they are filled.
type places struct {
	machines []Machine
	next     int
}

// candidates are the machines with room for a shape, the fullest first: so that large tasks find
// room, and empty machines can go.
func (w *pass) candidates(shape shoal.Resources, priority Priority) []Machine {
	if w.stale && shape.Fits(w.largest) {
		w.measure()
	}
	if !shape.Fits(w.largest) {
		return nil
	}
	var all []Machine
	for _, m := range w.machines {
		if m.Standing == Open && shape.Fits(w.free(m)) && w.allowed(m.ID, shape, priority) {
			all = append(all, m)
		}
	}
	slices.SortFunc(all, func(a, b Machine) int {
		fa, fb := w.free(a), w.free(b)
		return cmp.Or(cmp.Compare(fa.GPUs, fb.GPUs), cmp.Compare(fa.CPUs, fb.CPUs), cmp.Compare(fa.Memory, fb.Memory), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// allowed reports whether a shape may go to a machine that may be kept for another.
func (w *pass) allowed(id shoal.MachineID, shape shoal.Resources, priority Priority) bool {
	k := w.keep
	return k == nil || k.machine != id || k.shape == shape || priority > k.priority
}

// reserve keeps a machine for a shape: the one with the most room of those that could hold it.
func (w *pass) reserve(shape shoal.Resources, priority Priority) {
	best := Machine{}
	for _, m := range w.machines {
		if m.Standing != Open || !shape.Fits(m.Resources) {
			continue
		}
		a, b := w.free(m), w.free(best)
		if best.ID == "" || cmp.Or(cmp.Compare(a.CPUs, b.CPUs), cmp.Compare(a.Memory, b.Memory), cmp.Compare(best.ID, m.ID)) > 0 {
			best = m
		}
	}
	if best.ID != "" {
		w.keep = &keep{best.ID, shape, priority}
		w.keeping = true
	}
}

// lane walks through the waiting tasks of a bucket.
type lane struct {
	shape  shoal.Resources
	bucket *bucket
	at     int // entry
	taken  int // waiting tasks of that entry's job that were taken
}

func (l *lane) job() *job { return l.bucket.entries[l.at].job }

func (l *lane) task() Task { return Task{l.job().ID, l.job().position(l.taken)} }

// skip goes past holes; false if nothing is left.
func (l *lane) skip() bool {
	for l.at < len(l.bucket.entries) && l.job() == nil {
		l.at++
	}
	return l.at < len(l.bucket.entries)
}

// advance goes to the next waiting task; false if there is none.
func (l *lane) advance() bool {
	l.taken++
	if l.taken < l.job().waiting() {
		return true
	}
	l.at, l.taken = l.at+1, 0
	return l.skip()
}

// lanes is a heap of a user's lanes by the number of their first job.
type lanes []*lane

func (h lanes) Len() int           { return len(h) }
func (h lanes) Less(i, k int) bool { return h[i].job().Number < h[k].job().Number }
func (h lanes) Swap(i, k int)      { h[i], h[k] = h[k], h[i] }
func (h *lanes) Push(x any)        { *h = append(*h, x.(*lane)) }
func (h *lanes) Pop() any          { return pop((*[]*lane)(h)) }

// turn is a user waiting for hers.
type turn struct {
	user  shoal.UserName
	cpus  shoal.MilliCPU // in use
	lanes lanes
}

// turns is a heap of users by what they have in use, then by their first job.
type turns []*turn

func (h turns) Len() int { return len(h) }
func (h turns) Less(i, k int) bool {
	a, b := h[i], h[k]
	return cmp.Or(cmp.Compare(a.cpus, b.cpus), cmp.Compare(a.lanes[0].job().Number, b.lanes[0].job().Number)) < 0
}
func (h turns) Swap(i, k int) { h[i], h[k] = h[k], h[i] }
func (h *turns) Push(x any)   { *h = append(*h, x.(*turn)) }
func (h *turns) Pop() any     { return pop((*[]*turn)(h)) }

func pop[T any](s *[]T) T {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}
