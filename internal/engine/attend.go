package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/engine/world"
	"github.com/shoal-pool/shoal/internal/fleet"
	"github.com/shoal-pool/shoal/provider"
)

// Patience with agents that are not heard from.
const (
	quietFor = 2 * time.Second  // a stream that breaks is often opened again at once
	newFor   = 10 * time.Second // after a restart, until agents have come back
	graceFor = 90 * time.Second // then a machine counts as down
	knownFor = 15 * time.Second // after an agent came back, until it is believed that nobody is there
	// A machine that is down is given up when only tasks were there, and much later when somebody
	// without a connection was; never while a connection through the gateway is open.
	tasksLost  = 10 * time.Minute
	peopleLost = time.Hour
)

// attend looks after what is a machine's own: health, an operator's deadline, idleness.
func (j *judging) attend(r *row) {
	j.set(r, fleet.Settle(r.Machine, j.now), "")
	if _, ok := j.Pool(r.Pool); !ok && r.Wanted != shoal.WantDelete {
		m := r.Machine
		m.Wanted, m.Reason = shoal.WantDelete, "its pool is no more"
		j.set(r, m, "")
	}
	if r.State != shoal.MachineReady || r.Wanted != shoal.WantRun {
		return
	}
	j.health(r)
	j.troubled(r)
	j.drained(r)
	j.warn(r)
	j.asked(r)
	m := r.Machine
	switch empty := j.People[m.ID].Empty(); {
	case !empty || j.held(m) != "":
		m.IdleAt = time.Time{}
	case m.IdleAt.IsZero():
		m.IdleAt = j.now
	}
	j.set(r, m, "")
}

// held says why a machine that perhaps nobody is on is in use, by its pool's probe.
func (j *judging) held(m shoal.Machine) string {
	if l, ok := j.mem.links[m.ID]; ok && !l.seen.IsZero() {
		return l.load.Held
	}
	return m.Load.Held
}

// suspect reports whether a machine that runs did not answer a front end lately.
func (j *judging) suspect(m shoal.Machine) bool {
	return m.State == shoal.MachineReady && j.real.Before(j.mem.suspects[m.ID])
}

// linkOf is a machine's link. One of which nothing is known has been down since the engine began.
func (j *judging) linkOf(id shoal.MachineID) link {
	l, ok := j.mem.links[id]
	if !ok {
		l.since = j.engine.began
	}
	return l
}

