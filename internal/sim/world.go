package sim

import (
	"cmp"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/fleet"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/scale"
	"github.com/shoal-pool/shoal/internal/usage"
)

// Config is a world to be.
type Config struct {
	Seed   uint64
	Pool   shoal.Pool
	Start  time.Time
	Length time.Duration
	Cloud  Cloud
	Faults Faults
	People People
	// Policy decides the pool's size.
	Policy scale.Policy
}

// event is something that happens at a time; those at the same time happen in the order in which they were planned.
type event struct {
	at   time.Time
	rank int
	do   func()
}

type agenda []event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, k int) bool {
	return cmp.Or(a[i].at.Compare(a[k].at), cmp.Compare(a[i].rank, a[k].rank)) < 0
}
func (a agenda) Swap(i, k int) { a[i], a[k] = a[k], a[i] }

// Push and Pop are for package heap.
func (a *agenda) Push(x any) { *a = append(*a, x.(event)) }

// Pop is for package heap.
func (a *agenda) Pop() any {
	old := *a
	e := old[len(old)-1]
	*a = old[:len(old)-1]
	return e
}

// world is a simulation at work.
type world struct {
	Config
	real   time.Time // what time it is
	now    time.Time // what the server's clock shows
	end    time.Time // in real time
	rng    *rand.Rand
	agenda agenda
	ranks  int

	cloud    cloud
	machines map[shoal.MachineID]*machine
	order    []*machine // by age
	made     int
	gone     []shoal.Machine // the latest of them
	spec     int             // counts what machines are made like
	specs    int
	failed   int  // machines, one after another
	broken   bool // what machines are made like now does not boot
	tracks   map[shoal.MachineID]fleet.Track
	hidden   map[shoal.MachineID]time.Time // machines that are not billed any more, since when, though the cloud has not shown that they are gone
	hold     scale.Hold
	samples  []scale.Sample
	changed  time.Time
	wakeAt   time.Time    // when a pass is planned, in real time; zero: none
	dirty    bool         // rows or the cloud changed since they were compared
	bounds   scale.Bounds // that hold now
	compare  time.Time    // when they are to be compared though nothing changed; zero: never
	rows     []shoal.Machine

	sessions map[shoal.SessionID]*session
	waiting  []*session
	tasks    []*task          // that wait, in order
	book     []usage.Interval // of machines and sessions that have ended
	attempts []shoal.Attempt
	out      Result
	shrunk   *shape    // what the pool asked for when it was last made smaller by a rule or for idleness
	roomy    time.Time // since when there is room for another machine, in real time; zero: there is none
}

// machine is a row of the control plane, with what it knows beside it.
type machine struct {
	shoal.Machine
	quiet time.Time // since when its agent is not heard from, in real time; zero: it is
	heard time.Time // since when it is heard from again
	users map[shoal.SessionID]*session
	tasks map[*task]bool
	told  time.Time // since when people know that it ends, in real time
	ended bool      // at its pool's deadline
	// billed is the start of the last interval on the books: a machine may be stopped and started again.
	billed time.Time
}

// shape is what is asked of a pool.
type shape struct {
	at                        time.Time
	sessions, waiting, queued int
	window                    string
}

// Run runs a world to its end.
func Run(c Config) Result {
	w := &world{Config: c, real: c.Start, now: c.Start, end: c.Start.Add(c.Length), rng: rand.New(rand.NewPCG(c.Seed, 1)), machines: map[shoal.MachineID]*machine{},
		tracks: map[shoal.MachineID]fleet.Track{}, hidden: map[shoal.MachineID]time.Time{}, sessions: map[shoal.SessionID]*session{}}
	w.cloud.open(w)
	w.populate()
	w.trouble()
	for at := c.Start; at.Before(w.end); at = at.Add(time.Minute) {
		w.plan(at, func() {})
	}
	for len(w.agenda) > 0 && w.agenda[0].at.Before(w.end) {
		w.clock(w.agenda[0].at)
		for len(w.agenda) > 0 && w.agenda[0].at.Equal(w.real) {
			heap.Pop(&w.agenda).(event).do()
		}
		w.pass()
		w.look()
	}
	w.clock(w.end)
	w.finish()
	return w.out
}

