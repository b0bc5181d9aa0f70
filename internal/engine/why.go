package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/engine/scalings"
	"github.com/shoal-pool/shoal/internal/engine/world"
	"github.com/shoal-pool/shoal/internal/scale"
	"github.com/shoal-pool/shoal/internal/store"
)

// whyEvents is how many events an answer carries.
const whyEvents = 10

// WhyPool says why a pool is as large as it is.
func (e *Engine) WhyPool(ctx context.Context, name shoal.PoolName) (api.Why, error) {
	why := api.Why{Subject: "pool " + string(name)}
	err := e.cfg.Store.View(ctx, func(tx *store.Tx) error {
		j, err := e.imagine(tx)
		if err != nil {
			return err
		}
		p, err := tx.Pools().Get(name)
		if err != nil {
			return err
		}
		if why.Events, err = e.eventsOf(tx, p); err != nil {
			return err
		}
		recent, err := tx.Scalings(name, time.Time{}, 50*whyEvents)
		if err != nil {
			return err
		}
		why.Scalings = scalings.Telling(recent, whyEvents)
		return j.explainPool(p, &why)
	})
	if err != nil {
		return api.Why{}, err
	}
	return why, nil
}

// imagine reads the world as a pass would, without judging.
func (e *Engine) imagine(tx *store.Tx) (*judging, error) {
	w, err := e.reader.Read(tx)
	if err != nil {
		return nil, err
	}
	j := newJudging(e, w, e.recall(), clock())
	return j, j.findHolds()
}

// eventsOf are the latest events about a pool and its machines.
func (e *Engine) eventsOf(tx *store.Tx, p shoal.Pool) ([]shoal.Event, error) {
	events, err := tx.EventsAbout(shoal.ObjectPool, string(p.Name), whyEvents)
	if err != nil {
		return nil, err
	}
	recent, _, err := tx.MachinesPage(store.MachineFilter{Pool: p.Name, Gone: true}, "", 3)
	if err != nil {
		return nil, err
	}
	for _, m := range recent {
		more, err := tx.EventsAbout(shoal.ObjectMachine, string(m.ID), 4)
		if err != nil {
			return nil, err
		}
		events = append(events, more...)
	}
	slices.SortFunc(events, func(a, b shoal.Event) int { return cmp.Compare(b.Rev, a.Rev) })
	return events[:min(len(events), whyEvents)], nil
}

// tally counts a pool's machines by what they are.
func (j *judging) tally(p shoal.Pool) (counts map[string]int, alive int, coming []shoal.Reason) {
	counts = map[string]int{}
	for _, r := range j.rows {
		if r.Pool != p.Name {
			continue
		}
		counts[r.Shown()]++
		if r.Alive() {
			alive++
		}
		switch {
		case r.State == shoal.MachineRequested || r.State == shoal.MachineBooting || r.State == shoal.MachineFailed:
			coming = append(coming, shoal.Reason{Code: string(r.State), Sentence: fmt.Sprintf("machine %s is %s for %s%s", r.ID, r.State, ago(j.now, r.Since), because(r.Reason))})
		case r.Health == shoal.HealthDown && r.State == shoal.MachineReady:
			coming = append(coming, shoal.Reason{Code: "down", Sentence: fmt.Sprintf("machine %s does not answer", r.ID)})
		case r.State == shoal.MachineReady && len(r.Ill) > 0:
			coming = append(coming, shoal.Reason{Code: "endpoint", Sentence: fmt.Sprintf("%s on machine %s does not answer: %s", r.Ill[0].Endpoint, r.ID, r.Ill[0].Reason)})
		case j.suspect(r.Machine):
			coming = append(coming, shoal.Reason{Code: "suspect", Sentence: fmt.Sprintf("machine %s did not answer somebody who was to have a seat there; its seats are not counted on for %s", r.ID, ago(j.mem.suspects[r.ID], j.real))})
		case r.Shown() == "draining":
			coming = append(coming, shoal.Reason{Code: "draining", Sentence: fmt.Sprintf("machine %s takes nobody new: %s", r.ID, r.Cordons[0].Reason)})
		}
	}
	return counts, alive, coming
}

