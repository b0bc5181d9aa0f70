package sim

import (
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/scale"
)

// Careless is the name of a pool whose policy ends machines with people on them; it breaks no promise by that.
const Careless shoal.PoolName = "careless"

// judge looks at a decision before it is carried out.
func (w *world) judge(d scale.Decision) {
	limit, alive, queued, form := w.bounds.Max, 0, len(w.tasks), w.form()
	for _, m := range w.order {
		if m.Alive() {
			alive++
		}
		if m.Outdated != "" || m.Spec != form {
			limit = w.bounds.Max + w.Pool.Surge()
		}
	}
	if d.Create > 0 && alive+d.Create > limit {
		w.breach("%d machines and %d more are beyond %d", alive, d.Create, limit)
	}
	if d.Create > 0 && d.Because.Sentence == "" {
		w.breach("%d machines are made without a reason", d.Create)
	}
	for _, c := range d.Retire {
		m := w.machines[c.Machine]
		down := m.Health == shoal.HealthDown
		if w.honest() && (len(m.users)+len(m.tasks) > 0 || m.State == shoal.MachineReady && !w.known(m) && !down || m.held(shoal.CordonOperator)) {
			w.breach("machine %s goes with %d sessions and %d tasks: %s", m.ID, len(m.users), len(m.tasks), c.Reason.Sentence)
		}
		if c.Reason.Sentence == "" {
			w.breach("machine %s goes without a reason", c.Machine)
		}
	}
	for _, c := range d.Force {
		m := w.machines[c.Machine]
		if d := time.Duration(w.Pool.Rollout.Deadline); d == 0 || m.told.IsZero() || w.real.Sub(m.told) < min(d, 15*time.Minute)-time.Second || m.held(shoal.CordonOperator) {
			w.breach("machine %s is ended with %d sessions, %s after people were told", m.ID, len(m.users), w.real.Sub(m.told))
		}
	}
	now := shape{w.real, len(w.sessions), len(w.waiting), queued, w.bounds.Window}
	if was := w.shrunk; w.honest() && d.Create > 0 && was != nil && now.sessions <= was.sessions && now.waiting <= was.waiting && now.queued <= was.queued &&
		now.window == was.window && w.real.Sub(was.at) < time.Minute && w.out.Evictions == 0 && len(w.Pool.Scale.Rules) == 0 && w.calm() {
		w.breach("machines are made though one just went, and nothing more is asked for: %s", d.Because.Sentence)
	}
	if len(d.Retire) > 0 && d.Create == 0 {
		w.shrunk = &now
	}
}

// calm reports whether nothing but demand changes the pool.
func (w *world) calm() bool { return w.Faults == Faults{} && w.Cloud.Mutes+w.Cloud.Lies == 0 }

// honest reports whether the policy promises what ours does.
func (w *world) honest() bool { return w.Policy != nil && !w.careless() }

func (w *world) careless() bool { return w.Pool.Name == Careless }

// look looks at the world after a pass.
func (w *world) look() {
	could, does, alive, seated := false, false, 0, 0
	for _, m := range w.order {
		if m.Alive() {
			alive++
		}
		could = could || m.State == shoal.MachineReady && m.Wanted == shoal.WantRun && !m.held(shoal.CordonOperator) && m.Health != shoal.HealthDown
		does = does || m.Accepts()
		seated += len(m.users)
		if over := len(m.users) - max(w.Pool.Seats, 1); over > 0 && w.honest() {
			w.breach("machine %s has %d sessions", m.ID, len(m.users))
		}
	}
	if limit := w.bounds.Max; w.honest() {
		if could && !does && limit > 0 {
			w.breach("machines run, and none takes logins")
		}
		w.stranded(alive < limit)
		w.strays()
	}
	w.out.Peak, w.out.PeakSessions = max(w.out.Peak, alive), max(w.out.PeakSessions, seated)
	if !w.out.lookedAt.IsZero() {
		d := w.real.Sub(w.out.lookedAt)
		for _, m := range w.order {
			w.out.inSessions += d * time.Duration(len(m.users))
			if len(m.users) > w.Pool.Seats {
				w.out.crowded += d * time.Duration(len(m.users))
			}
		}
	}
	w.out.lookedAt = w.real
}

// patience is how long a machine may be of no use, or unknown, until something is wrong; and waited how long somebody
// may wait for one: after machines that failed one after another there is none for half an hour.
const (
	patience = 30 * time.Minute
	waited   = time.Hour
)

// stranded looks for logins and tasks that wait although there is room for another machine, and machines do come up.
func (w *world) stranded(room bool) {
	givenUp := slices.ContainsFunc(w.order, func(m *machine) bool {
		return m.State == shoal.MachineRequested && strings.HasPrefix(m.Reason, "no more are made")
	})
	switch q := w.cloud.quota; {
	case !room || w.broken || givenUp || q >= 0 && len(w.cloud.has) >= q:
		w.roomy = time.Time{}
		return
	case w.roomy.IsZero():
		w.roomy = w.real
	}
	for _, s := range w.waiting {
		if w.real.Sub(s.arrived) > waited && w.real.Sub(w.roomy) > waited {
			w.breach("%s waits for a seat since %s, and there is room for a machine", s.user, s.arrived.Format("15:04:05"))
			s.arrived = w.real // once
		}
	}
	if len(w.tasks) > 0 && w.real.Sub(w.tasks[0].waits) > waited && w.real.Sub(w.roomy) > waited {
		w.breach("a task waits since %s, and there is room for a machine", w.tasks[0].waits.Format("15:04:05"))
		w.tasks[0].waits = w.real
	}
}

// strays looks for machines that nobody has any use for: of which the server knows nothing, or that are empty and too many.
func (w *world) strays() {
	if w.real.Second() != 0 || w.real.Minute()%5 != 0 {
		return
	}
	for id, i := range w.cloud.has {
		switch {
		case w.machines[id] != nil:
			i.stray = time.Time{}
		case i.stray.IsZero():
			i.stray = w.real
		case w.real.Sub(i.stray) > patience:
			w.breach("the cloud has machine %s, and nobody knows of it", id)
		}
	}
	b := w.bounds
	if len(w.Pool.Scale.Rules) > 0 || len(w.waiting)+len(w.tasks) > 0 {
		return
	}
	open, free, least := 0, 0, b.Min
	for _, m := range w.order {
		switch {
		case m.Accepts():
			open++
			free += w.Pool.Seats - len(m.users)
		case m.State == shoal.MachineReady:
			least = max(least, 1) // while it drains another takes logins
		}
	}
	for _, m := range w.order {
		idle := time.Duration(w.Pool.Scale.Idle.After) + patience
		if !m.IdleAt.IsZero() && m.Accepts() && w.known(m) && w.now.Sub(m.IdleAt) > idle && open-1 >= least && free-w.Pool.Seats >= b.Spare {
			w.breach("machine %s is empty since %s, and nothing needs it", m.ID, m.IdleAt.Format("15:04:05"))
		}
	}
}
