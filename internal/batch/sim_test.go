package batch_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/batch"
	"github.com/shoal-pool/shoal/internal/batch/fence"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// sim is a world whose network can be cut, whose agents keep their lease by clocks of their own, and
// which watches that no two attempts of a task run at the same time.
type sim struct {
	t    *testing.T
	w    *world
	rnd  *rand.Rand
	took func(api.TaskOrder) (time.Duration, int) // how long a node's command takes, and its exit code

	parts sync.WaitGroup

	mu       sync.Mutex
	nodes    map[shoal.MachineID]*node
	answered map[shoal.MachineID]time.Time
	running  map[shoal.TaskRef]map[runner]bool
	ready    map[runner]map[shoal.TaskRef]bool // nodes of gangs that were ready
	begun    int
	killed   int // by the lease
	overlaps int // of tasks that may
}

// runner is a node that runs its command.
type runner struct {
	attempt int
	machine shoal.MachineID
}

// node is a machine and its agent.
type node struct {
	s    *sim
	id   shoal.MachineID
	rate float64 // of its clock
	stop context.CancelFunc
	ctx  context.Context

	mu    sync.Mutex // taken before sim.mu
	cut   bool       // nothing goes through
	deaf  bool       // no report is answered
	up    bool       // a stream is open
	fresh bool       // since the last expiry a report was answered
	told  time.Time  // when what was answered last was sent
	tasks map[shoal.AttemptRef]*simTask
	news  chan struct{}
}

type simTask struct {
	order  api.TaskOrder
	held   bool
	runs   bool
	end    chan shoal.JobState
	report api.TaskReport // of its end
}

// simLease is that of production; an agent's beat is short of it.
const simBeat = 2 * time.Minute

func newSim(t *testing.T, seed uint64) *sim {
	s := &sim{t: t, rnd: rand.New(rand.NewPCG(seed, 11)), nodes: map[shoal.MachineID]*node{}, answered: map[shoal.MachineID]time.Time{}, running: map[shoal.TaskRef]map[runner]bool{}, ready: map[runner]map[shoal.TaskRef]bool{}}
	s.took = func(api.TaskOrder) (time.Duration, int) { return time.Minute, 0 }
	return s
}

// wire makes the batch service ask and tell this world's nodes.
func (s *sim) wire(c *batch.Config) {
	c.Answered = func(id shoal.MachineID) time.Time {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.answered[id]
	}
	c.Send = func(id shoal.MachineID, r api.Record) bool {
		s.mu.Lock()
		n := s.nodes[id]
		s.mu.Unlock()
		return n != nil && n.receive(r)
	}
}

// add makes a machine.
func (s *sim) add(id shoal.MachineID) *node {
	ctx, stop := context.WithCancel(s.w.ctx)
	s.mu.Lock()
	rate := 0.99 + 0.02*s.rnd.Float64()
	s.mu.Unlock()
	n := &node{s: s, id: id, ctx: ctx, stop: stop, rate: rate, fresh: true, told: time.Now(),
		tasks: map[shoal.AttemptRef]*simTask{}, news: make(chan struct{}, 1)}
	s.mu.Lock()
	s.nodes[id] = n
	s.mu.Unlock()
	s.parts.Go(n.live)
	s.w.put(id, state(shoal.MachineReady))
	return n
}

// die ends a machine with all that runs there.
func (s *sim) die(id shoal.MachineID) {
	n := s.nodes[id]
	n.mu.Lock()
	n.stop()
	for ref, t := range n.tasks {
		if t.runs {
			n.over(ref, t)
		}
	}
	n.tasks = map[shoal.AttemptRef]*simTask{}
	n.mu.Unlock()
	s.mu.Lock()
	delete(s.nodes, id)
	s.mu.Unlock()
	s.w.put(id, state(shoal.MachineFailed))
}

func (n *node) poke() {
	select {
	case n.news <- struct{}{}:
	default:
	}
}

// expired reports whether the lease is over, by the node's own clock. n.mu is held.
func (n *node) expired() bool {
	return time.Duration(float64(time.Since(n.told))*n.rate) >= fence.Default().Lease
}

