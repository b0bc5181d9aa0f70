package scale

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
)

// Past is what was asked of a pool from a moment on, until the next.
type Past struct {
	At       time.Time
	Machines int // that there were
	Sessions int // those that waited included
	Waiting  int // of the sessions
	Queue    []Queue
	CPU      int // sums over the machines, in percent of one
	Memory   int
	GPU      int
}

// Replayed is what would have come of a pool.
type Replayed struct {
	From, Until  time.Time
	MachineHours float64
	Most         int           // machines at a time
	Made         int           // machines
	Waited       time.Duration // by all logins together
	Waits        int           // logins that found no seat at once
	Ended        int           // sessions, because their machine went
	Crowded      float64       // part of all session time on machines with more sessions than seats
	Was          float64       // machine-hours that there were
	WasMost      int           // machines at a time that there were
	WasWaited    time.Duration // by all logins together, as it was
	Fixed        int           // machines that have a seat for everybody at any time
}

// Replay tells what would have come of what was asked, had a pool had other settings: it begins with the machines there
// were, machines start in boot, and sessions come and go as they did. It is a model: which session ended is not on record,
// so one on the fullest machine is taken to have, and tasks count while they wait.
func Replay(p shoal.Pool, past []Past, until time.Time, boot time.Duration) Replayed {
	return (&replay{pool: p, boot: boot, policy: Decide}).run(past, until)
}

// ReplayMetric tells the same of Metric, which knows no seats: people are spread over the machines that run.
func ReplayMetric(p shoal.Pool, past []Past, until time.Time, boot time.Duration) Replayed {
	p = Measured(p)
	p.Placement, p.Scale.Schedule = shoal.PlaceSpread, nil
	return (&replay{pool: p, boot: boot, policy: Metric(), seatless: true}).run(past, until)
}

func (r *replay) run(past []Past, until time.Time) (out Replayed) {
	if len(past) == 0 {
		return Replayed{}
	}
	r.pool.Fixed, r.pool.Deleting = nil, false
	r.begin(past[0])
	out = Replayed{From: past[0].At, Until: until}
	var crowded, present time.Duration
	for i, x := range past {
		end := until
		if i+1 < len(past) {
			end = past[i+1].At
		}
		if !x.At.Before(end) {
			continue
		}
		out.Was += end.Sub(x.At).Hours() * float64(x.Machines)
		out.WasMost = max(out.WasMost, x.Machines)
		out.WasWaited += end.Sub(x.At) * time.Duration(x.Waiting)
		seats := max(r.pool.Seats, 1)
		out.Fixed = max(out.Fixed, (x.Sessions+seats-1)/seats)
		for now := x.At; now.Before(end); {
			next := r.step(x, now, &out)
			if next.After(end) {
				next = end
			}
			d := next.Sub(now)
			out.MachineHours += d.Hours() * float64(len(r.machines))
			out.Waited += d * time.Duration(r.waiting)
			for _, m := range r.machines {
				if present += d * time.Duration(m.Sessions); m.Sessions > seats {
					crowded += d * time.Duration(m.Sessions)
				}
			}
			now = next
		}
	}
	out.Made = r.made
	out.Crowded = crowded.Seconds() / max(present.Seconds(), 1)
	return out
}

// begin takes over the machines that there were.
func (r *replay) begin(x Past) {
	r.make(x.Machines, shoal.MachineReady, x.At)
	r.made = 0
	for i := range r.machines {
		m := &r.machines[i]
		m.ReadyAt, m.IdleAt, m.Known, m.Health = x.At, x.At, true, shoal.HealthUp
	}
}

func (r *replay) make(n int, state shoal.MachineState, now time.Time) {
	for range n {
		r.named++
		r.made++
		r.machines = append(r.machines, Machine{Machine: shoal.Machine{ID: shoal.MachineID(fmt.Sprintf("m-%06d", r.named)), Pool: r.pool.Name, State: state,
			Wanted: shoal.WantRun, Since: now, Started: now, Resources: r.pool.Machine}})
	}
}

type replay struct {
	pool     shoal.Pool
	boot     time.Duration
	policy   Policy
	seatless bool // more people may be on a machine than it has seats
	machines []Machine
	waiting  int
	made     int
	named    int
	samples  []Sample
	changed  time.Time
}

