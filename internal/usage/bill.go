package usage

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
)

// By is what a bill has a row for.
type By string

// The rows that a bill can have.
const (
	ByUser    By = "user"
	ByGroup   By = "group"
	ByPool    By = "pool"
	ByJob     By = "job"
	ByMachine By = "machine"
)

// The keys of rows that are nobody's. No object can have such a name.
const (
	KeyIdle     = "(idle)"     // machines ran and nobody was there
	KeySessions = "(sessions)" // of a bill by job: what was not used by jobs
	KeyNoGroup  = "(no group)" // of a bill by group: users in no group
)

// Input is what a bill is made of.
type Input struct {
	// Intervals of machines, sessions and tasks; those without an end last until Until.
	Intervals []Interval
	// Attempts at tasks. One occupies its machine from Placed to Ended, one that has not ended until Until.
	Attempts []shoal.Attempt
	// Groups are the groups of each user. What a user of several used is divided equally among them.
	Groups map[shoal.UserName][]shoal.GroupName
	// Idle says whose time is that nobody used. Empty: nobody's.
	Idle Idle
	// Since and Until bound the bill; what lies outside is cut off.
	Since, Until time.Time
}

// Idle is a policy: whose the time of machines is that nobody used.
type Idle string

// The policies. By pool and by machine they make no difference: there idle time is the pool's or the machine's.
const (
	IdleApart  Idle = "apart"  // it has a row of its own
	IdleShared Idle = "shared" // it is divided among those who used the pool, by how much they did
)

// ParseIdle reads the word of a policy; empty reads as apart.
func ParseIdle(s string) (Idle, error) {
	switch Idle(s) {
	case "", IdleApart:
		return IdleApart, nil
	case IdleShared:
		return IdleShared, nil
	}
	return "", shoal.Errorf(shoal.KindInvalid, "cannot show idle time %q", s).WithHint("it can be apart or shared")
}

// Row is one line of a bill. MachineSeconds is the sum of the three after it.
type Row struct {
	Key            string
	MachineSeconds float64
	SessionSeconds float64
	TaskSeconds    float64
	IdleSeconds    float64
	Cost           float64
	Currency       string // "mixed" where it differs; Cost is then 0
}

// Table is a bill.
type Table struct {
	By           By
	Since, Until time.Time
	Rows         []Row // by falling machine-seconds, then key
	Total        Row
}

// ParseBy reads the word of a By; empty reads as user.
func ParseBy(s string) (By, error) {
	all := []By{ByUser, ByGroup, ByPool, ByJob, ByMachine}
	if s == "" {
		return ByUser, nil
	}
	if slices.Contains(all, By(s)) {
		return By(s), nil
	}
	return "", shoal.Errorf(shoal.KindInvalid, "cannot show usage by %q", s).WithHint("it can be by user, group, pool, job or machine")
}

// GroupsOf collects the groups of each user from both sides of membership.
func GroupsOf(users []shoal.User, groups []shoal.Group) map[shoal.UserName][]shoal.GroupName {
	all := map[shoal.UserName][]shoal.GroupName{}
	for _, u := range users {
		all[u.Name] = append(all[u.Name], u.Groups...)
	}
	for _, g := range groups {
		for _, name := range g.Members {
			all[name] = append(all[name], g.Name)
		}
	}
	for name, list := range all {
		slices.Sort(list)
		all[name] = slices.Compact(list)
	}
	return all
}

// Bill makes the bill. The same input gives the same bill, whatever its order.
func Bill(in Input, by By) Table {
	l := NewLedger(by, in.Groups, in.Idle)
	l.Add(in)
	return l.Table(in.Since, in.Until)
}

// Ledger is a bill in the making, of inputs whose times follow each other: what is too much to be looked at
// at once is added piece by piece.
type Ledger struct {
	by     By
	groups map[shoal.UserName][]shoal.GroupName
	idle   Idle
	rows   map[rowKey]*sums
}

// NewLedger begins a bill. Groups and idle are as of Input.
func NewLedger(by By, groups map[shoal.UserName][]shoal.GroupName, idle Idle) *Ledger {
	return &Ledger{by: by, groups: groups, idle: idle, rows: map[rowKey]*sums{}}
}

