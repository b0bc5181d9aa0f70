package batch_test

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/batch"
	"github.com/shoal-pool/shoal/internal/batch/output"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// script is how a task goes.
type script struct {
	takes  time.Duration
	out    string // written in the course of it
	exit   int
	signal int
	cause  shoal.Cause
}

// task is what a fake agent keeps of an attempt, as on its machine's disk.
type task struct {
	after   *task // begins when that has ended; nil: at once
	order   api.TaskOrder
	report  api.TaskReport // of its end, once it ended
	out     []byte
	sent    int // of out
	running bool
	told    bool // its start, or its end, was reported
	begun   time.Time
	stop    chan shoal.JobState
}

// agent stands for a machine's agent. What it knows outlives its connection and the server.
type agent struct {
	ctx    context.Context
	id     shoal.MachineID
	play   func(api.TaskOrder) script
	faults float64 // how likely it is to duplicate, reorder or hold back what it reports
	rand   *rand.Rand

	mu      sync.Mutex
	server  *batch.Batch // nil: not connected
	tasks   map[shoal.AttemptRef]*task
	starts  map[shoal.AttemptRef]int
	forgot  map[shoal.AttemptRef]bool
	records []api.Record // those received
	changed chan struct{}
	dead    bool
	mute    bool // it does not report
	// slow: a start is reported of what runs for a while only, as real agents do.
	slow bool
	most int // that ever ran at once
}

func newAgent(ctx context.Context, id shoal.MachineID, play func(api.TaskOrder) script) *agent {
	return &agent{ctx: ctx, id: id, play: play, rand: rand.New(rand.NewPCG(1, uint64(len(id)))), tasks: map[shoal.AttemptRef]*task{},
		starts: map[shoal.AttemptRef]int{}, forgot: map[shoal.AttemptRef]bool{}, changed: make(chan struct{}, 1)}
}

func (a *agent) poke() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// receive takes a record from the server; false if no stream is open.
func (a *agent) receive(r api.Record) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.server == nil || a.dead {
		return false
	}
	a.records = append(a.records, r)
	switch {
	case r.Run != nil:
		a.start(*r.Run)
	case r.Stop != nil:
		if t := a.tasks[r.Stop.Ref]; !r.Stop.Waiting || t != nil && t.begun.IsZero() {
			a.end(r.Stop.Ref, r.Stop.State)
		}
	case r.Forget != nil:
		for _, ref := range r.Forget.Refs {
			delete(a.tasks, ref)
			a.forgot[ref] = true
		}
	}
	return true
}