// clock lets it become later.
func (w *world) clock(real time.Time) {
	w.now = w.now.Add(real.Sub(w.real))
	w.real = real
}

// plan puts something on the agenda.
func (w *world) plan(real time.Time, do func()) {
	w.ranks++
	heap.Push(&w.agenda, event{real, w.ranks, do})
}

// in puts something on the agenda for after a while.
func (w *world) in(d time.Duration, do func()) { w.plan(w.real.Add(d), do) }

// wake plans a pass for when the server's clock shows a time, if none is planned before.
func (w *world) wake(at time.Time) {
	if real := w.real.Add(at.Sub(w.now)); at.After(w.now) && (!w.wakeAt.After(w.real) || real.Before(w.wakeAt)) {
		w.wakeAt = real
		w.plan(real, func() {})
	}
}

// pass does what the engine does: look, ask fleet and scale, carry out. Then logins are seated and tasks placed.
func (w *world) pass() {
	w.bounds = scale.BoundsOf(w.Pool, w.now)
	w.attend()
	w.carryOn()
	w.size()
	w.carryOn()
	w.seat()
	w.place()
}

// carryOn lets fleet compare rows and cloud, and carries out what it says.
func (w *world) carryOn() {
	for range 8 {
		if !w.dirty && (w.compare.IsZero() || w.now.Before(w.compare)) {
			return
		}
		w.dirty = false
		actions, next := fleet.Plan(w.fleet(), w.now)
		if w.compare = next; !next.IsZero() {
			w.wake(next)
		}
		for _, a := range actions {
			w.dirty = true
			if a.Verb.Effect() {
				w.effect(a)
				continue
			}
			m := w.machines[a.Machine]
			before := m.State
			m.Machine = fleet.Apply(m.Machine, a, w.now)
			if m.State != before {
				w.left(m)
			}
			if a.Verb == fleet.Restart {
				w.found(m.ID)
			}
		}
	}
}

// fleet is what package fleet is asked.
func (w *world) fleet() fleet.World {
	f := fleet.World{Seen: w.cloud.seen(), Track: w.tracks, Slots: 1 << 20, Holds: map[shoal.PoolName]fleet.Hold{}}
	w.rows = w.rows[:0]
	for _, m := range w.order {
		w.rows = append(w.rows, m.Machine)
	}
	f.Machines = w.rows
	failures := w.failures()
	w.failed = failures.N
	h, ok := failures.Backoff(w.Pool.Tries())
	if w.now.Before(w.hold.Until) && w.hold.Until.After(h.Until) {
		h.Until, h.Reason, ok = w.hold.Until, w.hold.Reason, true
	}
	if ok {
		f.Holds[w.Pool.Name] = h
	}
	return f
}

// failures are machines, as they are made now, that failed one after another.
func (w *world) failures() fleet.Failures {
	form := w.form()
	return fleet.FailuresOf(slices.DeleteFunc(slices.Concat(w.gone, w.rows), func(m shoal.Machine) bool { return m.Spec != form }), w.now)
}

// form is what machines are made like.
func (w *world) form() string { return strconv.Itoa(w.spec) }

// left sees to what was on a machine that no longer runs, and to the bill.
func (w *world) left(m *machine) {
	if m.State == shoal.MachineReady || m.State == shoal.MachineBooting {
		return
	}
	for _, s := range m.sorted() {
		switch {
		case s.away: // she has gone; only nobody knew
			w.conclude(s)
			continue
		case m.ended:
			w.out.EndedByDeadline++
		case m.Wanted == shoal.WantDelete && m.State == shoal.MachineStopping:
			w.out.EndedByScaling++
		case w.honest() && w.cloud.works(m.ID):
			w.breach("%s loses her session on machine %s, which works: %s", s.user, m.ID, m.Reason)
		}
		w.drop(s)
	}
	for _, t := range m.work() {
		w.requeue(t)
	}
	if m.State != shoal.MachineGone && m.State != shoal.MachineStopped {
		return
	}
	if _, known := w.hidden[m.ID]; w.cloud.owes(m.ID) && !known {
		w.hidden[m.ID] = m.Stopped
	}
	w.bill(m)
	if m.State != shoal.MachineGone {
		return
	}
	if w.gone = append(w.gone, m.Machine); len(w.gone) > 20 {
		w.gone = slices.Clone(w.gone[1:])
	}
	delete(w.machines, m.ID)
	w.order = slices.DeleteFunc(w.order, func(x *machine) bool { return x == m })
}