// Add adds what was used between the bounds of an input, whose Groups and Idle do not matter.
func (l *Ledger) Add(in Input) {
	occupants := occupantsByMachine(in)
	for _, i := range in.Intervals {
		if i.Kind != shoal.ObjectMachine {
			continue
		}
		if s, ok := clip(i.Start, i.End, in.Since, in.Until); ok {
			l.divide(i, s, occupants[i.Machine])
		}
	}
}

// span is a stretch of time.
type span struct{ start, end time.Time }

// clip cuts a stretch to the bounds of the bill; an end of zero is the bill's.
func clip(start, end, since, until time.Time) (span, bool) {
	if end.IsZero() || end.After(until) {
		end = until
	}
	if start.Before(since) {
		start = since
	}
	return span{start, end}, start.Before(end)
}

// occupant is a session or an attempt on a machine for a stretch of time.
type occupant struct {
	span
	user shoal.UserName
	job  shoal.JobID // empty: a session
	id   string      // tells occupants apart, for a fixed order
}

func occupantsByMachine(in Input) map[shoal.MachineID][]occupant {
	all := map[shoal.MachineID][]occupant{}
	for _, i := range in.Intervals {
		if i.Kind == shoal.ObjectMachine {
			continue
		}
		if s, ok := clip(i.Start, i.End, in.Since, in.Until); ok {
			all[i.Machine] = append(all[i.Machine], occupant{span: s, user: i.User, job: i.job(), id: i.ID})
		}
	}
	for _, a := range in.Attempts {
		start, end := a.Placed, a.Ended
		if start.IsZero() {
			start = a.Started
		}
		if a.Machine == "" || start.IsZero() || (a.State.Ended() && end.IsZero()) {
			continue
		}
		if s, ok := clip(start, end, in.Since, in.Until); ok {
			for _, m := range machinesOf(a) {
				all[m] = append(all[m], occupant{span: s, user: a.User, job: a.Job, id: a.AttemptRef.String()})
			}
		}
	}
	for _, list := range all {
		slices.SortFunc(list, func(a, b occupant) int { return cmp.Or(a.start.Compare(b.start), cmp.Compare(a.id, b.id)) })
	}
	return all
}

// rowKey: prices of several currencies are never added up. The pool is there until its idle time is divided.
type rowKey struct {
	key, currency string
	pool          shoal.PoolName
}

// sums are kept in whole nanoseconds, so that dividing loses nothing.
type sums struct {
	session, task, idle time.Duration
	cost                float64
}

// divide gives each moment of a machine's interval to who was on it. The list is ordered by start.
func (l *Ledger) divide(m Interval, s span, list []occupant) {
	var active []occupant
	next := 0
	for at := s.start; at.Before(s.end); {
		for next < len(list) && !list[next].start.After(at) {
			active = append(active, list[next])
			next++
		}
		active = slices.DeleteFunc(active, func(o occupant) bool { return !o.end.After(at) })
		until := s.end
		if next < len(list) && list[next].start.Before(until) {
			until = list[next].start
		}
		for _, o := range active {
			if o.end.Before(until) {
				until = o.end
			}
		}
		l.share(m, until.Sub(at), active)
		at = until
	}
}

// share divides a moment equally; the nanoseconds left over go to the first, one each.
func (l *Ledger) share(m Interval, d time.Duration, active []occupant) {
	if len(active) == 0 {
		l.add(m, occupant{}, d, true)
		return
	}
	each, rest := d/time.Duration(len(active)), int(d%time.Duration(len(active)))
	for i, o := range active {
		part := each
		if i < rest {
			part++
		}
		l.add(m, o, part, false)
	}
}

func (l *Ledger) add(m Interval, o occupant, d time.Duration, idle bool) {
	keys := l.keys(m, o, idle)
	each, rest := d/time.Duration(len(keys)), int(d%time.Duration(len(keys)))
	for i, key := range keys {
		part := each
		if i < rest {
			part++
		}
		k := rowKey{key, m.Price.Currency, m.Pool}
		if l.rows[k] == nil {
			l.rows[k] = &sums{}
		}
		r := l.rows[k]
		r.cost += part.Hours() * m.Price.PerHour
		switch {
		case idle:
			r.idle += part
		case o.job != "":
			r.task += part
		default:
			r.session += part
		}
	}
}