// start begins a task that is not known. a.mu is held.
func (a *agent) start(o api.TaskOrder) {
	if a.tasks[o.Ref] != nil || a.forgot[o.Ref] {
		return
	}
	a.starts[o.Ref]++
	t := &task{order: o, running: true, stop: make(chan shoal.JobState, 1)}
	a.tasks[o.Ref] = t
	s := a.play(o)
	if o.After == nil {
		a.begin(t)
	} else {
		t.after = a.tasks[*o.After]
	}
	go func() {
		stopped := a.turn(t)
		for i := range 4 { // a quarter of its output at a time
			if stopped != "" {
				break
			}
			select {
			case <-time.After(s.takes / 4):
			case stopped = <-t.stop:
			case <-a.ctx.Done():
				return
			}
			a.mu.Lock()
			t.out = append(t.out, s.out[len(s.out)*i/4:len(s.out)*(i+1)/4]...)
			a.mu.Unlock()
			a.poke()
			if stopped != "" {
				break
			}
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		r := api.TaskReport{Ref: o.Ref, State: shoal.JobSucceeded, Cause: shoal.CauseExit, ExitCode: s.exit, Signal: s.signal,
			Started: t.begun, Ended: time.Now(), StdoutBytes: int64(len(t.out))}
		if s.exit != 0 || s.signal != 0 {
			r.State = shoal.JobFailed
		}
		if s.cause != "" {
			r.Cause = s.cause
		}
		if stopped != "" {
			r.State, r.Cause, r.Signal = stopped, shoal.CauseCancelled, 15
		}
		t.report, t.running, t.told = r, false, false
		a.poke()
	}()
	a.poke()
}

// begin notes that a task's command begins. a.mu is held.
func (a *agent) begin(t *task) {
	t.begun = time.Now()
	n := 0
	for _, o := range a.tasks {
		if o.running && !o.begun.IsZero() {
			n++
		}
	}
	a.most = max(a.most, n)
	time.AfterFunc(young, a.poke)
}

// young is how old a task is when a slow agent reports its start.
const young = 100 * time.Millisecond

// turn waits for the end of the task that another comes after; what it returns ends that one before.
func (a *agent) turn(t *task) shoal.JobState {
	for {
		a.mu.Lock()
		if a.dead {
			a.mu.Unlock()
			return shoal.JobLost
		}
		if t.begun.IsZero() {
			for t.after != nil && !t.after.running && t.after.begun.IsZero() { // it has ended before its own turn
				t.after = t.after.after
			}
			if t.after == nil || !t.after.running {
				a.begin(t)
			}
		}
		begun := !t.begun.IsZero()
		a.mu.Unlock()
		if begun {
			return ""
		}
		select {
		case <-time.After(time.Millisecond):
		case stopped := <-t.stop:
			return stopped
		case <-a.ctx.Done():
			return shoal.JobLost
		}
	}
}

// end stops a task. a.mu is held.
func (a *agent) end(ref shoal.AttemptRef, state shoal.JobState) {
	if t := a.tasks[ref]; t != nil && t.running {
		select {
		case t.stop <- state:
		default:
		}
	}
}

// connect opens a stream to a server: records first, then the Snapshot, as the hub does.
func (a *agent) connect(ctx context.Context, b *batch.Batch) {
	a.mu.Lock()
	if a.dead {
		a.mu.Unlock()
		return
	}
	a.server = b
	a.mu.Unlock()
	for {
		orders, err := b.Orders(ctx, a.id)
		if err == nil {
			a.snapshot(orders)
			return
		}
		if ctx.Err() != nil {
			return
		}
		time.Sleep(time.Second)
	}
}

func (a *agent) snapshot(orders []api.TaskOrder) {
	a.mu.Lock()
	defer a.mu.Unlock()
	listed := map[shoal.AttemptRef]bool{}
	for _, o := range orders {
		listed[o.Ref] = true
		a.start(o)
	}
	for ref, t := range a.tasks {
		t.told = false // say everything again
		if !listed[ref] {
			a.end(ref, shoal.JobCancelled)
		}
	}
	a.poke()
}

func (a *agent) disconnect() {
	a.mu.Lock()
	a.server = nil
	a.mu.Unlock()
}

// die ends the machine with all that runs there.
func (a *agent) die() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.server, a.dead = nil, true
	for ref := range a.tasks {
		a.end(ref, shoal.JobCancelled)
	}
}

// run reports until ctx ends.
func (a *agent) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.changed:
		}
		for !a.tell(ctx) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
		}
	}
}

// tell reports what is new; false: again later.
func (a *agent) tell(ctx context.Context) bool {
	a.mu.Lock()
	server := a.server
	if server == nil || a.dead || a.mute {
		done := a.dead || a.mute
		a.mu.Unlock()
		return done
	}
	var reports []api.TaskReport
	var pieces []api.Output
	sent := map[*task]int{}
	var refs []shoal.AttemptRef
	for ref := range a.tasks {
		refs = append(refs, ref)
	}
	slices.SortFunc(refs, func(x, y shoal.AttemptRef) int {
		return cmp.Or(cmp.Compare(x.Job, y.Job), cmp.Compare(x.Index, y.Index))
	})
	whole := true
	for _, ref := range refs {
		t := a.tasks[ref]
		from := t.sent
		if a.fails() {
			from = 0
		}
		if from < len(t.out) {
			half := (from + len(t.out)) / 2
			both := []api.Output{{Ref: ref, Stream: "stdout", Offset: int64(from), Data: t.out[from:half]}, {Ref: ref, Stream: "stdout", Offset: int64(half), Data: t.out[half:]}}
			switch {
			case a.fails():
				slices.Reverse(both)
			case a.fails():
				both = both[1:]
			}
			pieces = append(pieces, both...)
			sent[t] = len(t.out)
		}
		if t.told && !a.fails() {
			continue
		}
		if t.running && (t.begun.IsZero() || a.slow && time.Since(t.begun) < young) {
			continue
		}
		if t.running {
			reports = append(reports, api.TaskReport{Ref: ref, State: shoal.JobRunning, Started: time.Now()})
		} else {
			reports = append(reports, t.report)
		}
		t.told = true
	}
	if a.fails() && len(reports) > 1 {
		a.rand.Shuffle(len(reports), func(i, k int) { reports[i], reports[k] = reports[k], reports[i] })
	}
	if a.fails() {
		reports = append(reports, reports...)
	}
	a.mu.Unlock()
	resend, err := server.Report(ctx, a.id, reports, pieces)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		for _, ref := range refs {
			if t := a.tasks[ref]; t != nil {
				t.told = false
			}
		}
		return false
	}
	for t, n := range sent {
		t.sent = n
	}
	for _, r := range resend {
		if t := a.tasks[r.Ref]; t != nil {
			t.sent = int(r.Offset)
			whole = false
		}
	}
	return whole
}

