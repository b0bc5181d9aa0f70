package broker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/scale"
	"github.com/shoal-pool/shoal/internal/store"
)

// verdict is what a pass found for one waiter.
type verdict struct {
	over     bool // it leaves the line with the outcome
	recorded bool
	sentence string
	outcome
}

// pass seats the line as far as there are seats, in one transaction.
func (b *Broker) pass(ctx context.Context) error {
	b.mu.Lock()
	line := slices.Clone(b.line)
	gone := make([]bool, len(line))
	for i, w := range line {
		gone[i] = w.gone
	}
	b.mu.Unlock()
	if len(line) == 0 {
		return nil
	}
	var verdicts []verdict
	suspects := b.suspected()
	err := b.cfg.Store.Update(ctx, func(tx *store.Tx) (err error) {
		verdicts, err = b.judge(tx, line, gone, suspects)
		return err
	})
	if err != nil {
		b.tell(line, err)
		return err
	}
	b.deliver(line, verdicts)
	return nil
}

// tell has everybody in the line know that the store is in trouble. Who waits goes on waiting
// where the trouble may pass, and is sent away where it will not.
func (b *Broker) tell(line []*waiter, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, w := range line {
		if !shoal.KindOf(err).Meaning().Retry || shoal.KindOf(err) == shoal.KindInternal {
			w.result <- outcome{err: fmt.Errorf("cannot log in: %w", err)}
			b.drop(w)
			continue
		}
		w.say("waiting for the control plane: " + err.Error())
	}
}

func (w *waiter) say(sentence string) {
	if sentence == "" || sentence == w.told {
		return
	}
	w.told = sentence
	select {
	case <-w.news: // an older sentence nobody took yet
	default:
	}
	w.news <- sentence
}

// drop takes a waiter out of the line; b.mu is held.
func (b *Broker) drop(w *waiter) {
	b.line = slices.DeleteFunc(b.line, func(x *waiter) bool { return x == w })
}

// deliver hands the verdicts to the waiters. One who went away after being seated gives the seat back.
func (b *Broker) deliver(line []*waiter, verdicts []verdict) {
	demand := false
	var left []part
	for i, w := range line {
		v := verdicts[i]
		b.mu.Lock()
		demand = demand || (v.recorded && !w.recorded)
		w.recorded = v.recorded
		switch {
		case !v.over:
			w.say(v.sentence)
		case w.gone && v.err == nil && v.seat.target.Session != "":
			left = append(left, part{v.seat.target.Session, w.partID, true})
			b.drop(w)
		default:
			// She may have come again under the name of a part that is gone, which is not recorded yet: there is but the new one now.
			b.closing = slices.DeleteFunc(b.closing, func(p part) bool { return p.session == v.seat.target.Session && p.id == w.partID })
			w.result <- v.outcome
			b.drop(w)
		}
		b.mu.Unlock()
	}
	for _, p := range left {
		b.leave(p)
	}
	if demand {
		b.cfg.Wake()
	}
}

// judge decides about everybody in the line and records it.
func (b *Broker) judge(tx *store.Tx, line []*waiter, gone []bool, suspects map[shoal.MachineID]bool) ([]verdict, error) {
	verdicts := make([]verdict, len(line))
	byPool := map[shoal.PoolName][]int{}
	all, err := tx.Pools().List()
	if err != nil {
		return nil, err
	}
	for i, w := range line {
		v := &verdicts[i]
		if gone[i] {
			*v = verdict{over: true, outcome: outcome{err: context.Canceled}}
			if err := withdraw(tx, w, "the client went away"); err != nil {
				return nil, err
			}
			continue
		}
		refusal, pool, err := admit(tx, w, all)
		if err != nil {
			return nil, err
		}
		if refusal != nil {
			if err := turnAway(tx, w, v, refusal); err != nil {
				return nil, err
			}
			continue
		}
		byPool[pool] = append(byPool[pool], i)
	}
	for _, p := range all {
		if members := byPool[p.Name]; len(members) > 0 {
			if err := b.judgePool(tx, p, line, members, verdicts, suspects); err != nil {
				return nil, err
			}
		}
	}
	return verdicts, nil
}