// live reports, keeps the stream open and watches the lease, until the machine dies.
func (n *node) live() {
	var last time.Time
	for n.ctx.Err() == nil {
		select {
		case <-n.ctx.Done():
			return
		case <-n.news:
		case <-time.After(5 * time.Second):
		}
		n.mu.Lock()
		if n.expired() {
			n.lapse()
		}
		open, cut, fresh := n.up, n.cut, n.fresh
		var reports []api.TaskReport
		for _, ref := range slices.SortedFunc(maps.Keys(n.tasks), func(a, b shoal.AttemptRef) int { return a.Attempt - b.Attempt }) {
			if t := n.tasks[ref]; t.report.State != "" {
				reports = append(reports, t.report)
			} else if t.runs {
				reports = append(reports, api.TaskReport{Ref: ref, State: shoal.JobRunning})
			} else {
				reports = append(reports, api.TaskReport{Ref: ref, State: shoal.JobStarting})
			}
		}
		n.mu.Unlock()
		if cut {
			continue
		}
		if !open && fresh {
			n.connect()
		}
		if len(reports) > 0 || time.Since(last) > simBeat-10*time.Second {
			if n.tell(reports) {
				last = time.Now()
			}
		}
	}
}

// lapse ends what runs when the lease is over, and forgets what has not begun. n.mu is held.
func (n *node) lapse() {
	n.up, n.fresh = false, false
	for ref, t := range n.tasks {
		switch {
		case t.order.Idempotent:
		case t.runs:
			n.s.mu.Lock()
			n.s.killed++
			n.s.mu.Unlock()
			n.ask(t, shoal.JobLost)
		case t.report.State == "":
			delete(n.tasks, ref)
		}
	}
}

func (n *node) ask(t *simTask, state shoal.JobState) {
	select {
	case t.end <- state:
	default:
	}
}

// tell sends a report; false if no answer came.
func (n *node) tell(reports []api.TaskReport) bool {
	sent := time.Now()
	n.s.w.mu.Lock()
	server := n.s.w.Batch
	n.s.w.mu.Unlock()
	ctx, cancel := context.WithTimeout(n.ctx, 20*time.Second)
	defer cancel()
	n.mu.Lock()
	lost, late := n.deaf, time.Duration(0)
	n.mu.Unlock()
	n.s.mu.Lock()
	if n.s.rnd.IntN(10) == 0 {
		late = time.Duration(n.s.rnd.IntN(10)) * time.Second
	}
	n.s.mu.Unlock()
	time.Sleep(late) // on its way
	if _, err := server.Report(ctx, n.id, reports, nil); err != nil {
		return false
	}
	n.s.mu.Lock()
	n.s.answered[n.id] = time.Now()
	n.s.mu.Unlock()
	time.Sleep(late) // on its way back
	n.mu.Lock()
	defer n.mu.Unlock()
	if lost || n.cut || n.ctx.Err() != nil {
		return false
	}
	n.told, n.fresh = sent, true
	return true
}

func (n *node) connect() {
	n.s.w.mu.Lock()
	server := n.s.w.Batch
	n.s.w.mu.Unlock()
	n.mu.Lock()
	n.up = true
	n.mu.Unlock()
	ctx, cancel := context.WithTimeout(n.ctx, 10*time.Second)
	defer cancel()
	orders, err := server.Orders(ctx, n.id)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil || n.cut {
		n.up = false
		return
	}
	listed := map[shoal.AttemptRef]bool{}
	for _, o := range orders {
		listed[o.Ref] = true
		n.start(o)
	}
	for ref, t := range n.tasks {
		if !listed[ref] && t.report.State == "" {
			n.end(ref, t, shoal.JobCancelled)
		}
	}
}

// receive takes a record; false if there is no stream.
func (n *node) receive(r api.Record) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.up || n.cut || n.ctx.Err() != nil {
		return false
	}
	switch {
	case r.Run != nil:
		n.start(*r.Run)
	case r.Stop != nil:
		t := n.tasks[r.Stop.Ref]
		if t == nil { // it never came here, and does not start any more
			n.tasks[r.Stop.Ref] = &simTask{order: api.TaskOrder{Ref: r.Stop.Ref}, report: api.TaskReport{Ref: r.Stop.Ref, State: r.Stop.State, Cause: shoal.CauseCancelled}}
		} else if t.report.State == "" {
			n.end(r.Stop.Ref, t, r.Stop.State)
		}
	case r.Forget != nil:
		for _, ref := range r.Forget.Refs {
			if t := n.tasks[ref]; t != nil && t.report.State != "" {
				delete(n.tasks, ref)
			}
		}
	}
	n.poke()
	return true
}