// fails draws a misbehaviour. a.mu is held.
func (a *agent) fails() bool { return a.faults > 0 && a.rand.Float64() < a.faults }

func (a *agent) started() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := 0
	for _, k := range a.starts {
		n += k
	}
	return n
}

// world is a batch service at work on a store, within a bubble.
type world struct {
	t   testing.TB
	db  *store.DB
	dir string
	*batch.Batch
	stop func()

	mu     sync.Mutex
	agents map[shoal.MachineID]*agent
	play   func(api.TaskOrder) script
	faults float64
	// sending, where it is set, is asked instead of delivering a record.
	sending func(shoal.MachineID, api.Record) bool
	ctx     context.Context
	wires   []func(*batch.Config)
}

// bubble runs a test in a world on fake time.
func bubble(t *testing.T, pool shoal.Pool, fn func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, storetest.Open(t), t.TempDir(), pool)
		fn(w)
	})
}

func newWorld(t testing.TB, db *store.DB, dir string, pool shoal.Pool, wires ...func(*batch.Config)) *world {
	ctx, cancel := context.WithCancel(context.Background())
	w := &world{t: t, db: db, dir: dir, agents: map[shoal.MachineID]*agent{}, ctx: ctx, wires: wires,
		play: func(api.TaskOrder) script { return script{takes: time.Second} }}
	if pool.Name == "" {
		pool.Name = "lab"
	}
	if pool.Uses == nil {
		pool.Uses = []shoal.Use{shoal.UseBatch}
	}
	if pool.Machine == (shoal.Resources{}) {
		pool.Machine = shoal.Resources{CPUs: 1000, Memory: 1 << 30}
	}
	storetest.Update(t, db, func(tx *store.Tx) error {
		for _, u := range []shoal.User{{Name: "alice", Groups: []shoal.GroupName{"research"}}, {Name: "bob"}, {Name: "carol"}, {Name: "dora", Disabled: true}} {
			if _, err := tx.Users().Put(u); err != nil {
				return err
			}
		}
		_, err := tx.Pools().Put(pool)
		return err
	})
	w.start()
	t.Cleanup(func() { cancel(); w.stop() })
	return w
}

func (w *world) start() {
	w.t.Helper()
	c := batch.Config{Store: w.db, Dir: w.dir, Send: w.send}
	for _, wire := range w.wires {
		wire(&c)
	}
	b, err := batch.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.Run(ctx) }()
	w.mu.Lock()
	w.Batch = b
	agents := w.agents
	w.mu.Unlock()
	w.stop = func() { cancel(); <-done }
	for _, a := range agents {
		a.connect(w.ctx, b)
	}
}

// restart ends the server wherever it is, and starts it anew a while later.
func (w *world) restart(after time.Duration) {
	for _, a := range w.agents {
		a.disconnect()
	}
	w.stop()
	time.Sleep(after)
	w.start()
}

func (w *world) send(id shoal.MachineID, r api.Record) bool {
	w.mu.Lock()
	sending := w.sending
	w.mu.Unlock()
	if sending != nil {
		return sending(id, r)
	}
	return w.deliver(id, r)
}