func (j *judging) explainPool(p shoal.Pool, why *api.Why) error {
	counts, alive, coming := j.tally(p)
	var parts []string
	for _, state := range []string{"ready", "draining", "booting", "requested", "stopping", "stopped", "failed"} {
		if n := counts[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state))
		}
	}
	size := fmt.Sprintf("pool %s has %s", p.Name, count(alive, "machine"))
	if len(parts) > 0 {
		size += " (" + strings.Join(parts, ", ") + ")"
	}
	s, _, err := j.wholeState(p)
	if err != nil {
		return err
	}
	d := scale.Decide(s, j.now)
	use := j.explainUse(p, s)
	switch {
	case j.engine.watchers[p.Provider] == nil:
		size += fmt.Sprintf(", and this server has no provider %s", p.Provider)
	case d.Create > 0 || len(d.Restore) > 0:
		size += fmt.Sprintf(", and %d more are wanted", d.Create+len(d.Restore))
		if d.Because.Sentence != "" {
			size += ": " + d.Because.Sentence
		}
	case len(d.Reasons) > 0:
		size += ": " + d.Reasons[0].Sentence
	case alive == 0:
		size += ": nobody needs one"
	case len(use) > 0:
		size += ": " + use[0].Sentence
	}
	why.Sentence = size
	why.Reasons = append(append(why.Reasons, d.Reasons...), use...)
	why.Reasons = append(why.Reasons, coming[:min(len(coming), whyEvents)]...)
	if h, ok := j.holds[p.Name]; ok {
		why.Reasons = append(why.Reasons, shoal.Reason{Code: "hold", Sentence: held(h.Until, h.Reason, j.now)})
	}
	if s := j.mem.sights[p.Provider]; s.failures > 0 {
		why.Reasons = append(why.Reasons, shoal.Reason{Code: "unobserved", Sentence: fmt.Sprintf("provider %s cannot be observed for %s: %s", p.Provider, ago(j.now, s.failing), s.err)})
	}
	j.explainMemory(p, why)
	return nil
}

func held(until time.Time, reason string, now time.Time) string {
	if now.Before(until) {
		return fmt.Sprintf("new machines wait for %s: %s", shoal.Duration(until.Sub(now).Round(time.Second)), reason)
	}
	return "new machines are tried one at a time: " + reason
}

// explainUse says who holds the machines, and what becomes of those that nobody does.
func (j *judging) explainUse(p shoal.Pool, s scale.State) (use []shoal.Reason) {
	idle, sessions, tasks := 0, 0, 0
	for _, m := range s.Machines {
		sessions, tasks = sessions+m.Sessions, tasks+m.Tasks
		if m.State == shoal.MachineReady && j.People[m.ID].Empty() && !ofOperator(m.Cordons) {
			idle++
		}
	}
	if sessions+tasks > 0 {
		use = append(use, shoal.Reason{Code: "busy", Sentence: fmt.Sprintf("%s and %s are on its machines", count(sessions, "session"), count(tasks, "task"))})
	}
	if idle > 0 && p.Fixed == nil && !p.Deleting {
		use = append(use, shoal.Reason{Code: "idle", Sentence: fmt.Sprintf("nobody is on %s; what is not needed goes after %s without anybody", count(idle, "machine"), p.Scale.Idle.After)})
	}
	return use
}

// ofOperator reports whether an operator keeps a machine clear: what becomes of it is up to the operator.
func ofOperator(cordons []shoal.Cordon) bool {
	return slices.ContainsFunc(cordons, func(c shoal.Cordon) bool { return c.Owner == shoal.CordonOperator })
}

// explainMemory says whether machines are promised more memory than their provider has.
func (j *judging) explainMemory(p shoal.Pool, why *api.Why) {
	w := j.engine.watchers[p.Provider]
	factor, stated := p.ProviderConfig["memoryOvercommit"]
	if w == nil || !stated {
		return
	}
	var promised shoal.Bytes
	for _, r := range j.rows {
		if r.Provider == p.Provider && r.Alive() {
			promised += r.Resources.Memory
		}
	}
	why.Reasons = append(why.Reasons, shoal.Reason{Code: "overcommit", Sentence: fmt.Sprintf("machines may be promised %v times the memory there is; now they have %s, and provider %s has %s",
		factor, promised, p.Provider, w.p.Capabilities().Machine.Memory)})
}

// WhyMachine says why a machine is as it is.
func (e *Engine) WhyMachine(ctx context.Context, id shoal.MachineID) (api.Why, error) {
	why := api.Why{Subject: "machine " + string(id)}
	err := e.cfg.Store.View(ctx, func(tx *store.Tx) error {
		m, err := tx.Machines().Get(id)
		if err != nil {
			return err
		}
		why.Since = m.ShownSince()
		if why.Events, err = tx.EventsAbout(shoal.ObjectMachine, string(id), whyEvents); err != nil {
			return err
		}
		j, err := e.imagine(tx)
		if err != nil {
			return err
		}
		why.Sentence = fmt.Sprintf("machine %s of pool %s is %s%s", m.ID, m.Pool, m.Shown(), because(m.Reason))
		j.explainMachine(m, &why)
		return nil
	})
	if err != nil {
		return api.Why{}, err
	}
	return why, nil
}

