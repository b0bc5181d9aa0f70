package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/provider"
)

// World is the machines of one provider, as they are on record and as they were seen.
type World struct {
	Machines []shoal.Machine // but those gone
	Seen     *Seen           // nil: the provider was not observed yet
	// Track is what is known of effects on machines, those without a row included.
	Track map[shoal.MachineID]Track
	Holds map[shoal.PoolName]Hold
	Boot  map[shoal.PoolName]time.Duration // how long a machine may take to become ready
	Slots int                              // how many Creates and Starts may begin now
}

// Seen is an observation.
type Seen struct {
	Began    time.Time // effects that ended before are in it
	Complete bool
	Machines map[shoal.MachineID]provider.Observed
}

// Track is what is known of effects on one machine.
type Track struct {
	Busy  bool      // one is under way
	Verb  Verb      // of that or of the last one
	Ended time.Time // when the last one did
	Next  time.Time // not again before
	Error string    // of the last one
	// Accepted: a Create succeeded. Fatal: a Create or Start was refused, and always will be.
	Accepted bool
	Fatal    string
}

// Hold keeps a pool from getting new machines.
type Hold struct {
	Until  time.Time
	Reason string
	// Single: when it is over, one machine at a time, until one works.
	Single bool
	// Stopped: machines failed so often that only somebody who mends what is wrong helps.
	Stopped bool
}

// Verb is what an action does.
type Verb string

// The verbs. Accept to Gone are only put on record; Create to Delete are effects.
const (
	Accept  Verb = "accept"  // the provider has it
	Note    Verb = "note"    // its address, reason or image is other than recorded
	Empty   Verb = "stop"    // it is to end: stopping
	Halted  Verb = "halted"  // it is stopped
	Restart Verb = "restart" // a stopped machine should run: a new epoch begins
	Fail    Verb = "fail"
	Gone    Verb = "gone"

	Create Verb = "Create"
	Start  Verb = "Start"
	Stop   Verb = "Stop"
	Delete Verb = "Delete"
)

// Effect reports whether the verb is something to be carried out.
func (v Verb) Effect() bool { return v == Create || v == Start || v == Stop || v == Delete }

// Action is what to do about one machine.
type Action struct {
	Verb    Verb
	Machine shoal.MachineID
	Reason  string
	// Seen is the machine as the provider sees it, if it does.
	Seen *provider.Observed
}

// Patience with what a provider was asked for and has not done yet.
const (
	defaultBoot = 5 * time.Minute
	askAgain    = time.Minute     // a Stop or Delete that was accepted and shows no end
	askSoon     = 5 * time.Second // or no effect at all
)

// Plan says what to do now, and when to ask again though nothing changes (zero: never).
func Plan(w World, now time.Time) (actions []Action, next time.Time) {
	p := planner{World: w, now: now, flying: map[shoal.PoolName]int{}}
	known := map[shoal.MachineID]bool{}
	for _, m := range w.Machines {
		known[m.ID] = true
		if m.Wanted == shoal.WantRun && (m.State == shoal.MachineBooting || w.Track[m.ID].Busy) {
			p.flying[m.Pool]++
		}
	}
	for _, m := range w.Machines {
		if a, ok := p.judge(m); ok {
			actions = append(actions, a)
		}
	}
	return append(actions, p.strangers(known)...), p.next
}

type planner struct {
	World
	now    time.Time
	next   time.Time
	flying map[shoal.PoolName]int // machines on their way
}

// due reports whether a time has come; if not it is kept for next.
func (p *planner) due(t time.Time) bool {
	if !p.now.Before(t) {
		return true
	}
	if p.next.IsZero() || t.Before(p.next) {
		p.next = t
	}
	return false
}

// look returns how the provider sees a machine. sure is false where that says nothing: it was not
// observed since the last effect, or the list had holes.
func (p *planner) look(id shoal.MachineID) (o *provider.Observed, sure bool) {
	t := p.Track[id]
	if p.Seen == nil || t.Busy || !t.Ended.IsZero() && !p.Seen.Began.After(t.Ended) {
		return nil, false
	}
	if found, ok := p.Seen.Machines[id]; ok {
		return &found, true
	}
	return nil, p.Seen.Complete
}

