package engine

import (
	"context"
	"fmt"
	"maps"
	"math"
	"reflect"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store"
)

// pass makes one pass and returns when the next is due though nothing changes.
func (e *Engine) pass(ctx context.Context) (next time.Time, err error) {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return next, ctx.Err()
	}
	if err := e.cfg.Keep(ctx); err != nil {
		return next, err
	}
	m := e.recall()
	var v *verdict
	live, pools := map[shoal.MachineID]bool{}, map[shoal.PoolName]bool{}
	judge := func(tx *store.Tx) error {
		w, err := e.reader.Read(tx)
		if err != nil {
			return err
		}
		if v, err = e.judge(w, m, clock()); err != nil {
			return err
		}
		for _, p := range w.Pools {
			pools[p.Name] = true
		}
		return nil
	}
	if err = e.cfg.Store.View(ctx, judge); err != nil {
		return next, err
	}
	if v.writes() {
		err = e.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			if err := judge(tx); err != nil {
				return err
			}
			return v.store(tx)
		})
		if err != nil {
			return next, err
		}
	}
	for _, r := range v.rows {
		live[r.ID] = true
	}
	e.conclude(v, m)
	e.forget(live, pools, time.Now())
	e.homes.Forget(live)
	for _, fx := range v.effects {
		e.launch(ctx, fx)
	}
	for _, id := range v.gone {
		e.cfg.Gone(id)
	}
	for _, s := range v.says {
		e.tell(s.machine, s.text)
	}
	e.askAll(v.asks, clock())
	return v.next, nil
}

// clock is the time as it comes back from the store.
func clock() time.Time { return time.Now().UTC().Round(0) }

// conclude keeps what a pass found for the watchers, and what it stored of agents' reports.
func (e *Engine) conclude(v *verdict, m memory) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, w := range e.watchers {
		if v.moving[name] && !e.moving[name] {
			w.look()
		}
	}
	e.moving = v.moving
	maps.Copy(e.elastic, v.elastics)
	maps.Copy(e.warned, v.told)
	if v.flushed == nil {
		return
	}
	e.flushAt, e.flushed = time.Time{}, time.Now()
	for id, l := range e.links {
		if was, ok := m.links[id]; ok && v.flushed[id] {
			l.stored, l.storedSeen = was.load, was.seen
			e.links[id] = l
		}
	}
}

func (r *row) changed() bool { return r.fresh || !reflect.DeepEqual(r.Machine, r.was) }

// store puts a verdict on record.
func (v *verdict) store(tx *store.Tx) error {
	for _, r := range v.rows {
		var err error
		switch {
		case r.fresh:
			_, err = tx.Machines().Insert(r.Machine)
		case r.changed():
			_, err = tx.Machines().Put(r.Machine)
		}
		if err != nil {
			return err
		}
	}
	for _, p := range v.scaled {
		if _, err := tx.Pools().Put(p); err != nil {
			return err
		}
	}
	for _, name := range v.deleted {
		if err := tx.Pools().Delete(name); err != nil {
			return err
		}
		if err := tx.DropScalings(name); err != nil {
			return err
		}
		if err := tx.DropRevisions(name, math.MaxInt32); err != nil {
			return err
		}
	}
	for _, enter := range v.scalings {
		if err := enter(tx); err != nil {
			return err
		}
	}
	for _, enter := range v.ledger {
		if err := enter(tx); err != nil {
			return err
		}
	}
	for _, e := range v.events {
		tx.Event(e)
	}
	return nil
}

// set changes a row, and adds what follows from the change: events, the bill, who is told. A sentence
// is for changes of health and cordons, which say nothing by themselves.
func (j *judging) set(r *row, m shoal.Machine, sentence string) {
	was := r.Machine
	r.Machine = m
	p, _ := j.Pool(m.Pool)
	j.follow(was, m, p.Price, sentence)
}

// follow adds what follows from the change of a machine.
func (v *verdict) follow(was, m shoal.Machine, price shoal.Price, sentence string) {
	id := string(m.ID)
	if !m.Stopped.IsZero() && was.Stopped.IsZero() {
		v.ledger = append(v.ledger, func(tx *store.Tx) error { return tx.CloseInterval(shoal.ObjectMachine, id, m.Stopped) })
	}
	if !m.Started.IsZero() && !m.Started.Equal(was.Started) {
		v.ledger = append(v.ledger, func(tx *store.Tx) error {
			return tx.OpenInterval(store.Interval{Kind: shoal.ObjectMachine, ID: id, Pool: m.Pool, Machine: m.ID, Start: m.Started, Price: price})
		})
	}
	switch {
	case sentence != "":
		v.tell(m, changeCode(was, m), "%s", sentence)
	case m.Outdated != "" && was.Outdated == "":
		v.tell(m, "machineOutdated", "machine %s of pool %s is outdated: %s", m.ID, m.Pool, m.Outdated)
	}
	if m.State == was.State {
		return
	}
	what := fmt.Sprintf("machine %s of pool %s", m.ID, m.Pool)
	switch m.State {
	case shoal.MachineBooting:
		v.tell(m, "machineBooting", "%s is booting", what)
	case shoal.MachineReady:
		v.tell(m, "machineReady", "%s is ready, %s after its provider accepted it", what, m.ReadyAt.Sub(m.Started).Round(10*time.Millisecond))
	case shoal.MachineStopping:
		v.tell(m, "machineStopping", "%s ends%s", what, because(m.Reason))
	case shoal.MachineStopped:
		v.tell(m, "machineStopped", "%s is stopped%s", what, because(m.Reason))
	case shoal.MachineFailed:
		v.tell(m, "machineFailed", "%s failed%s", what, because(m.Reason))
		v.gone = append(v.gone, m.ID)
	case shoal.MachineGone:
		v.tell(m, "machineGone", "%s is gone%s", what, because(m.Reason))
		v.gone = append(v.gone, m.ID)
	}
}

func changeCode(was, m shoal.Machine) string {
	switch {
	case m.Health == shoal.HealthDown && was.Health != shoal.HealthDown:
		return "machineDown"
	case was.Health == shoal.HealthDown && m.Health == shoal.HealthUp:
		return "machineUp"
	case len(m.Cordons) > len(was.Cordons):
		return "machineCordoned"
	case len(m.Cordons) < len(was.Cordons):
		return "machineUncordoned"
	}
	return "machineChanged"
}

func (v *verdict) tell(m shoal.Machine, code, format string, args ...any) {
	v.events = append(v.events, shoal.Event{Kind: shoal.ObjectMachine, Name: string(m.ID), Pool: m.Pool, Code: code, Sentence: fmt.Sprintf(format, args...)})
}
