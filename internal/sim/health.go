package sim

import (
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/fleet"
	"github.com/shoal-pool/shoal/internal/scale"
)

// The engine's patience with agents that are not heard from.
const (
	quietFor   = 2 * time.Second
	graceFor   = 90 * time.Second
	knownFor   = 15 * time.Second
	tasksLost  = 10 * time.Minute
	peopleLost = time.Hour
)

// hush is an agent that is not heard from any more.
func (m *machine) hush(w *world) {
	if m.quiet.IsZero() {
		m.quiet = w.real
	}
	for _, d := range []time.Duration{quietFor, graceFor, tasksLost, peopleLost} {
		w.in(d, func() {})
	}
}

// speak is an agent that is heard from again: it tells who has left.
func (m *machine) speak(w *world) {
	if m.quiet.IsZero() || w.machines[m.ID] != m {
		return
	}
	m.quiet, m.heard = time.Time{}, w.real
	for _, s := range m.sorted() {
		if s.away {
			w.conclude(s)
		}
	}
	w.in(knownFor, func() {})
}

// known reports whether it is certain who is on a machine.
func (w *world) known(m *machine) bool {
	return m.State == shoal.MachineReady && m.quiet.IsZero() && (m.heard.IsZero() || w.real.Sub(m.heard) >= knownFor)
}

// attend looks after clocks, health, idleness and loads.
func (w *world) attend() {
	for _, m := range w.order {
		m.Machine = fleet.Settle(m.Machine, w.now)
		m.Load = shoal.Load{}
		if m.State != shoal.MachineReady || m.Wanted != shoal.WantRun {
			continue
		}
		w.health(m)
		w.age(m)
		switch {
		case len(m.users)+len(m.tasks) > 0:
			m.IdleAt = time.Time{}
		case m.IdleAt.IsZero():
			m.IdleAt = w.now
		}
		for _, s := range m.users {
			m.Load.CPUPercent += s.load
		}
		m.Load.CPUPercent = min(m.Load.CPUPercent+len(m.tasks)*20, 100)
	}
}

// age puts on record since when a machine is old, and when it ends for it.
func (w *world) age(m *machine) {
	if m.Outdated == "" && m.Spec == w.form() {
		m.OldSince, m.EndsAt, m.told = time.Time{}, time.Time{}, time.Time{}
		return
	}
	if m.OldSince.IsZero() {
		m.OldSince = w.now
	}
	if m.EndsAt = scale.EndOf(w.Pool, m.Machine, scale.Rollout{Failed: w.failed}, w.now); m.EndsAt.IsZero() {
		m.told = time.Time{}
	} else if m.told.IsZero() {
		m.told = w.real
	}
}

// health puts on record what is heard from an agent.
func (w *world) health(m *machine) {
	before := m.Health
	silent := w.real.Sub(m.quiet)
	switch {
	case m.quiet.IsZero():
		if m.Health = shoal.HealthUp; before != m.Health {
			m.uncordon(shoal.CordonHealth)
		}
	case silent < quietFor:
	case silent < graceFor:
		m.Health = shoal.HealthUnknown
	case m.Health != shoal.HealthDown:
		m.Health = shoal.HealthDown
		m.Cordons = append(m.Cordons, shoal.Cordon{Owner: shoal.CordonHealth, Reason: "its agent is not heard from", Since: w.now})
	case w.forsaken(m, silent):
		fleet.Failed(&m.Machine, "its agent is not heard from", w.now)
		w.left(m)
	}
	w.dirty = w.dirty || m.Health != before
}

// forsaken reports whether what was on a machine counts as lost: never while somebody is connected.
func (w *world) forsaken(m *machine, silent time.Duration) bool {
	for _, s := range m.users {
		if !s.away {
			return false
		}
	}
	return len(m.users) > 0 && silent >= peopleLost || len(m.users) == 0 && len(m.tasks) > 0 && silent >= tasksLost
}