// keys are the rows that a stretch goes to, in equal parts.
func (l *Ledger) keys(m Interval, o occupant, idle bool) []string {
	switch {
	case l.by == ByPool:
		return []string{string(m.Pool)}
	case l.by == ByMachine:
		return []string{string(m.Machine)}
	case idle:
		return []string{KeyIdle}
	case l.by == ByJob && o.job == "":
		return []string{KeySessions}
	case l.by == ByJob:
		return []string{string(o.job)}
	case l.by == ByGroup:
		groups := l.groups[o.user]
		if len(groups) == 0 {
			return []string{KeyNoGroup}
		}
		keys := make([]string, len(groups))
		for i, g := range groups {
			keys[i] = string(g)
		}
		return keys
	}
	return []string{string(o.user)}
}

// Table turns the sums into rows and the total. Nothing is added after it.
func (l *Ledger) Table(since, until time.Time) Table {
	if l.idle == IdleShared {
		l.shareIdle()
	}
	l.mergePools()
	l.mergeUnpriced()
	t := Table{By: l.by, Since: since, Until: until}
	var all sums
	for _, k := range l.sortedKeys() {
		s := l.rows[k]
		t.Rows = append(t.Rows, s.row(k))
		all.add(*s)
	}
	t.Total = all.row(rowKey{key: "total"}) // of the times, which are whole here, and the costs of the rows
	t.Total.Cost, t.Total.Currency = totalCost(t.Rows)
	slices.SortStableFunc(t.Rows, func(a, b Row) int { return cmp.Compare(b.MachineSeconds, a.MachineSeconds) })
	return t
}

// Only leaves the rows of some keys, and their total.
func (t Table) Only(keys map[string]bool) Table {
	t.Rows = slices.DeleteFunc(slices.Clone(t.Rows), func(r Row) bool { return !keys[r.Key] })
	total := Row{Key: "total"}
	for _, r := range t.Rows {
		total.MachineSeconds = billionths(total.MachineSeconds + r.MachineSeconds)
		total.SessionSeconds = billionths(total.SessionSeconds + r.SessionSeconds)
		total.TaskSeconds = billionths(total.TaskSeconds + r.TaskSeconds)
		total.IdleSeconds = billionths(total.IdleSeconds + r.IdleSeconds)
	}
	total.Cost, total.Currency = totalCost(t.Rows)
	t.Total = total
	return t
}

// totalCost adds up what rows cost. What cost nothing has no currency to differ by.
func totalCost(rows []Row) (cost float64, currency string) {
	priced := false
	for _, r := range rows {
		switch {
		case r.Currency == "" && r.Cost == 0:
		case !priced || currency == r.Currency:
			cost, currency, priced = billionths(cost+r.Cost), r.Currency, true
		default:
			return 0, "mixed"
		}
	}
	return cost, currency
}

func (s *sums) row(k rowKey) Row {
	return Row{Key: k.key, Currency: k.currency, Cost: billionths(s.cost), MachineSeconds: (s.session + s.task + s.idle).Seconds(),
		SessionSeconds: s.session.Seconds(), TaskSeconds: s.task.Seconds(), IdleSeconds: s.idle.Seconds()}
}

func (l *Ledger) sortedKeys() []rowKey {
	keys := make([]rowKey, 0, len(l.rows))
	for k := range l.rows {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b rowKey) int {
		return cmp.Or(strings.Compare(a.key, b.key), strings.Compare(a.currency, b.currency), cmp.Compare(a.pool, b.pool))
	})
	return keys
}

// mergeUnpriced adds what cost nothing to the row of the same key that has a currency, if there
// is exactly one: a pool that was free at first is one row.
func (l *Ledger) mergeUnpriced() {
	priced := map[string][]rowKey{}
	for k := range l.rows {
		if k.currency != "" {
			priced[k.key] = append(priced[k.key], k)
		}
	}
	for key, with := range priced {
		free := rowKey{key: key}
		s := l.rows[free]
		if s == nil || s.cost != 0 || len(with) != 1 {
			continue
		}
		l.rows[with[0]].add(*s)
		delete(l.rows, free)
	}
}

// machinesOf are the machines of an attempt's nodes.
func machinesOf(a shoal.Attempt) []shoal.MachineID {
	if len(a.Members) == 0 {
		return []shoal.MachineID{a.Machine}
	}
	all := make([]shoal.MachineID, len(a.Members))
	for i, m := range a.Members {
		all[i] = m.Machine
	}
	return all
}