func (m *machine) sorted() []*session {
	var all []*session
	for _, s := range m.users {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *session) int { return cmp.Compare(a.id, b.id) })
	return all
}

// work is what runs on it, in a fixed order.
func (m *machine) work() []*task {
	var all []*task
	for t := range m.tasks {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *task) int { return cmp.Compare(a.rank, b.rank) })
	return all
}

// found closes the time in which a machine ran and was not billed.
func (w *world) found(id shoal.MachineID) {
	if since, ok := w.hidden[id]; ok {
		w.out.hidden += max(w.now.Sub(since), 0)
		delete(w.hidden, id)
	}
}

// bill closes what a machine costs.
func (w *world) bill(m *machine) {
	if !m.Started.IsZero() && m.billed != m.Started {
		m.billed = m.Started
		w.book = append(w.book, usage.Interval{Kind: shoal.ObjectMachine, ID: string(m.ID), Machine: m.ID, Pool: w.Pool.Name, Start: m.Started, End: m.Stopped, Price: w.Pool.Price})
	}
}

// effect asks the cloud, which may be long in answering.
func (w *world) effect(a fleet.Action) {
	late := w.cloud.late()
	if late == 0 {
		w.answered(a)
		return
	}
	t := w.tracks[a.Machine]
	t.Busy, t.Verb = true, a.Verb
	w.tracks[a.Machine] = t
	w.in(late, func() { w.answered(a) })
}

// answered takes what the cloud says to what it was asked for.
func (w *world) answered(a fleet.Action) {
	t := w.tracks[a.Machine]
	t.Busy, t.Verb, t.Ended, t.Error, t.Next = false, a.Verb, w.now, "", time.Time{}
	switch err := w.cloud.call(a.Verb, a.Machine); {
	case err == nil && a.Verb == fleet.Create:
		t.Accepted = true
		w.hold = scale.Hold{}
	case err == errNoRoom:
		w.hold = scale.Hold{Until: w.now.Add(2 * time.Minute), Reason: err.Error()}
		t.Next = w.hold.Until
		w.wake(t.Next)
	case err != nil:
		t.Error, t.Next = err.Error(), w.now.Add(5*time.Second)
		w.wake(t.Next)
	}
	w.tracks[a.Machine] = t
	w.dirty = true
	w.wake(w.now.Add(time.Second)) // the cloud is looked at again
}

// state is the pool as package scale sees it.
func (w *world) state() scale.State {
	s := scale.State{Pool: w.Pool, Waiting: len(w.waiting), Samples: w.samples, Changed: w.changed, Held: w.hold,
		Rollout: scale.Rollout{Failed: w.failed}, Machines: make([]scale.Machine, 0, len(w.order))}
	form := w.form()
	for _, m := range w.order {
		x := scale.Machine{Machine: m.Machine, Sessions: len(m.users), Tasks: len(m.tasks), Used: m.used(), Seats: w.seats(m), Known: w.known(m), Stale: m.Spec != form}
		s.Machines = append(s.Machines, x)
	}
	if n := len(w.tasks); n > 0 {
		s.Queue = []scale.Queue{{Resources: w.tasks[0].needs, Tasks: n}}
	}
	return s
}

