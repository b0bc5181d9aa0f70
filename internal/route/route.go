package route

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"

	"github.com/shoal-pool/shoal"
)

// State is a pool as it is: what Place and Seat decide by.
type State struct {
	Pool     shoal.Pool
	Machines []shoal.Machine // of the pool, those gone may be left out
	Sessions []shoal.Session // live ones of the pool; those waiting without a machine take no seat
	// Tasks are the machines on which tasks of a user run.
	Tasks map[shoal.UserName][]shoal.MachineID
	// Suspects did not answer a front end lately: they are chosen only where no other machine can come.
	Suspects map[shoal.MachineID]bool
	// Closed says what of its schedule gives the pool no machines now; empty: nothing does.
	Closed string
	// Seed chooses among equals where the placement is random.
	Seed uint64
}

// Decision is the answer to a Request: a machine, or to wait.
type Decision struct {
	Machine  shoal.MachineID // empty: wait
	Session  shoal.SessionID // the session that goes on there; empty: a new one, or one begun in this line
	Position int             // in the line while waiting, from 1
	Reason   shoal.Reason    // why there, or what is waited for
}

// Outcome is a Decision, or the Refusal in its place.
type Outcome struct {
	Decision
	Refused *Refusal
}

// Place decides one request. The error is a *Refusal.
func Place(s State, req Request) (Decision, error) {
	o := Seat(s, []Request{req})[0]
	if o.Refused != nil {
		return Decision{}, o.Refused
	}
	return o.Decision, nil
}

// Seat decides the requests of a pool together, in order of arrival: each sees the seats that
// those before it took. The outcomes are in the order of the requests. Who waits for one machine
// by name holds nobody up but those who wait for the same.
func Seat(s State, line []Request) []Outcome {
	order := make([]int, len(line))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return line[a].Arrived.Compare(line[b].Arrived) })
	t := newTable(s)
	out := make([]Outcome, len(line))
	position := 0
	for _, i := range order {
		o := t.decide(line[i], i)
		switch {
		case o.Refused != nil || o.Machine != "":
		case line[i].Machine != "":
			o.Position = 1
			o.Reason = t.booting(line[i].Machine)
		default:
			position++
			o.Position = position
			o.Reason = t.waiting(position)
			if ill := t.onlyIll(line[i]); ill != "" {
				o.Reason = shoal.Reason{Code: "endpoint", Sentence: ill + "; waiting for another machine, or until it answers"}
			}
		}
		out[i] = o
	}
	return out
}

// table is the pool with its seats counted, updated while a line is seated.
type table struct {
	State
	seats    int
	taken    map[shoal.MachineID]int
	byID     map[shoal.MachineID]*shoal.Machine
	sessions map[shoal.UserName][]shoal.Session // seated ones of each user
	parts    map[shoal.UserName]int
}

func newTable(s State) *table {
	t := &table{State: s, seats: max(s.Pool.Seats, 1), taken: map[shoal.MachineID]int{}, byID: map[shoal.MachineID]*shoal.Machine{},
		sessions: map[shoal.UserName][]shoal.Session{}, parts: map[shoal.UserName]int{}}
	for i := range s.Machines {
		t.byID[s.Machines[i].ID] = &s.Machines[i]
	}
	for _, x := range s.Sessions {
		if x.Live() && x.Machine != "" {
			t.add(x)
		}
	}
	return t
}

func (t *table) add(x shoal.Session) {
	t.taken[x.Machine]++
	t.sessions[x.User] = append(t.sessions[x.User], x)
	t.parts[x.User] += len(x.Parts)
}

// decide answers one request and takes the seat.
func (t *table) decide(req Request, index int) Outcome {
	if !t.Pool.Has(shoal.UseInteractive) {
		return refuse("notInteractive", "pool %s is for jobs only; it takes no logins", t.Pool.Name)
	}
	if limit := t.Pool.Limits.PerUser.Connections; limit > 0 && t.parts[req.User] >= limit {
		return refuse("connectionLimit", "you have %s to pool %s, and the limit is %d", count(t.parts[req.User], "connection"), t.Pool.Name, limit)
	}
	if x, ok := t.existing(req); ok {
		t.parts[req.User]++
		return Outcome{Decision: Decision{Machine: x.Machine, Session: x.ID,
			Reason: shoal.Reason{Code: "session", Sentence: fmt.Sprintf("your session %s is on machine %s", x.ID, x.Machine)}}}
	}
	if t.Pool.Deleting {
		return refuse("deleting", "pool %s is being deleted and takes nobody new", t.Pool.Name)
	}
	if o := t.limited(req); o.Refused != nil {
		return o
	}
	var o Outcome
	if req.Machine != "" {
		o = t.named(req)
	} else {
		o = t.any(req, index)
	}
	if o.Machine == "" {
		return o
	}
	if at := slices.IndexFunc(t.sessions[req.User], func(x shoal.Session) bool { return x.Machine == o.Machine }); at >= 0 {
		o.Session = t.sessions[req.User][at].ID // one presence per machine
		t.parts[req.User]++
		return o
	}
	t.add(shoal.Session{User: req.User, Machine: o.Machine, State: shoal.SessionActive, Parts: []shoal.Part{{}}})
	return o
}

