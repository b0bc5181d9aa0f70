package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/engine/world"
	"github.com/shoal-pool/shoal/internal/fleet"
	"github.com/shoal-pool/shoal/internal/scale"
	"github.com/shoal-pool/shoal/internal/sched"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/provider"
)

// verdict is what a pass comes to: rows, ledger and events to be stored together, then effects.
type verdict struct {
	rows    []*row
	scaled  []shoal.Pool // whose size is no longer set by hand
	deleted []shoal.PoolName
	ledger  []func(*store.Tx) error
	events  []shoal.Event
	effects []effect
	asks    []shoal.MachineID // that are to be looked at once more
	gone    []shoal.MachineID // to be told
	says    []saying
	told    map[shoal.MachineID]warned // of the ends of machines, by says
	moving  map[string]bool            // providers with machines on their way
	next    time.Time
	flushed map[shoal.MachineID]bool // whose loads are among the rows; nil: nobody's
	// scalings are decisions of the autoscaler for the record; elastics what is remembered for its next ones.
	scalings []func(*store.Tx) error
	elastics map[shoal.PoolName]elastic
}

// row is a machine's row as it was read and as it will be.
type row struct {
	shoal.Machine
	was   shoal.Machine
	fresh bool
}

// writes reports whether there is anything to store.
func (v *verdict) writes() bool {
	return len(v.scaled)+len(v.deleted)+len(v.ledger)+len(v.events)+len(v.scalings) > 0 || slices.ContainsFunc(v.rows, (*row).changed)
}

// due keeps the earliest time at which a pass is needed though nothing changes.
func (v *verdict) due(t time.Time, now time.Time) {
	if t.After(now) && (v.next.IsZero() || t.Before(v.next)) {
		v.next = t
	}
}

// judging is a verdict being made. It does no I/O but to read history through the world.
type judging struct {
	verdict
	*world.World
	mem     memory
	engine  *Engine
	byID    map[shoal.MachineID]*row
	now     time.Time
	real    time.Time // the same, by a clock that cannot be set, too
	digests map[shoal.PoolName]string
	holds   map[shoal.PoolName]fleet.Hold
}

func newJudging(e *Engine, w *world.World, m memory, now time.Time) *judging {
	j := &judging{World: w, mem: m, engine: e, now: now, real: time.Now(), byID: map[shoal.MachineID]*row{}, digests: map[shoal.PoolName]string{}, holds: map[shoal.PoolName]fleet.Hold{}}
	j.told = map[shoal.MachineID]warned{}
	j.moving, j.elastics = map[string]bool{}, map[shoal.PoolName]elastic{}
	for _, m := range w.Machines {
		j.add(&row{Machine: m, was: m})
	}
	for _, p := range w.Pools {
		j.digests[p.Name] = w.Digest(p)
	}
	return j
}

// wall is what the wall clock, which may have been set since, shows at a time that the engine remembers.
func (j *judging) wall(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	return j.now.Add(t.Sub(j.real))
}

// judge decides what a pass does.
func (e *Engine) judge(w *world.World, m memory, now time.Time) (*verdict, error) {
	j := newJudging(e, w, m, now)
	j.releaseSizes()
	for _, r := range j.rows {
		j.attend(r)
	}
	j.flush()
	if err := j.carryOn(false); err != nil {
		return nil, err
	}
	for _, p := range j.Pools {
		if err := j.size(p); err != nil {
			return nil, err
		}
	}
	if err := j.carryOn(true); err != nil {
		return nil, err
	}
	j.buryPools()
	return &j.verdict, nil
}

// releaseSizes gives pools back to the autoscaler whose size was set until now.
func (j *judging) releaseSizes() {
	for i := range j.Pools {
		p := &j.Pools[i]
		if p.Fixed == nil || p.Fixed.Until.IsZero() || j.now.Before(p.Fixed.Until) {
			continue
		}
		p.Fixed = nil
		j.scaled = append(j.scaled, *p)
		j.events = append(j.events, shoal.Event{Kind: shoal.ObjectPool, Name: string(p.Name), Pool: p.Name, Code: "poolScaled",
			Sentence: fmt.Sprintf("pool %s scales by itself again: the time for which its size was set is over", p.Name)})
	}
}

// carryOn lets package fleet compare rows and providers until there is nothing more to record, and
// with effects gathers what is to be carried out.
func (j *judging) carryOn(effects bool) error {
	if err := j.findHolds(); err != nil {
		return err
	}
	for name := range j.engine.watchers {
		for range len(machineSteps) {
			actions, next := fleet.Plan(j.fleetOf(name), j.now)
			recorded := false
			for _, a := range actions {
				if r := j.row(a.Machine); !a.Verb.Effect() && r != nil {
					j.set(r, fleet.Apply(r.Machine, a, j.now), "")
					recorded = true
				}
			}
			if recorded {
				continue
			}
			if effects {
				j.due(next, j.now)
				j.order(name, actions)
			}
			break
		}
	}
	return nil
}