// judge says what to do about one machine.
func (p *planner) judge(m shoal.Machine) (Action, bool) {
	o, sure := p.look(m.ID)
	if o != nil {
		if a, ok := note(m, o); ok {
			return a, true
		}
	}
	switch m.State {
	case shoal.MachineRequested:
		return p.requested(m, o, sure)
	case shoal.MachineBooting, shoal.MachineReady:
		return p.running(m, o, sure)
	case shoal.MachineStopping:
		return p.stopping(m, o, sure)
	case shoal.MachineStopped:
		return p.stopped(m, o, sure)
	case shoal.MachineFailed:
		return p.remove(m, o, sure)
	}
	return Action{}, false
}

func act(v Verb, m shoal.Machine, o *provider.Observed, format string, args ...any) (Action, bool) {
	return Action{Verb: v, Machine: m.ID, Reason: fmt.Sprintf(format, args...), Seen: o}, true
}

// note tells what the provider knows of a machine that is not on record. The state is not its matter.
func note(m shoal.Machine, o *provider.Observed) (Action, bool) {
	n := m
	annotate(&n, o)
	if n.ProviderID != m.ProviderID || n.Address != m.Address || n.Outdated != m.Outdated || n.Reason != m.Reason {
		return act(Note, m, o, "%s", n.Reason)
	}
	return Action{}, false
}

func annotate(m *shoal.Machine, o *provider.Observed) {
	if o.ProviderID != "" {
		m.ProviderID = o.ProviderID
	}
	if o.Address != "" && o.Phase != provider.PhaseStopping {
		m.Address = o.Address
	}
	m.Outdated = o.Outdated
	if o.Phase == provider.PhaseCreating && o.Reason != "" && m.State == shoal.MachineBooting && m.Wanted == shoal.WantRun {
		m.Reason = o.Reason
	}
}

func (p *planner) requested(m shoal.Machine, o *provider.Observed, sure bool) (Action, bool) {
	t := p.Track[m.ID]
	switch {
	case m.Wanted != shoal.WantRun && !t.Accepted: // one that was accepted meanwhile is paid for until it is gone
		return p.remove(m, o, sure)
	case o != nil && o.Phase == provider.PhaseFailed:
		return act(Fail, m, o, "%s", or(o.Reason, "its provider says that it failed"))
	case t.Accepted || o != nil && o.Phase == provider.PhaseRunning:
		return act(Accept, m, o, "")
	case t.Fatal != "":
		return act(Fail, m, o, "%s", t.Fatal)
	case t.Busy:
		return Action{}, false
	case t.Error != "" && p.due(m.Since.Add(p.patience(m))):
		return act(Fail, m, o, "its provider did not accept it within %s: %s", shoal.Duration(p.patience(m)), t.Error)
	}
	// What is listed may be half of a Create that broke off: Create again, at no new cost.
	if h, ok := p.Holds[m.Pool]; ok && o == nil {
		if !p.due(h.Until) {
			return waits(m, h.Reason)
		}
		if h.Single && p.flying[m.Pool] > 0 {
			return waits(m, "one machine at a time, since others failed: "+h.Reason)
		}
	}
	if !p.due(t.Next) {
		if t.Error != "" {
			return waits(m, t.Error)
		}
		return Action{}, false
	}
	if p.Slots <= 0 {
		return Action{}, false
	}
	p.Slots--
	p.flying[m.Pool]++
	return act(Create, m, o, "")
}

// waits puts on record what a requested machine waits for.
func waits(m shoal.Machine, reason string) (Action, bool) {
	if m.Reason == reason {
		return Action{}, false
	}
	return act(Note, m, nil, "%s", reason)
}

func (p *planner) running(m shoal.Machine, o *provider.Observed, sure bool) (Action, bool) {
	t := p.Track[m.ID]
	if why := belied(m, o, sure); why != "" || strings.HasSuffix(m.Reason, nothing) && o != nil {
		return waits(m, why)
	}
	switch {
	case o == nil && sure:
		return act(Gone, m, o, "its provider does not have it any more")
	case o != nil && o.Phase == provider.PhaseFailed:
		return act(Fail, m, o, "%s", or(o.Reason, "its provider says that it failed"))
	case m.Wanted != shoal.WantRun:
		return act(Empty, m, o, "%s", m.Reason)
	case m.State == shoal.MachineReady && o != nil && (o.Phase == provider.PhaseStopped || o.Phase == provider.PhaseStopping):
		return act(Empty, m, o, "somebody else stopped it")
	case m.State != shoal.MachineBooting:
		return Action{}, false
	case t.Fatal != "":
		return act(Fail, m, o, "%s", t.Fatal)
	}
	limit := p.patience(m)
	if p.due(m.Since.Add(limit)) {
		why := fmt.Sprintf("it was not ready after %s", shoal.Duration(limit))
		if m.Reason != "" {
			why += "; the last it said: " + m.Reason
		}
		return act(Fail, m, o, "%s", why)
	}
	if o != nil && o.Phase == provider.PhaseStopped && !t.Busy && p.due(t.Next) && p.Slots > 0 {
		p.Slots--
		return act(Start, m, o, "")
	}
	return Action{}, false
}