// step brings the model to a moment, and returns when it is to be looked at again.
func (r *replay) step(x Past, now time.Time, out *Replayed) time.Time {
	for i := range r.machines {
		if m := &r.machines[i]; m.State == shoal.MachineBooting && !now.Before(m.Since.Add(r.boot)) {
			m.State, m.Since, m.ReadyAt, m.IdleAt, m.Known, m.Health = shoal.MachineReady, now, now, now, true, shoal.HealthUp
		}
	}
	r.crowd(x.Sessions, now, out)
	s := State{Pool: r.pool, Machines: r.machines, Waiting: r.waiting, Queue: x.Queue, Samples: r.samples, Changed: r.changed}
	r.burden(x)
	d := r.policy(s, now)
	r.samples = Keep(r.samples, r.pool, SampleOf(s, now))
	if d.Rule != "" && d.Create+len(d.Retire)+len(d.Cordon) > 0 {
		r.changed = now
	}
	r.carryOut(d, now, out)
	out.Most = max(out.Most, len(r.machines))
	next := now.Add(time.Minute)
	for _, m := range r.machines {
		if at := m.Since.Add(r.boot); m.State == shoal.MachineBooting && at.After(now) && at.Before(next) {
			next = at
		}
	}
	return next
}

// crowd seats so many sessions.
func (r *replay) crowd(want int, now time.Time, out *Replayed) {
	have, seats := 0, max(r.pool.Seats, 1)
	for _, m := range r.machines {
		have += m.Sessions
	}
	fullest := func(a, b *Machine) int { return cmp.Or(cmp.Compare(b.Sessions, a.Sessions), cmp.Compare(a.ID, b.ID)) }
	var open []*Machine
	for i := range r.machines {
		if m := &r.machines[i]; m.Sessions > 0 || m.Accepts() {
			open = append(open, m)
		}
	}
	for ; have > want; have-- {
		m := slices.MinFunc(open, fullest)
		if m.Sessions--; m.Sessions == 0 {
			m.IdleAt = now
		}
	}
	waited := r.waiting
	for r.waiting = want - have; r.waiting > 0; r.waiting-- {
		free := slices.DeleteFunc(slices.Clone(open), func(m *Machine) bool { return !m.Accepts() || m.Sessions >= seats && !r.seatless })
		if len(free) == 0 {
			break
		}
		m := slices.MaxFunc(free, fullest)
		if At(r.pool, now).Placement == shoal.PlacePack {
			m = slices.MinFunc(free, fullest)
		}
		m.Sessions++
		m.IdleAt = time.Time{}
	}
	out.Waits += max(r.waiting-waited, 0)
}

// burden shares loads among the machines that run; the sums stay what they are, as far as machines can bear them.
func (r *replay) burden(x Past) {
	var running []*Machine
	for i := range r.machines {
		r.machines[i].Load = shoal.Load{}
		if m := &r.machines[i]; m.State == shoal.MachineReady {
			running = append(running, m)
		}
	}
	for i, m := range running {
		part := func(sum int) int { return min((sum+i)/len(running), 100) }
		m.Load = shoal.Load{CPUPercent: part(x.CPU), GPUPercent: part(x.GPU), Memory: m.Resources.Memory * shoal.Bytes(part(x.Memory)) / 100}
	}
}

func (r *replay) carryOut(d Decision, now time.Time, out *Replayed) {
	for _, c := range d.Retire {
		r.machines = slices.DeleteFunc(r.machines, func(m Machine) bool {
			if m.ID == c.Machine {
				out.Ended += m.Sessions
			}
			return m.ID == c.Machine
		})
	}
	for i := range r.machines {
		m := &r.machines[i]
		if slices.ContainsFunc(d.Cordon, func(c Change) bool { return c.Machine == m.ID }) {
			m.Cordons = []shoal.Cordon{{Owner: shoal.CordonAutoscaler, Since: now}}
		}
		if slices.Contains(d.Restore, m.ID) {
			m.Cordons = nil
		}
	}
	r.make(d.Create, shoal.MachineBooting, now)
}
