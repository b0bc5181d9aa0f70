package sched

import (
	"cmp"
	"container/heap"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// Plan returns what is to be done now: tasks to start, at most budget, in order, and tasks to be told
// to go. The state changes only by Apply of what was carried out; Plan itself remembers for which
// task of a pool machines are kept, how many it had told to go, and which seats rest, which is no part of what Apply builds.
func (s *State) Plan(now time.Time, budget int) Plan {
	at := moment(now)
	s.rebase(at)
	for t, r := range s.holds {
		if r.until <= at {
			s.release(t, r.until)
		}
	}
	var plan Plan
	for _, name := range s.names() {
		p := s.pools[name]
		if !p.dirty && (p.wake == 0 || at < p.wake) || len(plan.Starts) >= budget {
			continue
		}
		n, m := len(plan.Starts), len(plan.Preempt)
		p.passes++
		w := &pass{state: s, pool: p, now: at, weight: s.weight(at), budget: budget, plan: &plan, next: never, number: p.passes, filled: map[Task]bool{}, awaited: map[*shape]int{}}
		w.run()
		p.dirty = len(plan.Starts) > n || len(plan.Preempt) > m
		if p.wake = 0; w.next < never {
			p.wake = w.next
		}
	}
	return plan
}

// pass is one look at one pool. What it would start takes up its place while it lasts, and is taken
// back at its end.
type pass struct {
	state *State
	*pool
	now      instant
	weight   float64 // of a second now
	number   int
	budget   int
	plan     *Plan
	begun    []*run
	filled   map[Task]bool  // started
	wants    []*part        // found no room
	awaited  map[*shape]int // how many tasks get the places of those that are going
	refused  int            // nothing can be kept for them
	failures int            // shapes that were found to fit nowhere
	next     instant
	scratch  []place
}

func (w *pass) run() {
	maps.DeleteFunc(w.resting, func(_ *machine, until instant) bool { return until <= w.now })
	if w.head != nil && !w.head.waits() {
		w.unkeep()
	}
	w.refill()
	for priority := High; priority >= Low; priority-- {
		w.level(priority)
	}
	if len(w.plan.Starts) < w.budget {
		w.preempt()
	}
	if len(w.plan.Preempt) == 0 {
		w.follow()
	}
	for _, r := range slices.Backward(w.begun) {
		r.account.planned -= r.rate
		r.vacate()
	}
}

// soon notes a time at which a pass may find something without a change.
func (w *pass) soon(at instant) {
	if at > w.now {
		w.next = min(w.next, at)
	}
}

// refill starts what had places kept for it, if there are enough now.
func (w *pass) refill() {
	var all []*run
	for _, r := range w.state.holds {
		if r.pool == w.pool && !r.job.blocked {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b *run) int { return cmp.Compare(a.job.number, b.job.number) })
	for _, h := range all {
		for t := range h.job.parts {
			if i, found := slices.BinarySearch(t.again, h.task.Position); found && len(w.plan.Starts) < w.budget {
				w.fill(h, t, t.again[i])
			}
		}
	}
}

func (w *pass) fill(h *run, t *part, position int) {
	h.vacate()
	var got []*machine
	class := w.class(t.shape.needs)
	for _, m := range h.machines {
		w.machines[m.ID] = m // it may have been forgotten for a moment
		if m.known && m.Standing == Open && len(got) < t.shape.nodes.Max && t.shape.resources.Fits(w.left(m, class, nil)) {
			got = append(got, m)
		}
	}
	most, limit := w.most(t)
	got = w.find(got, t.shape, most, High+1, false)
	if limit == "" && len(got) >= t.shape.nodes.Min && t.ready() > 0 {
		w.start(t, position, got[:min(len(got), most)], false)
	}
	h.occupy()
}

// find adds machines with room for a task of a shape, until there are most; for the head first those that
// are kept for it.
func (w *pass) find(got []*machine, sh *shape, most int, priority Priority, head bool) []*machine {
	at := &w.classes[w.class(sh.needs)]
	first := w.head == nil || head || priority > w.head.priority // what is kept is not kept from it
	order := [...]*index{&at.open, &at.short, &at.long}
	if head {
		order = [...]*index{&at.short, &at.open, &at.long}
	}
	end := w.ends(sh, w.now)
	given := len(got)
	for _, x := range order {
		for m := range x.fitting(sh.resources) {
			if len(got) >= most {
				return got
			}
			short := first || m.keptUntil != never && end <= m.keptUntil
			if x == &at.short && !short || x == &at.long && short || given > 0 && slices.Contains(got[:given], m) {
				continue
			}
			if w.rests(m, w.class(sh.needs), sh.resources, w.now) {
				w.soon(w.resting[m])
				continue
			}
			got = append(got, m)
		}
	}
	return got
}

// own finds machines where a user has a seat that holds the task, or one of its nodes; what is kept for the head is not kept from it.
func (w *pass) own(u *person, sh *shape, most int, priority Priority, head bool) (got []*machine) {
	class := w.class(sh.needs)
	for _, m := range u.seats {
		if !m.known || m.Standing != Open || len(got) >= most {
			continue
		}
		seat := w.seat(m, u.name, nil)
		whole := w.left(m, loan, nil).Add(seat)
		mine := sh.resources.Fits(seat) && sh.resources.Fits(whole)
		kept := m.kept && !head && priority <= w.head.priority && (m.keptUntil == never || w.ends(sh, w.now) > m.keptUntil)
		if mine || !kept && class == loan && sh.resources.Fits(whole) {
			got = append(got, m)
		}
	}
	return got
}

// start takes up the places of a task for the rest of the pass.
func (w *pass) start(t *part, position int, machines []*machine, passes bool) {
	ids := make([]shoal.MachineID, len(machines))
	for i, m := range machines {
		ids[i] = m.ID
	}
	memory := shoal.Bytes(0)
	if t != &t.job.part {
		memory = t.shape.resources.Memory
	}
	r := t.job.run(position, t.shape, ids)
	r.placed, r.begun, w.filled[r.task] = w.now, w.now, true
	w.plan.Starts = append(w.plan.Starts, Placement{Task: r.task, Machines: ids, Memory: memory, Backfilled: passes})
	r.account.planned += r.rate
	r.occupy()
	w.begun = append(w.begun, r)
}

// most is how many nodes a task of a shape may have within the limits of its user and group; when
// that is too few it says which limit is in the way. What the head needs is not free for others.
func (p *pool) most(t *part) (int, string) {
	a, sh := t.job.account, t.shape
	user, group := p.Limits.PerUser, p.Limits.PerGroup
	if user == (shoal.PerUser{}) && group == (shoal.PerGroup{}) {
		return sh.nodes.Max, ""
	}
	u, g := a.person.using, a.party.using
	ut, gt := a.person.tasks, a.party.tasks
	if h := p.head; h != nil && !h.is(t) && t.job.priority <= h.priority {
		if h.job().account.person == a.person {
			u, ut = u.Add(h.demand()), ut+1
		}
		if h.job().account.party == a.party {
			g, gt = g.Add(h.demand()), gt+1
		}
	}
	most, which := sh.nodes.Max, ""
	limit := func(name string, each, used, allowed int64) {
		if allowed == 0 || each == 0 {
			return
		}
		if n := int(max(0, allowed-used) / each); n < most {
			if most = n; n < sh.nodes.Min && which == "" {
				which = name
			}
		}
	}
	q := sh.resources
	if user.Tasks > 0 && ut >= user.Tasks {
		return 0, "userTasks"
	}
	limit("userCPUs", int64(q.CPUs), int64(u.CPUs), int64(user.CPUs))
	limit("userMemory", int64(q.Memory), int64(u.Memory), int64(user.Memory))
	limit("userGPUs", int64(q.GPUs), int64(u.GPUs), int64(user.GPUs))
	if group.Tasks > 0 && gt >= group.Tasks && which == "" {
		return 0, "groupTasks"
	}
	limit("groupCPUs", int64(q.CPUs), int64(g.CPUs), int64(group.CPUs))
	limit("groupMemory", int64(q.Memory), int64(g.Memory), int64(group.Memory))
	limit("groupGPUs", int64(q.GPUs), int64(g.GPUs), int64(group.GPUs))
	return most, which
}

// level serves one priority: the head if it is of it, then users of whom nothing runs, then the
// groups by their share, and within each its users by theirs.
func (w *pass) level(priority Priority) {
	all := w.line(priority)
	if h := w.head; h != nil && h.priority == priority {
		for _, u := range all {
			if u.account == h.job().account {
				w.serveHead(u, h.part)
			}
		}
	}
	w.beginners(all, priority)
	w.shares(all)
}

// serveHead tries the head before everybody else of its priority.
func (w *pass) serveHead(u *turn, t *part) {
	if _, limit := w.most(t); limit != "" {
		w.unkeep() // that is what it waits for now
		return
	}
	if len(w.plan.Starts) < w.budget && !w.first(u, t) && t.shape.failed == w.number {
		w.stuck(t)
	}
}

// beginners gives each user of whom nothing runs one task on one machine, whatever her share. When there
// is no room one of them becomes the head, but not twice in a row: else somebody would always be a
// beginner, and a gang wait for ever.
func (w *pass) beginners(all []*turn, priority Priority) {
	idle := slices.DeleteFunc(slices.Clone(all), func(u *turn) bool { return u.account.person.tasks > 0 })
	slices.SortFunc(idle, func(a, b *turn) int {
		return cmp.Or(cmp.Compare(a.side.claim, b.side.claim), compareTurns(a, b))
	})
	for _, u := range idle {
		for range 2 * enough {
			t := u.earliest(w.number)
			if t == nil || t.shape.nodes.Max > 1 || t.job.full() || u.account.person.tasks > 0 || len(w.plan.Starts) >= w.budget {
				break
			}
			if w.first(u, t) || t.shape.failed != w.number {
				break
			}
			if !w.favoured && w.headless(priority) && t.shape.weighed != w.number {
				if w.stuck(t); w.head.is(t) {
					w.head.beginner = true
				}
			}
		}
	}
}

// first starts the first task of a part if there is room.
func (w *pass) first(u *turn, t *part) bool {
	task := Task{t.job.id, t.position(0)}
	if w.filled[task] {
		return false
	}
	machines, passes := w.place(t)
	if machines == nil {
		return false
	}
	w.start(t, task.Position, machines, passes)
	u.charge(w.begun[len(w.begun)-1].rate)
	return true
}

// shares serves the others: the group that has the least by its weight, of it the user who has the least.
func (w *pass) shares(all []*turn) {
	var order sides
	for _, u := range all {
		if len(u.side.turns) == 0 {
			order = append(order, u.side)
		}
		u.side.turns = append(u.side.turns, u)
	}
	for _, g := range order {
		heap.Init(&g.turns)
	}
	heap.Init(&order)
	for len(order) > 0 && len(w.plan.Starts) < w.budget {
		g := order[0]
		u := g.turns[0]
		if u.open(w) {
			w.step(u)
		}
		if len(u.lanes) > 0 {
			heap.Fix(&g.turns, 0)
		} else {
			heap.Pop(&g.turns)
		}
		if len(g.turns) > 0 {
			heap.Fix(&order, 0)
		} else {
			heap.Pop(&order)
		}
	}
}

// step tries the first task of a user; a shape for which there is no room leaves her line.
func (w *pass) step(u *turn) {
	t := u.part()
	if t.shape.failed == w.number && len(u.account.person.seats) == 0 {
		if w.settled(t.shape, u.priority) {
			u.thin(w)
		} else {
			w.stuck(t)
			u.drop()
		}
		return
	}
	if t.job.full() {
		u.skip()
		return
	}
	position := t.position(u.lanes[0].taken)
	if w.filled[Task{t.job.id, position}] {
		u.advance()
		return
	}
	machines, passes := w.place(t)
	if machines == nil {
		if t.shape.failed == w.number {
			w.stuck(t)
		}
		u.drop()
		return
	}
	w.start(t, position, machines, passes)
	u.charge(w.begun[len(w.begun)-1].rate)
	u.advance()
	if len(u.lanes) > 0 {
		u.first = u.lanes[0].first
	}
}

// headless reports whether a task of a priority could become the head: there is none, or a less urgent one.
func (w *pass) headless(priority Priority) bool {
	return w.refused < enough && (w.head == nil || w.head.priority < priority)
}

// settled reports whether nothing more is to be found out about a shape of which no task finds room.
func (w *pass) settled(sh *shape, priority Priority) bool {
	return sh.failed == w.number && (sh.weighed == w.number || !w.headless(priority) && len(w.wants) >= enough)
}

// place finds machines for a task. When there are none it notes that, unless it is a limit that is in the way.
func (w *pass) place(t *part) (machines []*machine, passes bool) {
	sh, h, u := t.shape, w.head, t.job.account.person
	most, limit := w.most(t)
	if limit != "" {
		return nil, false
	}
	if len(u.seats) > 0 {
		if machines = w.own(u, sh, most, t.job.priority, h.is(t)); machines != nil && sh.nodes.Max == 1 {
			return machines, false
		}
	}
	if sh.failed != w.number || machines != nil {
		machines = w.find(machines, sh, most, t.job.priority, h.is(t))
	}
	if n := len(machines); n > 0 && n >= sh.nodes.Min {
		if h.is(t) {
			w.served()
			return machines, false
		}
		return machines, h != nil && t.job.priority <= h.priority
	}
	if sh.failed != w.number {
		sh.failed = w.number
		w.failures++
	}
	return nil, false
}

// enough is for how many shapes a pass does what costs a look at every machine.
const enough = 4

// stuck is about a task that found no room. When nothing at least as urgent was found to wait before,
// machines are kept for it; and some may be told to go for it.
func (w *pass) stuck(t *part) {
	if _, limit := w.most(t); limit != "" {
		return // that is what it waits for
	}
	t.shape.weighed = w.number
	if (w.headless(t.job.priority) || w.head.is(t)) && !w.keep(t) {
		w.refused++
	}
	if len(w.wants) < enough || w.head.is(t) {
		w.wants = append(w.wants, t)
		w.await(t)
	}
}

// line is everybody of whom something of a priority waits.
func (w *pass) line(priority Priority) []*turn {
	var all []*turn
	for _, g := range w.parties {
		var s *side
		for _, a := range g.accounts {
			if !a.waits(priority) {
				continue
			}
			if s == nil {
				share := w.state.shareOf(g.name)
				s = &side{share: share, claim: g.claim(w.weight, share)}
			}
			u := &turn{side: s, account: a, priority: priority, list: a.queues[priority].list, claim: a.claim(w.weight), first: math.MaxInt64}
			for i := range u.list {
				u.first = min(u.first, u.list[i].first)
			}
			all = append(all, u)
		}
	}
	return all
}

// lane walks through the waiting tasks of a bucket. It holds no pointers, so that many cost little.
type lane struct {
	first int64 // number of the job
	line  int32 // in the turn's list
	entry int32 // in the bucket
	taken int   // waiting tasks of that entry that were taken
}

// lanes is a heap by the number of the first job.
type lanes []lane

func (h lanes) Len() int           { return len(h) }
func (h lanes) Less(i, k int) bool { return h[i].first < h[k].first }
func (h lanes) Swap(i, k int)      { h[i], h[k] = h[k], h[i] }
func (h *lanes) Push(x any)        { *h = append(*h, x.(lane)) }
func (h *lanes) Pop() any {
	*h = (*h)[:len(*h)-1]
	return nil
}

// turn is a user waiting for hers, on one account.
type turn struct {
	side     *side
	account  *account
	priority Priority
	claim    float64
	first    int64 // number of the job of her first task, at the start or when something was last given to her
	list     []line
	lanes    lanes
	opened   bool // lanes are made: only when it is her turn, for most of them may be known to fit nowhere
	failures int  // that were known when lanes were made
}

// earliest is the part of her first job whose shape is not known to fit nowhere; nil if there is none.
func (u *turn) earliest(number int) *part {
	var found *line
	for i := range u.list {
		if l := &u.list[i]; (found == nil || l.first < found.first) && l.shape.failed != number {
			found = l
		}
	}
	if found == nil {
		return nil
	}
	return found.bucket.entries[found.bucket.start].part
}

// open makes her lanes, without those that are known to fit nowhere; false if there is none.
func (u *turn) open(w *pass) bool {
	if !u.opened {
		u.opened, u.failures = true, w.failures
		for i, l := range u.list {
			if !w.settled(l.shape, u.priority) || len(u.account.person.seats) > 0 {
				u.lanes = append(u.lanes, lane{first: l.first, line: int32(i), entry: int32(l.bucket.start)})
			}
		}
		heap.Init(&u.lanes)
	}
	return len(u.lanes) > 0
}

func (u *turn) part() *part { return u.list[u.lanes[0].line].bucket.entries[u.lanes[0].entry].part }

// skip goes past a job in her first lane.
func (u *turn) skip() {
	l := &u.lanes[0]
	entries := u.list[l.line].bucket.entries
	l.taken = 0
	for l.entry++; int(l.entry) < len(entries); l.entry++ {
		if entries[l.entry].part != nil {
			l.first = entries[l.entry].number
			heap.Fix(&u.lanes, 0)
			return
		}
	}
	u.drop()
}

// advance goes past a task in her first lane.
func (u *turn) advance() {
	l := &u.lanes[0]
	if l.taken++; l.taken >= u.part().waiting() {
		u.skip()
	}
}

// drop drops her first lane.
func (u *turn) drop() { heap.Pop(&u.lanes) }

// thin drops her first lane, whose shape is known to fit nowhere, and if by now many are, all such.
func (u *turn) thin(w *pass) {
	u.drop()
	if (w.failures-u.failures)*8 >= len(u.lanes) {
		u.failures = w.failures
		u.lanes = slices.DeleteFunc(u.lanes, func(l lane) bool { return w.settled(u.list[l.line].shape, u.priority) })
		heap.Init(&u.lanes)
	}
}

// charge moves her and her group back in line by what was given to her.
func (u *turn) charge(rate int64) {
	more := float64(rate) * (lookahead.Seconds() / unit)
	u.claim += more
	u.side.claim += more / u.side.share
}

func compareTurns(a, b *turn) int {
	return cmp.Or(cmp.Compare(a.claim, b.claim), cmp.Compare(a.first, b.first))
}

// turns is a heap of users by what they claim, then by their first job.
type turns []*turn

func (h turns) Len() int           { return len(h) }
func (h turns) Less(i, k int) bool { return compareTurns(h[i], h[k]) < 0 }
func (h turns) Swap(i, k int)      { h[i], h[k] = h[k], h[i] }
func (h *turns) Push(x any)        { *h = append(*h, x.(*turn)) }
func (h *turns) Pop() any          { return pop((*[]*turn)(h)) }

// side is a group of whose users some wait.
type side struct {
	share float64
	claim float64
	turns turns
}

// sides is a heap of groups like turns.
type sides []*side

func (h sides) Len() int { return len(h) }
func (h sides) Less(i, k int) bool {
	a, b := h[i], h[k]
	return cmp.Or(cmp.Compare(a.claim, b.claim), cmp.Compare(a.turns[0].first, b.turns[0].first)) < 0
}
func (h sides) Swap(i, k int) { h[i], h[k] = h[k], h[i] }
func (h *sides) Push(x any)   { *h = append(*h, x.(*side)) }
func (h *sides) Pop() any     { return pop((*[]*side)(h)) }

func pop[T any](s *[]T) T {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}