// admit checks what does not depend on machines and resolves the pool.
func admit(tx *store.Tx, w *waiter, all []shoal.Pool) (*route.Refusal, shoal.PoolName, error) {
	if w.recorded {
		s, err := tx.Sessions().Get(w.session)
		if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
			return nil, "", err
		}
		if err != nil || !s.Live() {
			return refusal("ended", "your place in the line was taken away: %s", s.Reason), "", nil
		}
	}
	u, err := tx.Users().Get(w.req.User)
	if shoal.KindOf(err) == shoal.KindNotFound || (err == nil && u.Disabled) {
		return refusal("noUser", "user %s may not log in", w.req.User), "", nil
	}
	if err != nil {
		return nil, "", err
	}
	pool, ref := choosePool(w.req, all)
	return ref, pool, nil
}

// choosePool is the pool that a request names, or the default one of those that take logins.
func choosePool(req route.Request, all []shoal.Pool) (shoal.PoolName, *route.Refusal) {
	var names []string
	var fallback shoal.PoolName
	for _, p := range all {
		if p.Name == req.Pool {
			return p.Name, nil
		}
		if p.Has(shoal.UseInteractive) && !p.Deleting {
			names = append(names, string(p.Name))
			if p.Default {
				fallback = p.Name
			}
		}
	}
	switch {
	case len(names) == 0:
		return "", refusal("noPool", "there is no pool that takes logins")
	case req.Pool != "":
		return "", refusal("noPool", "there is no pool %q; there is %s", string(req.Pool), strings.Join(names, ", "))
	case fallback != "":
		return fallback, nil
	case len(names) == 1:
		return shoal.PoolName(names[0]), nil
	}
	return "", refusal("whichPool", "there are several pools (%s): log in as %s+%s, for instance", strings.Join(names, ", "), req.User, names[0])
}

func refusal(code, format string, args ...any) *route.Refusal {
	return &route.Refusal{Reason: shoal.Reason{Code: code, Sentence: fmt.Sprintf(format, args...)}}
}

// turnAway records a refusal.
func turnAway(tx *store.Tx, w *waiter, v *verdict, r *route.Refusal) error {
	*v = verdict{over: true, outcome: outcome{err: r}}
	tx.Event(shoal.Event{Kind: shoal.ObjectUser, Name: string(w.req.User), User: w.req.User, Pool: w.req.Pool,
		Code: "loginRefused", Sentence: fmt.Sprintf("a login of %s was refused: %s", w.req.User, r.Reason.Sentence)})
	return withdraw(tx, w, r.Reason.Sentence)
}

// withdraw ends the waiting row of a waiter, if it has one.
func withdraw(tx *store.Tx, w *waiter, why string) error {
	if !w.recorded {
		return nil
	}
	s, err := tx.Sessions().Get(w.session)
	if shoal.KindOf(err) == shoal.KindNotFound || (err == nil && s.State != shoal.SessionWaiting) {
		return nil
	}
	if err != nil {
		return err
	}
	return finish(tx, s, why)
}

// state reads what route decides by.
func (b *Broker) state(tx *store.Tx, pool shoal.Pool, users []shoal.UserName, suspects map[shoal.MachineID]bool) (route.State, error) {
	s := route.State{Pool: scale.At(pool, time.Now()), Closed: scale.Closed(pool, time.Now()), Suspects: suspects, Seed: b.seed + uint64(time.Now().UnixNano()), Tasks: map[shoal.UserName][]shoal.MachineID{}}
	var err error
	if s.Machines, err = tx.LiveMachinesIn(pool.Name); err != nil {
		return s, err
	}
	if s.Sessions, err = tx.LiveSessionsIn(pool.Name); err != nil {
		return s, err
	}
	for _, u := range users {
		if _, ok := s.Tasks[u]; ok {
			continue
		}
		if s.Tasks[u], err = tx.MachinesWithTasksOf(u); err != nil {
			return s, err
		}
	}
	return s, nil
}