// size makes the pool as large as it should be.
func (w *world) size() {
	s := w.state()
	d := w.Policy(s, w.now)
	w.samples = scale.Keep(w.samples, w.Pool, scale.SampleOf(s, w.now))
	if !d.Next.IsZero() {
		w.wake(d.Next)
	}
	if d.Create+len(d.Retire)+len(d.Cordon)+len(d.Roll)+len(d.Force)+len(d.Restore) > 0 {
		w.dirty = true
		if d.Rule != "" && d.Create+len(d.Retire)+len(d.Cordon) > 0 {
			w.changed = w.now
		}
	}
	w.judge(d)
	for _, c := range d.Retire {
		m := w.machines[c.Machine]
		m.Cordons = append(slices.Clone(m.Cordons), shoal.Cordon{Owner: shoal.CordonAutoscaler, Reason: c.Reason.Sentence, Since: w.now})
		m.Wanted, m.Reason = shoal.WantDelete, c.Reason.Sentence
	}
	for _, c := range d.Force {
		m := w.machines[c.Machine]
		m.Wanted, m.Reason, m.ended = shoal.WantDelete, c.Reason.Sentence, true
	}
	for _, c := range d.Cordon {
		m := w.machines[c.Machine]
		m.Cordons = append(slices.Clone(m.Cordons), shoal.Cordon{Owner: shoal.CordonAutoscaler, Reason: c.Reason.Sentence, Since: w.now})
		w.out.Drained++
	}
	for _, c := range d.Roll {
		m := w.machines[c.Machine]
		m.Cordons = append(slices.Clone(m.Cordons), shoal.Cordon{Owner: shoal.CordonRollout, Reason: c.Reason.Sentence, Since: w.now})
		w.out.Rolled++
	}
	for _, id := range d.Await {
		w.machines[id].IdleAt = w.now
	}
	for _, id := range d.Restore {
		w.machines[id].uncordon(shoal.CordonAutoscaler)
		w.machines[id].uncordon(shoal.CordonRollout)
	}
	for range d.Create {
		w.made++
		m := &machine{users: map[shoal.SessionID]*session{}, tasks: map[*task]bool{}, Machine: shoal.Machine{ID: shoal.MachineID(fmt.Sprintf("m-%05d", w.made)), Pool: w.Pool.Name,
			State: shoal.MachineRequested, Since: w.now, Wanted: shoal.WantRun, Provider: "cloud", Spec: w.form(), Resources: w.Pool.Machine, Epoch: 1}}
		w.machines[m.ID] = m
		w.order = append(w.order, m)
	}
	w.out.Created += d.Create
}

// uncordon takes an owner's cordon back.
func (m *machine) uncordon(owner shoal.CordonOwner) {
	m.Cordons = slices.DeleteFunc(slices.Clone(m.Cordons), func(c shoal.Cordon) bool { return c.Owner == owner })
}

// held reports whether an owner keeps the machine.
func (m *machine) held(owner shoal.CordonOwner) bool {
	return slices.ContainsFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Owner == owner })
}

// seat lets route seat who waits.
func (w *world) seat() {
	if len(w.waiting) == 0 {
		return
	}
	s := route.State{Pool: w.Pool, Seed: w.Seed}
	s.Pool.Size, s.Pool.Placement = w.bounds.Size, w.bounds.Placement
	if w.careless() {
		s.Pool.Seats = 1000 // a load balancer knows no seats
	}
	for _, m := range w.order {
		s.Machines = append(s.Machines, m.Machine)
		for _, x := range m.sorted() {
			s.Sessions = append(s.Sessions, shoal.Session{ID: x.id, User: x.user, Pool: w.Pool.Name, Machine: m.ID, State: shoal.SessionActive})
		}
	}
	var line []route.Request
	for _, x := range w.waiting {
		line = append(line, route.Request{User: x.user, Pool: w.Pool.Name, Arrived: x.arrived})
	}
	var left []*session
	for i, o := range route.Seat(s, line) {
		x := w.waiting[i]
		switch {
		case o.Refused != nil:
			w.out.Refused++
			w.breach("%s is refused: %s", x.user, o.Refused)
		case o.Machine == "":
			left = append(left, x)
		default:
			w.sit(x, w.machines[o.Machine])
		}
	}
	w.waiting = left
}