// known reports whether it is certain who is on a machine: its agent is there, has reported, and what
// it reported has had time to be put on record.
func (j *judging) known(m shoal.Machine) bool {
	l := j.linkOf(m.ID)
	if !l.up || l.seen.Before(l.since) || m.State != shoal.MachineReady {
		return false
	}
	if since := later(l.since, m.ReadyAt); time.Since(since) < knownFor && m.ReadyAt.Before(l.since) {
		j.due(since.Add(knownFor), j.now)
		return false
	}
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// health puts on record what is heard from a machine's agent.
func (j *judging) health(r *row) {
	l := j.linkOf(r.ID)
	m := r.Machine
	if l.up {
		if m.Health != shoal.HealthUp {
			sentence := ""
			if m.Health == shoal.HealthDown {
				sentence = fmt.Sprintf("machine %s of pool %s answers again", m.ID, m.Pool)
			}
			m.Health = shoal.HealthUp
			j.set(r, uncordon(m, shoal.CordonHealth), sentence)
		}
		return
	}
	since := later(l.since, m.ReadyAt)
	silent := time.Since(since) // by a clock that never jumps
	quiet := quietFor
	if _, ok := j.mem.links[m.ID]; !ok {
		quiet = newFor
	}
	if silent < quiet {
		j.due(since.Add(quiet), j.now)
		return
	}
	if m.Health == shoal.HealthUp || m.Health == "" {
		m.Health = shoal.HealthUnknown
		if l.seen.After(m.LastSeen) {
			m.LastSeen = l.seen.UTC().Round(0)
		}
		j.set(r, m, "")
	}
	if m.Health == shoal.HealthDown {
		j.giveUp(r, since)
		return
	}
	j.due(since.Add(graceFor), j.now)
	// While its provider cannot be observed, nothing is concluded from silence.
	s := j.mem.sights[m.Provider]
	missed := s.seen != nil && s.seen.Machines[m.ID].Phase == provider.PhaseUnknown // by its provider, too
	if silent < graceFor && !missed || s.seen == nil || s.failures > 0 || s.seen.Began.Before(since) {
		return
	}
	m.Health = shoal.HealthDown
	heard := m.LastSeen
	if heard.IsZero() {
		heard = j.wall(since)
	}
	why := "its agent was last heard at " + heard.UTC().Format("2006-01-02 15:04 MST")
	if missed {
		why = "its agent is not heard from, and its provider misses it, too: " + s.seen.Machines[m.ID].Reason
	}
	m = cordon(m, shoal.Cordon{Owner: shoal.CordonHealth, Reason: why, Since: j.now})
	j.set(r, m, fmt.Sprintf("machine %s of pool %s does not answer: %s", m.ID, m.Pool, why))
}

// dyingFor is how long a machine's end may take to show, after its agent's stream has broken: that agent is one of
// the first processes to end, and a provider shows the end of the last.
const dyingFor = 20 * time.Second

// dying reports whether a machine's stream broke so recently that the provider may be about to show its end.
func (j *judging) dying(r *row) bool {
	l, known := j.mem.links[r.ID]
	if !known || l.up || time.Since(l.since) >= dyingFor {
		return false
	}
	j.due(l.since.Add(dyingFor), j.now)
	return true
}

// patience is how long a machine may be down until what was there counts as lost; 0: for ever. An empty one is replaced by
// package scale.
func patience(c world.Crowd) time.Duration {
	switch {
	case c.Empty() || c.Connected > 0:
		return 0
	case c.Sessions > 0:
		return peopleLost
	}
	return tasksLost
}

// giveUp fails a machine that has been down for so long that what was there counts as lost.
func (j *judging) giveUp(r *row, since time.Time) {
	limit := patience(j.People[r.ID])
	if limit == 0 {
		return
	}
	if time.Since(since) < limit {
		j.due(since.Add(limit), j.now)
		return
	}
	if j.repairing(r.Pool) {
		j.due(j.now.Add(repairRest), j.now)
		return
	}
	m := r.Machine
	fleet.Failed(&m, fmt.Sprintf("its agent has not been heard from for %s", shoal.Duration(limit)), j.now)
	j.set(r, m, "")
}

// repairRest is when it is asked again whether a machine may be given up.
const repairRest = time.Minute

// repairing reports whether as many machines of a pool are on their way because others do not work as may be at a time.
func (j *judging) repairing(pool shoal.PoolName) bool {
	p, _ := j.Pool(pool)
	all, moving := 0, 0
	for _, r := range j.rows {
		if r.Pool != pool || r.State == shoal.MachineGone {
			continue
		}
		all++
		if r.State == shoal.MachineFailed || r.Wanted == shoal.WantRun && (r.State == shoal.MachineRequested || r.State == shoal.MachineBooting) {
			moving++
		}
	}
	return moving >= p.AtOnce(all)
}

// drained ends a machine whose operator's cordon has a deadline, when it is empty or the time is over.
func (j *judging) drained(r *row) {
	i := slices.IndexFunc(r.Cordons, func(c shoal.Cordon) bool { return c.Owner == shoal.CordonOperator && !c.Deadline.IsZero() })
	if i < 0 {
		return
	}
	c := r.Cordons[i]
	m := r.Machine
	switch {
	case !j.now.Before(c.Deadline):
		m.Reason = "the deadline of its drain has passed" + because(c.Reason)
	case j.People[r.ID].Empty() && j.known(r.Machine) && j.held(r.Machine) == "" && j.confirmed(r):
		m.Reason = "it was drained and is empty" + because(c.Reason)
	default:
		j.due(c.Deadline, j.now)
		return
	}
	m.Wanted = shoal.WantDelete
	j.set(r, m, "")
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// flush puts agents' latest reports on record, where that is due.
func (j *judging) flush() {
	if j.mem.flushAt.IsZero() {
		return
	}
	if at := j.wall(j.mem.flushAt); j.now.Before(at) {
		j.due(at, j.now)
		return
	}
	j.flushed = map[shoal.MachineID]bool{}
	for _, r := range j.rows {
		l, ok := j.mem.links[r.ID]
		if !ok || r.State != shoal.MachineReady || l.seen.IsZero() {
			continue
		}
		j.flushed[r.ID] = true
		m := r.Machine
		m.Load, m.LastSeen = l.load, l.seen.UTC().Round(0)
		j.set(r, m, "")
	}
}

// cordon adds a cordon, or replaces the owner's former one.
func cordon(m shoal.Machine, c shoal.Cordon) shoal.Machine {
	m = uncordon(m, c.Owner)
	m.Cordons = append(m.Cordons, c)
	return m
}

// uncordon returns the machine without an owner's cordon.
func uncordon(m shoal.Machine, owner shoal.CordonOwner) shoal.Machine {
	m.Cordons = slices.DeleteFunc(slices.Clone(m.Cordons), func(c shoal.Cordon) bool { return c.Owner == owner })
	if len(m.Cordons) == 0 {
		m.Cordons = nil
	}
	return m
}