// start takes an order, unless the lease is over. n.mu is held.
func (n *node) start(o api.TaskOrder) {
	t := n.tasks[o.Ref]
	switch {
	case n.expired() || !n.fresh:
		return
	case t == nil:
		t = &simTask{order: o, held: o.Hold, end: make(chan shoal.JobState, 1)}
		n.tasks[o.Ref] = t
	case t.report.State != "" || t.runs || !t.held:
		return
	default:
		t.held = o.Hold
	}
	if t.held {
		n.s.mu.Lock()
		at := runner{o.Ref.Attempt, n.id}
		if n.s.ready[at] == nil {
			n.s.ready[at] = map[shoal.TaskRef]bool{}
		}
		n.s.ready[at][o.Ref.TaskRef] = true
		n.s.mu.Unlock()
		n.poke()
		return
	}
	t.order, t.runs = o, true
	if !o.Idle {
		n.began(o)
	}
	n.s.parts.Go(func() { n.play(t, o) })
	n.poke()
}

// play is the command of a task on its node.
func (n *node) play(t *simTask, o api.TaskOrder) {
	n.s.mu.Lock()
	takes, exit := n.s.took(o)
	n.s.mu.Unlock()
	if o.Idle {
		takes = 1000 * time.Hour
	}
	r := api.TaskReport{Ref: o.Ref, State: shoal.JobSucceeded, Cause: shoal.CauseExit, ExitCode: exit}
	if exit != 0 {
		r.State = shoal.JobFailed
	}
	select {
	case <-time.After(takes):
	case why := <-t.end:
		n.s.mu.Lock()
		grace := time.Duration(n.s.rnd.Int64N(int64(fence.Default().Grace)))
		n.s.mu.Unlock()
		time.Sleep(time.Duration(float64(grace) / n.rate))
		r = api.TaskReport{Ref: o.Ref, State: why, Cause: shoal.CauseCancelled}
		if why == shoal.JobLost {
			r.Cause = shoal.CauseMachineLost
		}
	case <-n.ctx.Done():
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.report.State == "" && n.ctx.Err() == nil {
		t.report = r
		n.over(o.Ref, t)
		n.poke()
	}
}

// end stops what a task runs, or has it end as if it never began. n.mu is held.
func (n *node) end(ref shoal.AttemptRef, t *simTask, state shoal.JobState) {
	if t.runs {
		n.ask(t, state)
		return
	}
	t.report = api.TaskReport{Ref: ref, State: state, Cause: shoal.CauseCancelled}
	n.poke()
}

// began notes that a command begins: of no other attempt of the task may one run, and of a gang all nodes
// must be ready.
func (n *node) began(o api.TaskOrder) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	n.s.begun++
	all := n.s.running[o.Ref.TaskRef]
	for r := range all {
		if r.attempt != o.Ref.Attempt {
			if o.Idempotent {
				n.s.overlaps++
			} else {
				n.s.t.Errorf("%v: %s begins on %s while attempt %d runs on %s", time.Now().Format(time.TimeOnly), o.Ref, n.id, r.attempt, r.machine)
			}
		}
	}
	if all == nil {
		all = map[runner]bool{}
		n.s.running[o.Ref.TaskRef] = all
	}
	all[runner{o.Ref.Attempt, n.id}] = true
	if o.SSH == nil {
		return
	}
	for _, peer := range o.SSH.Nodes {
		if !n.s.ready[runner{o.Ref.Attempt, peer.Name}][o.Ref.TaskRef] {
			n.s.t.Errorf("%s begins on %s before its node on %s is ready", o.Ref, n.id, peer.Name)
		}
	}
}

// over notes that a command is gone. n.mu is held.
func (n *node) over(ref shoal.AttemptRef, t *simTask) {
	t.runs = false
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	delete(n.s.running[ref.TaskRef], runner{ref.Attempt, n.id})
}

// cutOff changes what goes through to a machine.
func (s *sim) cutOff(id shoal.MachineID, cut, deaf bool) {
	s.mu.Lock()
	n := s.nodes[id]
	s.mu.Unlock()
	if n == nil {
		return
	}
	n.mu.Lock()
	n.cut, n.deaf = cut, deaf
	if cut {
		n.up = false
	}
	n.mu.Unlock()
	n.poke()
}

// simulate runs a test in a world of a sim.
func simulate(t *testing.T, seed uint64, fn func(*sim)) {
	t.Helper()
	simulateIn(t, seed, shoal.Pool{Size: shoal.Size{Max: 20}}, fn)
}

func simulateIn(t *testing.T, seed uint64, pool shoal.Pool, fn func(*sim)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(t, seed)
		s.w = newWorld(t, storetest.Open(t), t.TempDir(), pool, s.wire)
		fn(s)
		s.mu.Lock()
		for _, n := range s.nodes {
			n.stop()
		}
		s.mu.Unlock()
		s.parts.Wait()
	})
}

