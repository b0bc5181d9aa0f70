package sim

import (
	"errors"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/fleet"
	"github.com/shoal-pool/shoal/provider"
)

// Cloud is how a cloud behaves.
type Cloud struct {
	Boot      time.Duration // of a machine, in the middle
	Spread    float64       // by so large a part boots differ, most of them
	Stop      time.Duration // of a machine that is deleted
	CallFails float64       // so many calls of all fail
	BootFails float64       // so many machines never come up
	BootHangs float64       // so many never say anything
	Evictions float64       // of machines, in a day
	Silences  float64       // of machines' agents, in a day: ten minutes each
	Mutes     float64       // and for ever
	QuotaCuts int           // in the whole time: for two hours there is room for so many machines as there are
	Late      time.Duration // calls and lists are answered so late, at most
	Halves    float64       // so many lists have holes, and say so
	Lies      float64       // so many leave machines out, call some failed or stopped, or name what is not there, and say that they are whole
}

// cloud is one at work. It keeps a ledger: from when to when it had which machine, as it has told.
type cloud struct {
	w      *world
	has    map[shoal.MachineID]*instance
	lost   map[shoal.MachineID]time.Time // since when there was what is gone, and has not been shown to be
	list   map[shoal.MachineID]provider.Observed
	shown  *fleet.Seen
	ledger time.Duration // of machines that are gone
	quota  int           // -1: none
}

type instance struct {
	phase provider.Phase
	since time.Time // it was accepted, by the server's clock
	stray time.Time // since when the server knows nothing of it
	old   bool      // its image
}

var (
	errNoRoom = errors.New("there is no capacity for such machines now")
	errFlaky  = errors.New("the service is not available")
)

func (c *cloud) open(w *world) {
	c.w, c.has, c.lost, c.list, c.quota = w, map[shoal.MachineID]*instance{}, map[shoal.MachineID]time.Time{}, map[shoal.MachineID]provider.Observed{}, -1
	for range w.Cloud.QuotaCuts {
		at := w.Start.Add(time.Duration(w.rng.Int64N(int64(w.Length))))
		w.plan(at, func() { c.quota = len(c.has) })
		w.plan(at.Add(2*time.Hour), func() { c.quota = -1 })
	}
	if !c.prompt() {
		c.watch()
	}
}

// prompt reports whether the cloud always tells at once, and the truth.
func (c *cloud) prompt() bool { return c.w.Cloud.Late == 0 && c.w.Cloud.Halves+c.w.Cloud.Lies == 0 }

// late is how long a call takes.
func (c *cloud) late() time.Duration {
	if c.w.Cloud.Late == 0 {
		return 0
	}
	return time.Duration(c.w.rng.Int64N(int64(c.w.Cloud.Late))).Round(time.Second)
}

// seen is what the server knows of the cloud: all that there is, or what a list showed that was asked for.
func (c *cloud) seen() *fleet.Seen {
	if c.prompt() {
		c.tell(slices.Collect(maps.Keys(c.lost)), c.w.now)
		return &fleet.Seen{Began: c.w.now, Complete: true, Machines: c.list}
	}
	return c.shown
}

// watch has the server ask for lists: often while machines are on their way.
func (c *cloud) watch() {
	w := c.w
	began := w.now
	answer := c.answer()
	w.in(c.late(), func() {
		c.shown = &fleet.Seen{Began: began, Complete: answer.whole, Machines: answer.list}
		if answer.whole {
			c.tell(answer.gone, began)
		}
		w.dirty = true
		gap := time.Minute
		for _, m := range w.order {
			if m.State != shoal.MachineReady || !m.quiet.IsZero() {
				gap = 5 * time.Second
			}
		}
		w.in(gap, c.watch)
	})
}

// answer is a list.
type answer struct {
	list  map[shoal.MachineID]provider.Observed
	gone  []shoal.MachineID // that it leaves out because they are
	whole bool
}

func (c *cloud) answer() answer {
	w := c.w
	a := answer{maps.Clone(c.list), slices.Sorted(maps.Keys(c.lost)), true}
	switch x := w.rng.Float64(); {
	case x < w.Cloud.Halves:
		a.whole = false
		for _, id := range slices.Sorted(maps.Keys(a.list)) {
			if w.rng.IntN(2) == 0 {
				delete(a.list, id)
			}
		}
	case x < w.Cloud.Halves+w.Cloud.Lies:
		w.out.Lies++
		for _, id := range slices.Sorted(maps.Keys(a.list)) {
			o := a.list[id]
			switch w.rng.IntN(6) {
			case 0, 1:
				delete(a.list, id)
			case 2:
				o.Phase = provider.PhaseFailed
				a.list[id] = o
			case 3:
				o.Phase = provider.PhaseStopped
				a.list[id] = o
			}
		}
		a.list["m-ghost"] = provider.Observed{ID: "m-ghost", Phase: provider.PhaseRunning}
	}
	return a
}