// judgePool decides about those of the line who want one pool.
func (b *Broker) judgePool(tx *store.Tx, pool shoal.Pool, line []*waiter, members []int, verdicts []verdict, suspects map[shoal.MachineID]bool) error {
	requests := make([]route.Request, len(members))
	users := make([]shoal.UserName, len(members))
	for k, i := range members {
		requests[k], users[k] = line[i].req, line[i].req.User
	}
	state, err := b.state(tx, pool, users, suspects)
	if err != nil {
		return err
	}
	despair, err := hopeless(tx, state)
	if err != nil {
		return err
	}
	begun := map[shoal.UserName]map[shoal.MachineID]shoal.SessionID{}
	for k, o := range route.Seat(state, requests) {
		i := members[k]
		w, v := line[i], &verdicts[i]
		if o.Refused == nil && o.Machine == "" {
			o.Refused = despair(w.req)
		}
		switch {
		case o.Refused != nil:
			err = turnAway(tx, w, v, o.Refused)
		case o.Machine == "":
			err = keepWaiting(tx, w, v, pool, o.Reason.Sentence)
		default:
			if o.Session == "" {
				o.Session = begun[w.req.User][o.Machine]
			}
			err = take(tx, w, v, pool, o.Decision)
			if begun[w.req.User] == nil {
				begun[w.req.User] = map[shoal.MachineID]shoal.SessionID{}
			}
			begun[w.req.User][o.Machine] = v.seat.target.Session
			v.seat.target.Done = b.doneOf(v.seat.target.Session)
			v.seat.target.Used = b.usedOf(v.seat.target.Session)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// keepWaiting records that a login waits, and for what.
func keepWaiting(tx *store.Tx, w *waiter, v *verdict, pool shoal.Pool, sentence string) error {
	*v = verdict{recorded: true, sentence: sentence}
	if w.recorded {
		s, err := tx.Sessions().Get(w.session)
		if err != nil || s.Reason == sentence {
			return err
		}
		s.Reason = sentence
		_, err = tx.Sessions().Put(s)
		return err
	}
	err := insert(tx, w, shoal.Session{User: w.req.User, Pool: pool.Name,
		State: shoal.SessionWaiting, Reason: sentence, Since: w.req.Arrived.UTC().Round(0)})
	if err != nil {
		return err
	}
	tx.Event(shoal.Event{Kind: shoal.ObjectSession, Name: string(w.session), Pool: pool.Name, User: w.req.User,
		Code: "sessionWaiting", Sentence: fmt.Sprintf("%s waits for a seat: %s", w.req.User, sentence)})
	return nil
}

// insert stores a waiter's session under its identifier, or a new one if that is taken.
func insert(tx *store.Tx, w *waiter, s shoal.Session) error {
	for {
		s.ID = w.session
		_, err := tx.Sessions().Insert(s)
		if shoal.KindOf(err) != shoal.KindConflict {
			return err
		}
		w.session = shoal.NewSessionID()
	}
}

// take records that a login has its seat: a new part of a session that exists, or a new session.
func take(tx *store.Tx, w *waiter, v *verdict, pool shoal.Pool, d route.Decision) error {
	now := time.Now().UTC().Round(0)
	s := shoal.Session{User: w.req.User, Pool: pool.Name, Machine: d.Machine, Started: now}
	resumed := d.Session != ""
	var err error
	switch {
	case resumed:
		if w.recorded { // it waited, and goes where another login of the same user went
			if err := tx.Sessions().Delete(w.session); err != nil {
				return err
			}
		}
		s, err = tx.Sessions().Get(d.Session)
	case w.recorded:
		s, err = tx.Sessions().Get(w.session)
		s.Machine, s.Started = d.Machine, now
	}
	if err != nil {
		return err
	}
	was := s.State
	s.Found = false
	s.Parts = slices.DeleteFunc(slices.Clone(s.Parts), func(p shoal.Part) bool { return p.ID == w.partID })
	s.Parts = append(s.Parts, shoal.Part{ID: w.partID, Kind: w.req.Kind, Source: w.req.Source, Since: now})
	desktopUse(&s, now)
	if s.Ending == endsSession { // it is used again
		s.Ends, s.Ending = time.Time{}, ""
	}
	if s.State != shoal.SessionActive {
		s.State, s.Since, s.Reason = shoal.SessionActive, now, ""
	}
	if resumed || w.recorded {
		_, err = tx.Sessions().Put(s)
	} else {
		err = insert(tx, w, s)
		s.ID = w.session
	}
	if err != nil {
		return err
	}
	m, err := tx.Machines().Get(d.Machine)
	if err != nil {
		return err
	}
	rev, err := accountRev(tx, w.req.User)
	if err != nil {
		return err
	}
	switch {
	case !resumed:
		if err := tx.OpenInterval(interval(s, pool)); err != nil {
			return err
		}
		event(tx, s, "sessionStarted", fmt.Sprintf("%s is on machine %s: %s", s.User, s.Machine, d.Reason.Sentence))
	case was == shoal.SessionDisconnected:
		event(tx, s, "sessionResumed", fmt.Sprintf("%s is back on machine %s", s.User, s.Machine))
	}
	*v = verdict{over: true, outcome: outcome{seat: seat{rev: rev, resumed: resumed, target: route.Target{
		Session: s.ID, User: s.User, Pool: pool.Name, Machine: m.ID, Address: m.Address, Principal: route.Principal(s.User, pool.Name)}}}}
	return nil
}

func interval(s shoal.Session, pool shoal.Pool) store.Interval {
	return store.Interval{Kind: shoal.ObjectSession, ID: string(s.ID), Pool: s.Pool, Machine: s.Machine, User: s.User, Start: s.Started, Price: pool.Price}
}

func event(tx *store.Tx, s shoal.Session, code, sentence string) {
	tx.Event(shoal.Event{Kind: shoal.ObjectSession, Name: string(s.ID), Pool: s.Pool, User: s.User, Code: code, Sentence: sentence})
}

// accountRev is the newest revision of a user and of the groups she is in.
func accountRev(tx *store.Tx, name shoal.UserName) (shoal.Rev, error) {
	u, err := tx.Users().Get(name)
	if err != nil {
		return 0, err
	}
	groups, err := tx.Groups().List()
	if err != nil {
		return 0, err
	}
	rev := u.Rev
	for _, g := range groups {
		if slices.Contains(u.Groups, g.Name) || slices.Contains(g.Members, name) {
			rev = max(rev, g.Rev)
		}
	}
	return rev, nil
}

// When a pool's machines fail one after another, waiting is in vain: after so many failures, or
// after one and so long a wait.
const (
	failuresTooMany = 3
	failureWait     = time.Minute
	failureRecent   = 2 * time.Minute // before the login
)

// hopeless returns a function that refuses a request which waits for machines that cannot start.
// As long as a machine of the pool is ready a seat may become free, and nobody is refused.
func hopeless(tx *store.Tx, s route.State) (func(route.Request) *route.Refusal, error) {
	for _, m := range s.Machines {
		if m.State == shoal.MachineReady {
			return func(route.Request) *route.Refusal { return nil }, nil
		}
	}
	recent, _, err := tx.MachinesPage(store.MachineFilter{Pool: s.Pool.Name, Gone: true}, "", 20)
	if err != nil {
		return nil, err
	}
	return func(req route.Request) *route.Refusal {
		failures := 0
		var latest shoal.Machine
		for _, m := range recent {
			failed := m.State == shoal.MachineFailed || m.State == shoal.MachineGone
			if !failed || m.Reason == "" || !m.ReadyAt.IsZero() || m.Since.Before(req.Arrived.Add(-failureRecent)) {
				continue
			}
			if failures++; m.Since.After(latest.Since) {
				latest = m
			}
		}
		if failures >= failuresTooMany || (failures > 0 && time.Since(req.Arrived) >= failureWait) {
			return refusal("cannotStart", "no machine of pool %s can start (tried %d times lately): %s", s.Pool.Name, failures, latest.Reason)
		}
		return nil
	}, nil
}