// sendBy has records delivered by f; nil: as they are.
func (w *world) sendBy(f func(shoal.MachineID, api.Record) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sending = f
}

func (w *world) deliver(id shoal.MachineID, r api.Record) bool {
	w.mu.Lock()
	a := w.agents[id]
	w.mu.Unlock()
	return a != nil && a.receive(r)
}

// machine makes a ready machine of the pool with an agent that is connected.
func (w *world) machine(id shoal.MachineID, change ...func(*shoal.Machine)) *agent {
	w.t.Helper()
	a := newAgent(w.ctx, id, func(o api.TaskOrder) script { return w.play(o) })
	a.faults = w.faults
	w.mu.Lock()
	agents := map[shoal.MachineID]*agent{id: a}
	for k, v := range w.agents {
		agents[k] = v
	}
	w.agents = agents
	w.mu.Unlock()
	go a.run(w.ctx)
	a.connect(w.ctx, w.Batch)
	w.put(id, append([]func(*shoal.Machine){func(m *shoal.Machine) { m.State = shoal.MachineReady }}, change...)...)
	return a
}

// put changes a machine's row.
func (w *world) put(id shoal.MachineID, change ...func(*shoal.Machine)) {
	w.t.Helper()
	storetest.Update(w.t, w.db, func(tx *store.Tx) error {
		m, err := tx.Machines().Get(id)
		if err != nil {
			m = shoal.Machine{ID: id, Pool: "lab", Wanted: shoal.WantRun, Health: shoal.HealthUp, Epoch: 1, Resources: shoal.Resources{CPUs: 1000, Memory: 1 << 30}}
		}
		for _, c := range change {
			c(&m)
		}
		_, err = tx.Machines().Put(m)
		return err
	})
}

func state(s shoal.MachineState) func(*shoal.Machine) {
	return func(m *shoal.Machine) { m.State = s }
}

var (
	alice = access.Subject{User: "alice", Role: shoal.RoleMember, Groups: []shoal.GroupName{"research"}}
	bob   = access.Subject{User: "bob", Role: shoal.RoleMember}
	carol = access.Subject{User: "carol", Role: shoal.RoleMember, Groups: []shoal.GroupName{"research"}}
	oscar = access.Subject{User: "oscar", Role: shoal.RoleOperator}
)

func (w *world) submit(s shoal.JobSpec) shoal.Job {
	w.t.Helper()
	if s.Command == "" {
		s.Command = "true"
	}
	j, err := w.Submit(w.ctx, alice, s, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

// ended waits for a job to end.
func (w *world) ended(id shoal.JobID) api.Wait {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 24*time.Hour) // of the bubble's clock
	defer cancel()
	got, err := w.Wait(ctx, alice, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return got
}

func (w *world) job(id shoal.JobID) shoal.Job {
	w.t.Helper()
	j, err := w.Job(w.ctx, alice, id)
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

func (w *world) history(id shoal.JobID, index int) (all []shoal.Attempt) {
	w.t.Helper()
	storetest.View(w.t, w.db, func(tx *store.Tx) (err error) {
		all, err = tx.History(shoal.TaskRef{Job: id, Index: index})
		return err
	})
	return all
}

func (w *world) output(id shoal.JobID, index int, follow bool) string {
	w.t.Helper()
	var out []byte
	err := w.read(w.ctx, alice, shoal.TaskRef{Job: id, Index: index}, output.Stdout, 0, follow, func(p []byte) error { out = append(out, p...); return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	return string(out)
}

func kind(t testing.TB, err error, want shoal.Kind) {
	t.Helper()
	if err == nil || shoal.KindOf(err) != want {
		t.Errorf("got %v, want kind %s", err, want)
	}
}

// settle lets everything happen that happens by itself within a time.
func settle(d time.Duration) { time.Sleep(d); synctest.Wait() }

// read reads a task's output as people do.
func (w *world) read(ctx context.Context, by access.Subject, task shoal.TaskRef, stream output.Stream, offset int64, follow bool, f func([]byte) error) error {
	return w.Output(ctx, by, output.Request{Task: task, Stream: stream, Offset: offset, Follow: follow}, func(p output.Piece) error {
		if p.Missing > 0 {
			return f(p.Notice())
		}
		return f(p.Data)
	})
}
