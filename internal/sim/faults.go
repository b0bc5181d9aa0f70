package sim

import (
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/fleet"
)

// Faults are what befalls a pool from elsewhere than its cloud, in the whole time.
type Faults struct {
	Jumps   int // of the server's clock, by up to two hours
	Cordons int // by an operator, for up to eight hours
	Images  int // newer ones: machines that there are become outdated
	Changes int // of what machines are made like
	Botched int // the same, but they do not boot; two hours later it is taken back
}

// trouble plans the faults.
func (w *world) trouble() {
	some := func() time.Time { return w.Start.Add(time.Duration(w.rng.Int64N(int64(w.Length)))).Round(time.Second) }
	for range w.Faults.Jumps {
		d := time.Duration(w.rng.Int64N(int64(4*time.Hour)) - int64(2*time.Hour)).Round(time.Second)
		w.plan(some(), func() { w.jump(d) })
	}
	for range w.Faults.Cordons {
		hours := time.Duration(1+w.rng.IntN(8)) * time.Hour
		w.plan(some(), func() { w.close(hours) })
	}
	for range w.Faults.Changes {
		w.plan(some(), func() {
			if !w.broken {
				w.change()
			}
		})
	}
	for range w.Faults.Botched {
		w.plan(some(), w.botch)
	}
	for range w.Faults.Images {
		w.plan(some(), func() {
			for id, i := range w.cloud.has {
				i.old = true
				w.cloud.put(id)
			}
		})
	}
}

// change changes what machines are made like.
func (w *world) change() {
	w.specs++
	w.spec, w.dirty = w.specs, true
}

// botch changes it so that no machine boots, and back.
func (w *world) botch() {
	if w.broken {
		return
	}
	was := w.spec
	w.change()
	w.broken = true
	w.in(2*time.Hour, func() { w.spec, w.broken, w.dirty = was, false, true })
}

// jump sets the server's clock. What a process only remembers it counts by a clock that never jumps.
func (w *world) jump(d time.Duration) {
	w.out.Jumped += d.Abs()
	w.now = w.now.Add(d)
	for id, t := range w.tracks {
		t.Ended = t.Ended.Add(d)
		if !t.Next.IsZero() {
			t.Next = t.Next.Add(d)
		}
		w.tracks[id] = t
	}
	if w.cloud.shown != nil {
		w.cloud.shown = &fleet.Seen{Began: w.cloud.shown.Began.Add(d), Complete: w.cloud.shown.Complete, Machines: w.cloud.shown.Machines}
	}
	if !w.hold.Until.IsZero() {
		w.hold.Until = w.hold.Until.Add(d)
	}
	w.wakeAt, w.dirty = time.Time{}, true
}

// close is an operator who keeps people off a machine for a while.
func (w *world) close(d time.Duration) {
	for _, m := range w.order {
		if m.State != shoal.MachineReady || m.Wanted != shoal.WantRun || m.held(shoal.CordonOperator) {
			continue
		}
		m.Cordons = append(m.Cordons, shoal.Cordon{Owner: shoal.CordonOperator, Reason: "it is looked at", Since: w.now})
		w.out.Closed++
		w.in(d, func() {
			if w.machines[m.ID] == m && m.Wanted == shoal.WantRun && !m.held(shoal.CordonOperator) && m.State == shoal.MachineReady {
				w.breach("the operator's cordon of machine %s is gone", m.ID)
			}
			m.uncordon(shoal.CordonOperator)
		})
		return
	}
}