const nothing = ", and its agent answers: nothing is concluded from that"

// belied says that a provider takes a machine for ended whose agent speaks. Nothing is concluded from that: where it is
// true the agent falls silent at once, and where it is not there are people on the machine.
func belied(m shoal.Machine, o *provider.Observed, sure bool) string {
	switch {
	case m.State != shoal.MachineReady || m.Wanted != shoal.WantRun || m.Health != shoal.HealthUp:
	case o == nil && sure:
		return "its provider does not list it" + nothing
	case o != nil && o.Phase == provider.PhaseFailed:
		return "its provider says that it failed" + nothing
	case o != nil && o.Phase == provider.PhaseStopped:
		return "its provider says that it is stopped" + nothing
	}
	return ""
}

// patience is how long a machine may take to become ready.
func (p *planner) patience(m shoal.Machine) time.Duration {
	if d := p.Boot[m.Pool]; d > 0 {
		return d
	}
	return defaultBoot
}

func (p *planner) stopping(m shoal.Machine, o *provider.Observed, sure bool) (Action, bool) {
	if m.Wanted == shoal.WantDelete {
		return p.remove(m, o, sure)
	}
	switch {
	case o == nil && sure:
		return act(Gone, m, o, "its provider does not have it any more")
	case o != nil && o.Phase == provider.PhaseStopped:
		return act(Halted, m, o, "%s", m.Reason)
	case o != nil && o.Phase == provider.PhaseFailed:
		return act(Fail, m, o, "%s", or(o.Reason, "its provider says that it failed"))
	}
	return p.ask(Stop, m, o)
}

func (p *planner) stopped(m shoal.Machine, o *provider.Observed, sure bool) (Action, bool) {
	switch {
	case m.Wanted == shoal.WantDelete:
		return p.remove(m, o, sure)
	case o == nil && sure:
		return act(Gone, m, o, "its provider does not have it any more")
	case m.Wanted == shoal.WantRun && o != nil && o.Phase == provider.PhaseStopped:
		return act(Restart, m, o, "")
	case o != nil && o.Phase == provider.PhaseRunning:
		return p.ask(Stop, m, o)
	}
	return Action{}, false
}

// remove deletes a machine until it is gone.
func (p *planner) remove(m shoal.Machine, o *provider.Observed, sure bool) (Action, bool) {
	if o == nil && sure {
		return act(Gone, m, o, "%s", m.Reason)
	}
	return p.ask(Delete, m, o)
}

// ask makes an effect that ends something, again if it shows no end.
func (p *planner) ask(v Verb, m shoal.Machine, o *provider.Observed) (Action, bool) {
	t := p.Track[m.ID]
	if t.Busy || !p.due(t.Next) {
		return Action{}, false
	}
	if !t.Ended.IsZero() && t.Error == "" && t.Verb == v {
		// It was accepted. If what is seen is older, or on its way, there is nothing to add.
		wait := askAgain
		if o != nil && o.Phase != provider.PhaseStopping {
			wait = askSoon
		}
		if !p.due(t.Ended.Add(wait)) {
			return Action{}, false
		}
	}
	return act(v, m, o, "")
}

// strangers are deleted: they carry our tag and have no row, or one that says gone.
func (p *planner) strangers(known map[shoal.MachineID]bool) []Action {
	if p.Seen == nil {
		return nil
	}
	var ids []shoal.MachineID
	for id := range p.Seen.Machines {
		if !known[id] {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var actions []Action
	for _, id := range ids {
		o, _ := p.look(id)
		if o == nil || o.Phase == provider.PhaseStopping {
			continue
		}
		if a, ok := p.ask(Delete, shoal.Machine{ID: id}, o); ok {
			a.Reason = "it carries this installation's tag, and there is no such machine on record"
			actions = append(actions, a)
		}
	}
	return actions
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