func (j *judging) explainMachine(m shoal.Machine, why *api.Why) {
	add := func(code, format string, args ...any) {
		why.Reasons = append(why.Reasons, shoal.Reason{Code: code, Sentence: fmt.Sprintf(format, args...)})
	}
	for _, c := range m.Cordons {
		if m.State == shoal.MachineGone {
			break
		}
		until := ""
		if !c.Deadline.IsZero() {
			until = ", and it is deleted at " + c.Deadline.Format("2006-01-02 15:04 MST") + " at the latest"
		}
		if c.Owner != shoal.CordonHealth { // of which is told below
			add("cordon", "%s: %s%s", c.Owner, c.Reason, until)
		}
	}
	if m.State == shoal.MachineReady && j.old(m) {
		why, until := m.Outdated, ""
		if why == "" {
			why = "the pool was changed since the machine was requested"
		}
		if !m.EndsAt.IsZero() {
			until = ", and at " + m.EndsAt.Format("2006-01-02 15:04 MST") + " at the latest"
		} else if p, ok := j.Pool(m.Pool); ok && p.Paused != nil {
			until = ", once the rollout goes on, which is paused"
		}
		add("outdated", "%s; it is replaced when nobody is on it%s", why, until)
	}
	if t, ok := j.mem.tracks[m.ID]; ok && t.Error != "" {
		add("provider", "the last call to its provider failed: %s", t.Error)
	}
	if trouble := j.engine.homes.Trouble(m.ID); trouble != "" {
		add("homes", "homes of users cannot be mounted there: %s", trouble)
	}
	for _, user := range slices.Sorted(maps.Keys(m.Load.Homes)) {
		add("home", "%s: %s", cmp.Or(string(user), "groups"), m.Load.Homes[user])
	}
	if h, ok := j.holds[m.Pool]; ok && m.State == shoal.MachineRequested {
		add("hold", "%s", held(h.Until, h.Reason, j.now))
	}
	if m.State != shoal.MachineReady {
		return
	}
	c := j.People[m.ID]
	if len(c.Names) > 0 {
		names := c.Names[:min(len(c.Names), whyEvents)]
		if n := len(c.Names) - len(names); n > 0 {
			names = append(slices.Clip(names), fmt.Sprintf("%d more", n))
		}
		add("sessions", "%s there: %s", count(c.Sessions, "session"), strings.Join(names, ", "))
	}
	if c.Tasks > 0 {
		add("tasks", "%s there", count(c.Tasks, "task"))
	}
	if m.Resources.GPUs > 0 {
		add("gpus", "%s", world.GPUs(m))
	}
	for _, i := range m.Ill {
		add("endpoint", "%s does not answer there for %s: %s; newcomers are led elsewhere", i.Endpoint, ago(j.now, i.Since), i.Reason)
	}
	switch m.Health {
	case shoal.HealthDown:
		add("down", "%s", j.silence(m, c))
	case shoal.HealthUnknown:
		add("unknown", "its agent is not heard from for %s; what is there is unknown, so nothing is concluded", ago(j.now, j.linkOf(m.ID).since))
	}
	if j.suspect(m) {
		add("suspect", "it did not answer somebody who was to have a seat there; newcomers are led elsewhere for %s", ago(j.mem.suspects[m.ID], j.real))
	}
	if held := j.held(m); held != "" {
		add("held", "it stays awake: %s", held)
	} else if c.Empty() {
		j.explainSleep(m, add)
	}
}

// silence says what is known of a machine that is down, and what becomes of it.
func (j *judging) silence(m shoal.Machine, there world.Crowd) string {
	why := "its agent is not heard from"
	if i := slices.IndexFunc(m.Cordons, func(c shoal.Cordon) bool { return c.Owner == shoal.CordonHealth }); i >= 0 {
		why = m.Cordons[i].Reason
	}
	switch limit := patience(there); {
	case limit > 0:
		at := j.wall(later(j.linkOf(m.ID).since, m.ReadyAt).Add(limit))
		return why + "; it gets nobody new, and at " + at.UTC().Format("15:04 MST") + " what is there counts as lost"
	case there.Empty():
		return why + "; it gets nobody new, and is replaced soon, since nobody is known to be there"
	}
	return why + "; it gets nobody new, and who is connected can stay"
}

// explainSleep says when an empty machine goes, or why it does not.
func (j *judging) explainSleep(m shoal.Machine, add func(code, format string, args ...any)) {
	p, ok := j.Pool(m.Pool)
	if !ok || m.IdleAt.IsZero() {
		return
	}
	s, _, err := j.wholeState(p)
	if err != nil {
		return
	}
	s.Pool.Scale.Idle.After = max(s.Pool.Scale.Idle.After, 1)
	// What would be decided at those times, if nothing changed until then?
	idle := time.Duration(s.Pool.Scale.Idle.After)
	for _, wait := range []time.Duration{min(scale.OutdatedAfter, idle), idle} {
		at := m.IdleAt.Add(wait)
		if slices.ContainsFunc(scale.Decide(s, later(at, j.now)).Retire, func(c scale.Change) bool { return c.Machine == m.ID }) {
			add("idle", "nobody is on it for %s; it goes at %s unless somebody comes", ago(j.now, m.IdleAt), at.Format("15:04:05 MST"))
			return
		}
	}
	switch {
	case !j.known(m):
		add("idle", "nobody is on it as far as is known, but its agent has not said so; unknown is not idle")
	case len(m.Cordons) > 0:
		add("idle", "nobody is on it for %s; whoever drained it decides what becomes of it", ago(j.now, m.IdleAt))
	default:
		add("idle", "nobody is on it for %s; it stays because the pool needs it or others go first", ago(j.now, m.IdleAt))
	}
}

// ago is how long something has been so.
func ago(now, t time.Time) string {
	return shoal.Duration(now.Sub(t).Round(time.Second)).String()
}