// machineSteps are the states a machine can pass through within one pass.
var machineSteps = [...]shoal.MachineState{shoal.MachineRequested, shoal.MachineBooting, shoal.MachineStopping, shoal.MachineStopped, shoal.MachineFailed, shoal.MachineGone}

// fleetOf is what package fleet is asked about one provider.
func (j *judging) fleetOf(name string) fleet.World {
	f := fleet.World{Track: map[shoal.MachineID]fleet.Track{}, Holds: j.holds,
		Boot: map[shoal.PoolName]time.Duration{}, Slots: j.engine.slots(j.mem, name)}
	if seen := j.mem.sights[name].seen; seen != nil {
		s := *seen
		s.Began = j.wall(s.Began)
		f.Seen = &s
	}
	for id, t := range j.mem.tracks {
		if t.provider == name {
			t.Ended, t.Next = j.wall(t.Ended), j.wall(t.Next)
			f.Track[id] = t.Track
		}
	}
	for _, p := range j.Pools {
		if p.Setup != nil {
			f.Boot[p.Name] = bootTime + time.Duration(p.Setup.Timeout)
		}
	}
	for _, r := range j.rows {
		if r.Provider == name && r.State != shoal.MachineGone {
			f.Machines = append(f.Machines, r.Machine)
		}
	}
	return f
}

// bootTime is how long a machine may take to become ready, its setup not counted.
const bootTime = 5 * time.Minute

// findHolds finds the pools that must wait with new machines.
func (j *judging) findHolds() error {
	for _, p := range j.Pools {
		wanted := slices.ContainsFunc(j.rows, func(r *row) bool {
			return r.Pool == p.Name && r.State == shoal.MachineRequested && r.Wanted == shoal.WantRun
		})
		if _, ok := j.holds[p.Name]; ok || !wanted {
			continue
		}
		recent, err := j.Recent(p.Name)
		if err != nil {
			return err
		}
		f, err := j.failures(p, recent)
		if err != nil {
			return err
		}
		if h, ok := j.holdOf(p, f); ok {
			j.holds[p.Name] = h
		}
	}
	return nil
}

// holdOf is what keeps a pool from getting machines now, if anything does.
func (j *judging) holdOf(p shoal.Pool, f fleet.Failures) (fleet.Hold, bool) {
	h, ok := f.Backoff(p.Tries())
	said, held := j.mem.holds[p.Name]
	if until := j.wall(said.Until); held && until.After(h.Until) && j.now.Before(until) {
		h.Until, h.Reason, ok = until, said.Reason, true
	}
	return h, ok
}

// order turns actions into effects.
func (j *judging) order(name string, actions []fleet.Action) {
	for _, a := range actions {
		if !a.Verb.Effect() {
			continue
		}
		fx := effect{verb: a.Verb, machine: a.Machine, provider: name}
		if r := j.row(a.Machine); r != nil {
			fx.pool = r.Pool
			if a.Verb == fleet.Create || a.Verb == fleet.Start {
				fx.spec = j.spec(r.Machine)
			}
		}
		j.effects = append(j.effects, fx)
	}
	for _, r := range j.rows {
		if r.Provider != name {
			continue
		}
		switch r.State {
		case shoal.MachineRequested, shoal.MachineBooting, shoal.MachineStopping, shoal.MachineFailed:
			j.moving[name] = true
		case shoal.MachineReady:
			j.moving[name] = j.moving[name] || j.dying(r)
		}
	}
	if s := j.mem.sights[name].seen; s != nil {
		for id := range s.Machines {
			if j.row(id) == nil {
				j.moving[name] = true
			}
		}
	}
}

func (j *judging) row(id shoal.MachineID) *row { return j.byID[id] }

func (j *judging) add(r *row) {
	j.rows = append(j.rows, r)
	j.byID[r.ID] = r
}

// spec is what a provider needs to make a machine.
func (j *judging) spec(m shoal.Machine) provider.MachineSpec {
	p, _ := j.Pool(m.Pool)
	control := j.engine.cfg.Control[m.Provider]
	return provider.MachineSpec{ID: m.ID, Pool: m.Pool, Token: string(m.ID), Image: m.Image, OS: p.OS, Resources: m.Resources,
		Mounts: j.Mounts(p), Config: p.ProviderConfig, Private: !p.Has(shoal.UseInteractive), Grace: graceOf(p),
		Join: provider.Join{Machine: m.ID, Pool: m.Pool, Token: j.engine.cfg.JoinToken(m.ID, m.Epoch),
			Control: control.URL, CA: control.CA, Epoch: m.Epoch}}
}

// archiveTime is how long machines may take to end whose homes are archived: the agent's own limits, and a little more.
const archiveTime = 5 * time.Minute