// tell closes the lines of what a list shows to be gone. One that is older than a call says nothing.
func (c *cloud) tell(gone []shoal.MachineID, began time.Time) {
	for _, id := range gone {
		since, there := c.lost[id]
		if t := c.w.tracks[id]; there && !t.Busy && began.After(t.Ended) {
			c.ledger += max(c.w.now.Sub(since), 0)
			delete(c.lost, id)
			c.w.found(id)
		}
	}
}

// put notes that a machine is as it is now.
func (c *cloud) put(id shoal.MachineID) {
	i := c.has[id]
	o := provider.Observed{ID: id, Phase: i.phase, Address: "10.0.0.1:22", ProviderID: string(id)}
	if i.old {
		o.Outdated = "its image is no longer the latest"
	}
	c.list[id] = o
	c.w.dirty = true
}

// works reports whether a machine runs, and its agent speaks.
func (c *cloud) works(id shoal.MachineID) bool {
	i, m := c.has[id], c.w.machines[id]
	return i != nil && i.phase == provider.PhaseRunning && m != nil && m.quiet.IsZero()
}

// owes reports whether it has a machine, or has not told that it has it no more.
func (c *cloud) owes(id shoal.MachineID) bool { return c.has[id] != nil || !c.lost[id].IsZero() }

// call carries out a call, or fails.
func (c *cloud) call(verb fleet.Verb, id shoal.MachineID) error {
	w := c.w
	if w.rng.Float64() < w.Cloud.CallFails {
		return errFlaky
	}
	switch verb {
	case fleet.Create, fleet.Start:
		if c.owes(id) {
			return nil
		}
		if c.quota >= 0 && len(c.has) >= c.quota {
			return errNoRoom
		}
		c.has[id] = &instance{phase: provider.PhaseCreating, since: w.now}
		c.put(id)
		c.begin(id)
	case fleet.Delete, fleet.Stop:
		if i := c.has[id]; i != nil && i.phase != provider.PhaseStopping {
			i.phase = provider.PhaseStopping
			c.put(id)
			w.in(w.Cloud.Stop, func() { c.lose(id) })
		}
	}
	return nil
}

// begin boots a machine, and plans what befalls it.
func (c *cloud) begin(id shoal.MachineID) {
	w := c.w
	boot := time.Duration(float64(w.Cloud.Boot) * math.Exp(w.rng.NormFloat64()*w.Cloud.Spread)).Round(time.Second)
	switch x := w.rng.Float64(); {
	case x < w.Cloud.BootFails || w.broken:
		w.in(boot, func() {
			if i := c.has[id]; i != nil && i.phase == provider.PhaseCreating {
				i.phase = provider.PhaseFailed
				c.put(id)
			}
		})
		return
	case x < w.Cloud.BootFails+w.Cloud.BootHangs:
		return
	}
	w.out.boots = append(w.out.boots, boot)
	w.in(boot, func() { c.ready(id) })
	c.befall(boot, w.Cloud.Evictions, func() {
		if i := c.has[id]; i != nil && i.phase == provider.PhaseRunning {
			w.out.Evictions++
			if m := w.machines[id]; m != nil {
				m.hush(w)
			}
			w.in(5*time.Second, func() { c.lose(id) })
		}
	})
	c.befall(boot, w.Cloud.Silences, func() {
		if m := w.machines[id]; m != nil && c.works(id) {
			m.hush(w)
			w.in(10*time.Minute, func() {
				if c.has[id] != nil {
					m.speak(w)
				}
			})
		}
	})
	c.befall(boot, w.Cloud.Mutes, func() {
		if m := w.machines[id]; m != nil && c.works(id) {
			m.hush(w)
		}
	})
}

// befall has something happen to machines that boot so long, so often in a day.
func (c *cloud) befall(boot time.Duration, rate float64, do func()) {
	if rate == 0 {
		return
	}
	at := time.Duration(c.w.rng.ExpFloat64() / rate * 24 * float64(time.Hour)).Round(time.Second)
	if at < c.w.end.Sub(c.w.real) {
		c.w.in(boot+at, do)
	}
}

// ready is an agent that says that its machine is ready.
func (c *cloud) ready(id shoal.MachineID) {
	i, m := c.has[id], c.w.machines[id]
	if i == nil || i.phase != provider.PhaseCreating {
		return
	}
	i.phase = provider.PhaseRunning
	c.put(id)
	if m == nil || m.Wanted != shoal.WantRun || m.State != shoal.MachineBooting {
		return
	}
	now := c.w.now
	m.State, m.Since, m.ReadyAt, m.IdleAt, m.Health, m.Reason, m.Address = shoal.MachineReady, now, now, now, shoal.HealthUp, "", "10.0.0.1:22"
}

// lose ends a machine.
func (c *cloud) lose(id shoal.MachineID) {
	if i := c.has[id]; i != nil {
		c.lost[id] = i.since
		delete(c.has, id)
		delete(c.list, id)
		c.w.dirty = true
	}
}

// total is the ledger's sum up to now.
func (c *cloud) total() time.Duration {
	sum := c.ledger
	for _, i := range c.has {
		sum += max(c.w.now.Sub(i.since), 0)
	}
	for _, since := range c.lost {
		sum += max(c.w.now.Sub(since), 0)
	}
	return sum
}