// restart ends the server wherever it is, and starts it anew a while later. Streams break.
func (s *sim) restart(after time.Duration) {
	s.mu.Lock()
	all := maps.Clone(s.nodes)
	s.mu.Unlock()
	for _, n := range all {
		n.mu.Lock()
		n.up = false
		n.mu.Unlock()
	}
	s.w.stop()
	time.Sleep(after)
	s.mu.Lock()
	s.answered = map[shoal.MachineID]time.Time{}
	s.mu.Unlock()
	s.w.start()
}

// Machines are cut off in both directions or in one, die, come anew; agents' clocks run at other rates;
// reports and answers are late or lost; the server is started anew. No two attempts of a task run at the
// same time, gangs begin whole, and everything is done in the end.
func TestPartitions(t *testing.T) {
	for seed := range uint64(scaled(3, 200)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { simulate(t, seed, partitions) })
	}
}

func partitions(s *sim) {
	trouble(s, func(i int) shoal.JobSpec { return shoal.JobSpec{Array: "1-8", Idempotent: i == 5} }, 8)
}

// trouble has jobs done while things break, and waits for their ends.
func trouble(s *sim, spec func(int) shoal.JobSpec, tasks int) {
	s.took = func(o api.TaskOrder) (time.Duration, int) {
		return time.Duration(1+(o.Ref.Index*7+o.Ref.Attempt*3+o.Rank)%20) * time.Minute, 0
	}
	machines := 0
	add := func() { machines++; s.add(shoal.MachineID(fmt.Sprintf("m-%d", machines))) }
	for range 8 {
		add()
	}
	var jobs []shoal.JobID
	for i := range 6 {
		jobs = append(jobs, s.w.submit(spec(i)).ID)
	}
	pick := func() shoal.MachineID {
		s.mu.Lock()
		defer s.mu.Unlock()
		all := slices.Sorted(maps.Keys(s.nodes))
		return all[s.rnd.IntN(len(all))]
	}
	chance := func(n int) int { s.mu.Lock(); defer s.mu.Unlock(); return s.rnd.IntN(n) }
	s.outlast()
	for range 80 {
		switch chance(8) {
		case 0, 1:
			s.cutOff(pick(), true, false)
		case 2:
			s.cutOff(pick(), false, true)
		case 3, 4:
			s.cutOff(pick(), false, false)
		case 5:
			if chance(3) == 0 {
				s.restart(time.Duration(chance(600)) * time.Second)
			}
		case 6:
			if chance(4) == 0 {
				s.die(pick())
				add()
			}
		}
		time.Sleep(time.Duration(chance(300)) * time.Second)
	}
	s.mu.Lock()
	all := slices.Sorted(maps.Keys(s.nodes))
	s.mu.Unlock()
	for _, id := range all {
		s.cutOff(id, false, false)
	}
	for _, id := range jobs {
		if end := s.w.ended(id).Job; end.State != shoal.JobSucceeded || end.Counts.Succeeded != tasks {
			s.t.Errorf("ended %+v", end)
		}
	}
	s.t.Logf("%d begun, %d ended by their lease, %d of those that may ran twice at once", s.begun, s.killed, s.overlaps)
}

// outlast cuts off a machine that runs a command until the command was ended by its lease.
func (s *sim) outlast() {
	for range 100 {
		time.Sleep(fence.Default().Lease / 2)
		s.mu.Lock()
		at, done := shoal.MachineID(""), s.killed > 0
		for _, all := range s.running {
			for r := range all {
				at = max(at, r.machine)
			}
		}
		s.mu.Unlock()
		if done {
			return
		}
		if at == "" {
			continue
		}
		s.cutOff(at, true, false)
		time.Sleep(2 * fence.Default().Lease)
		s.cutOff(at, false, false)
	}
	s.t.Error("no command was ended by its lease")
}

// gangs are played on nodes that come and go.
func TestGangPartitions(t *testing.T) {
	for seed := range uint64(scaled(2, 200)) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			simulate(t, 100+seed, func(s *sim) {
				trouble(s, func(i int) shoal.JobSpec {
					return shoal.JobSpec{Array: "1-3", Nodes: shoal.Fixed(2 + i%2), Launcher: []string{"each", "head"}[i%2]}
				}, 3)
			})
		})
	}
}

// scaled is a count that is larger where everything is to be proven.
func scaled(few, many int) int {
	if os.Getenv("SHOAL_PROVE") != "" {
		return many
	}
	return few
}