// existing is the session that a request goes on in: on the machine it names, or on any that
// answers. A cordon does not matter, it keeps new users off. The freshest one wins.
func (t *table) existing(req Request) (shoal.Session, bool) {
	var found []shoal.Session
	for _, x := range t.sessions[req.User] {
		m := t.byID[x.Machine]
		switch {
		case m == nil || m.State != shoal.MachineReady || m.Wanted == shoal.WantDelete || m.Wanted == shoal.WantStop:
		case req.Machine != "" && x.Machine != req.Machine:
		case req.Machine == "" && len(x.Parts)+len(x.Pins) == 0 && t.ill(m, req) != "": // nothing of hers is there
		case req.Machine == "" && (req.New || m.Health == shoal.HealthDown || x.Machine == req.Avoid):
		default:
			found = append(found, x)
		}
	}
	if len(found) == 0 {
		return shoal.Session{}, false
	}
	return slices.MinFunc(found, func(a, b shoal.Session) int {
		return cmp.Or(
			compareBool(len(b.Parts) > 0, len(a.Parts) > 0),
			compareBool(len(b.Pins) > 0, len(a.Pins) > 0),
			b.Since.Compare(a.Since),
			cmp.Compare(a.Machine, b.Machine),
		)
	}), true
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// limited refuses a new session beyond the user's limit. Sessions on machines that are not heard
// from do not count: she must be able to leave them.
func (t *table) limited(req Request) Outcome {
	limit := t.Pool.Limits.PerUser.Sessions
	if limit <= 0 {
		return Outcome{}
	}
	n := 0
	var one shoal.Session
	for _, x := range t.sessions[req.User] {
		m := t.byID[x.Machine]
		if m == nil || m.State != shoal.MachineReady || m.Health == shoal.HealthDown || m.Health == shoal.HealthUnknown ||
			x.Machine == req.Avoid || t.Suspects[x.Machine] {
			continue
		}
		n, one = n+1, x
	}
	if n < limit {
		return Outcome{}
	}
	hint := ""
	if one.ID != "" {
		hint = fmt.Sprintf("; `shoal session end %s` ends the one on machine %s", one.ID, one.Machine)
	}
	return refuse("sessionLimit", "you have %s in pool %s, and the limit is %d%s", count(n, "session"), t.Pool.Name, limit, hint)
}

// named answers a request for one machine.
func (t *table) named(req Request) Outcome {
	m := t.byID[req.Machine]
	switch {
	case m == nil || m.State == shoal.MachineGone:
		return refuse("noMachine", "pool %s has no machine %s", t.Pool.Name, req.Machine)
	case m.State == shoal.MachineRequested || m.State == shoal.MachineBooting:
		return Outcome{}
	case m.State != shoal.MachineReady || m.Wanted == shoal.WantStop || m.Wanted == shoal.WantDelete:
		return refuse("notReady", "machine %s is %s%s", m.ID, m.State, because(m.Reason))
	case len(m.Cordons) > 0:
		return refuse("draining", "machine %s is draining and takes nobody new%s", m.ID, because(m.Cordons[0].Reason))
	case !m.Accepts():
		return refuse("silent", "machine %s does not answer", m.ID)
	case t.ill(m, req) != "":
		return refuse("endpoint", "%s", t.ill(m, req))
	case t.taken[m.ID] >= t.seats:
		return refuse("full", "all %s of machine %s are taken", count(t.seats, "seat"), m.ID)
	}
	return seated(m.ID, "named", "you asked for machine %s", m.ID)
}

// any answers a request for whichever machine: where tasks of hers run, else by the pool's placement.
func (t *table) any(req Request, index int) Outcome {
	none := t.most() == 0 && !slices.ContainsFunc(t.Machines, shoal.Machine.Accepts)
	if f := t.Pool.Fixed; none && f == nil {
		return refuse("noMachines", "pool %s may have no machines: %s", t.Pool.Name, cmp.Or(t.Closed, "its size.max is 0"))
	} else if none {
		until := "further notice"
		if !f.Until.IsZero() {
			until = f.Until.UTC().Format("2006-01-02 15:04 MST")
		}
		return refuse("noMachines", "pool %s is kept without machines until %s: an operator scaled it to 0", t.Pool.Name, until)
	}
	// Seats are only taken while a line is seated: who finds none leaves none for those behind.
	var free []*shoal.Machine
	for i := range t.Machines {
		if m := &t.Machines[i]; m.Accepts() && t.taken[m.ID] < t.seats && t.ill(m, req) == "" {
			free = append(free, m)
		}
	}
	if len(free) == 0 {
		return Outcome{}
	}
	switch rest := t.without(free, req); {
	case len(rest) > 0:
		free = rest
	case t.another(free, req):
		return Outcome{}
	}
	if !req.New {
		hers := slices.DeleteFunc(slices.Clone(free), func(m *shoal.Machine) bool { return !slices.Contains(t.Tasks[req.User], m.ID) })
		if len(hers) > 0 {
			m := t.choose(hers, index)
			return seated(m.ID, "task", "tasks of yours run on machine %s", m.ID)
		}
	}
	m := t.choose(free, index)
	return seated(m.ID, string(t.placement()), "machine %s has a free seat (placement %s)", m.ID, t.placement())
}

// ill says what is wrong on a machine with the endpoint that a request is for; empty: nothing.
func (t *table) ill(m *shoal.Machine, req Request) string {
	if len(m.Ill) == 0 {
		return ""
	}
	e, ok := t.Pool.Of(req.Kind)
	if !ok {
		return ""
	}
	i, ill := m.IllAt(e.Name)
	if !ill {
		return ""
	}
	return fmt.Sprintf("%s on machine %s does not answer: %s", e.Name, m.ID, i.Reason)
}

// onlyIll says what is wrong where a seat is free for a request, but its endpoint does not answer; empty: nothing, or that
// is not what she waits for.
func (t *table) onlyIll(req Request) string {
	why := ""
	for i := range t.Machines {
		m := &t.Machines[i]
		if m.State == shoal.MachineRequested || m.State == shoal.MachineBooting {
			return ""
		}
		if m.Accepts() && t.taken[m.ID] < t.seats && why == "" {
			why = t.ill(m, req)
		}
	}
	return why
}

// without leaves out the machines that did not answer, or of which an endpoint does not, and for a fresh placement those she
// is on.
func (t *table) without(free []*shoal.Machine, req Request) []*shoal.Machine {
	return slices.DeleteFunc(slices.Clone(free), func(m *shoal.Machine) bool {
		on := req.New && slices.ContainsFunc(t.sessions[req.User], func(x shoal.Session) bool { return x.Machine == m.ID })
		return m.ID == req.Avoid || t.Suspects[m.ID] || len(m.Ill) > 0 || on
	})
}

// another reports whether to wait for another machine than those with a free seat, of which none answered: one is on its way,
// or the pool may have one more. Suspects' seats are not counted on, so it is asked for.
func (t *table) another(free []*shoal.Machine, req Request) bool {
	coming, alive := false, 0
	for _, m := range t.Machines {
		if m.Alive() {
			alive++
		}
		coming = coming || m.State == shoal.MachineRequested || m.State == shoal.MachineBooting
	}
	return !slices.ContainsFunc(free, func(m *shoal.Machine) bool {
		return !t.Suspects[m.ID] && !(coming && m.ID == req.Avoid)
	}) && (coming || alive < t.most())
}

// most is how many machines the pool may have.
func (t *table) most() int {
	if t.Pool.Fixed != nil {
		return t.Pool.Fixed.Size
	}
	return t.Pool.Size.Max
}

func (t *table) placement() shoal.Placement {
	if t.Pool.Placement == "" {
		return shoal.PlaceSpread
	}
	return t.Pool.Placement
}

// choose picks by placement; equals are told apart by load and name, so that the choice is the
// same whatever the order of machines.
func (t *table) choose(free []*shoal.Machine, index int) *shoal.Machine {
	free = slices.Clone(free)
	slices.SortFunc(free, func(a, b *shoal.Machine) int {
		byLoad := cmp.Or(cmp.Compare(a.Load.CPUPercent, b.Load.CPUPercent), cmp.Compare(memoryUse(a), memoryUse(b)))
		bySessions := cmp.Compare(t.taken[a.ID], t.taken[b.ID])
		byID := cmp.Compare(a.ID, b.ID)
		switch t.placement() {
		case shoal.PlacePack:
			return cmp.Or(-bySessions, byID)
		case shoal.PlaceLeastLoaded:
			return cmp.Or(byLoad, bySessions, byID)
		}
		return cmp.Or(bySessions, byLoad, byID)
	})
	if t.placement() == shoal.PlaceLeastLoaded {
		// Loads are seconds old: were it always the lowest, a crowd that comes at once would all go there.
		half := (len(free) + 1) / 2
		return free[rand.New(rand.NewPCG(t.Seed, uint64(index))).IntN(half)]
	}
	return free[0]
}

// memoryUse is the used share of a machine's memory in thousandths.
func memoryUse(m *shoal.Machine) int64 {
	if m.Resources.Memory <= 0 {
		return 0
	}
	return int64(float64(m.Load.Memory) / float64(m.Resources.Memory) * 1000)
}

func seated(id shoal.MachineID, code, format string, args ...any) Outcome {
	return Outcome{Decision: Decision{Machine: id, Reason: shoal.Reason{Code: code, Sentence: fmt.Sprintf(format, args...)}}}
}

func refuse(code, format string, args ...any) Outcome {
	return Outcome{Refused: &Refusal{shoal.Reason{Code: code, Sentence: fmt.Sprintf(format, args...)}}}
}