// graceOf is how long machines of a pool may take to end by themselves, where that is longer than usual.
func graceOf(p shoal.Pool) time.Duration {
	if p.Home.Layout == shoal.LayoutDSVM {
		return archiveTime
	}
	return 0
}

// state is a pool as package scale wants to see it.
func (j *judging) state(p shoal.Pool) scale.State {
	placed := sched.PoolOf(p)
	s := scale.State{Pool: p, Waiting: j.Waiting[p.Name], Queue: j.Queues[p.Name], Reserved: placed.Reserved()}
	for _, r := range j.rows {
		if r.Pool != p.Name || r.State == shoal.MachineGone {
			continue
		}
		c := j.People[r.ID]
		s.Machines = append(s.Machines, scale.Machine{Machine: r.Machine, Sessions: c.Sessions, Tasks: c.Tasks, Used: c.Used, Firm: c.Firm, Seats: c.Seats(placed),
			Known: j.known(r.Machine) && j.held(r.Machine) == "", Stale: r.Spec != j.digests[p.Name],
			Suspect: j.suspect(r.Machine)})
	}
	return s
}

// size makes a pool as large as it should be.
func (j *judging) size(p shoal.Pool) error {
	if _, ok := j.engine.watchers[p.Provider]; !ok {
		return nil
	}
	s, m, err := j.wholeState(p)
	if err != nil {
		return err
	}
	j.revise(p, s.Rollout, &m)
	d := scale.Decide(s, j.now)
	d.Retire = slices.DeleteFunc(d.Retire, func(c scale.Change) bool { return !j.confirmed(j.row(c.Machine)) })
	j.remember(s, d, m)
	j.due(d.Next, j.now)
	j.carry(d, p)
	return nil
}

// carry puts on record what package scale decided for a pool.
func (j *judging) carry(d scale.Decision, p shoal.Pool) {
	for _, c := range d.Retire {
		r := j.row(c.Machine)
		m := cordon(r.Machine, shoal.Cordon{Owner: shoal.CordonAutoscaler, Reason: c.Reason.Sentence, Since: j.now})
		m.Wanted, m.Reason = shoal.WantDelete, c.Reason.Sentence
		j.set(r, m, "")
	}
	for _, c := range d.Cordon {
		r := j.row(c.Machine)
		j.set(r, cordon(r.Machine, shoal.Cordon{Owner: shoal.CordonAutoscaler, Reason: c.Reason.Sentence, Since: j.now}),
			fmt.Sprintf("machine %s of pool %s takes nobody new: %s", r.ID, r.Pool, c.Reason.Sentence))
	}
	for _, c := range d.Roll {
		r := j.row(c.Machine)
		j.set(r, cordon(r.Machine, shoal.Cordon{Owner: shoal.CordonRollout, Reason: c.Reason.Sentence, Since: j.now, Deadline: r.EndsAt}),
			fmt.Sprintf("machine %s of pool %s takes nobody new: %s", r.ID, r.Pool, c.Reason.Sentence))
	}
	for _, c := range d.Force {
		r := j.row(c.Machine)
		m := r.Machine
		m.Wanted, m.Reason = shoal.WantDelete, c.Reason.Sentence
		j.set(r, m, "")
	}
	for _, id := range d.Await {
		m := j.row(id).Machine
		m.IdleAt = j.now
		j.set(j.row(id), m, "")
	}
	for _, id := range d.Restore {
		r := j.row(id)
		j.set(r, uncordon(uncordon(r.Machine, shoal.CordonAutoscaler), shoal.CordonRollout), fmt.Sprintf("machine %s of pool %s is wanted again", r.ID, r.Pool))
	}
	for range d.Create {
		m := shoal.Machine{ID: shoal.NewMachineID(), Pool: p.Name, State: shoal.MachineRequested, Since: j.now, Wanted: shoal.WantRun,
			Provider: p.Provider, Image: p.Image, Spec: j.digests[p.Name], Resources: p.Machine, Epoch: 1}
		j.add(&row{Machine: m, fresh: true})
		j.tell(m, "machineRequested", "machine %s of pool %s is requested: %s", m.ID, m.Pool, d.Because.Sentence)
	}
}

// buryPools removes pools that are being deleted and have nothing left.
func (j *judging) buryPools() {
	for _, p := range j.Pools {
		rows := slices.ContainsFunc(j.rows, func(r *row) bool { return r.Pool == p.Name && r.State != shoal.MachineGone })
		if !p.Deleting || rows || j.Sessions[p.Name] > 0 {
			continue
		}
		if j.Jobs[p.Name] > 0 {
			j.due(j.now.Add(changeRest), j.now) // it is not clear how old that knowledge is
			continue
		}
		j.deleted = append(j.deleted, p.Name)
		j.events = append(j.events, shoal.Event{Kind: shoal.ObjectPool, Name: string(p.Name), Pool: p.Name, Code: "poolDeleted",
			Sentence: fmt.Sprintf("pool %s is gone: its last machine has gone", p.Name)})
	}
}
