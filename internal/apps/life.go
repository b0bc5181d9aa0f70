package apps

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
)

const (
	// mostMachines is on how many machines an app is tried to be started that die before it runs.
	mostMachines = 3
	// again is when what failed is tried again.
	again = time.Second
	// seatAgain is when an app that runs without a seat asks for one again.
	seatAgain = 30 * time.Second
)

// Run has apps get on until ctx ends. What runs on machines goes on.
func (a *Apps) Run(ctx context.Context) error {
	tries := retry.New(a.cfg.Log, "apps")
	var all []shoal.App
	for !tries.Do(ctx, "read the apps", func(ctx context.Context) error {
		return a.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
			all, err = tx.LiveApps()
			return err
		})
	}) {
		if err := retry.Sleep(ctx, again); err != nil {
			return err
		}
	}
	a.mu.Lock()
	a.ctx, a.began = ctx, time.Now()
	a.mu.Unlock()
	a.note(all...)
	for _, p := range all {
		a.attend(p.ID)
	}
	for retry.Sleep(ctx, tendEvery) == nil {
		tries.Do(ctx, "keep what is used and end what is not", a.tend)
	}
	a.mu.Lock()
	a.ctx = nil // nobody is attended from now on
	a.mu.Unlock()
	a.parts.Wait()
	return ctx.Err()
}

func (a *Apps) running() context.Context {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.ctx
}

// attend begins the goroutine of an app.
func (a *Apps) attend(id shoal.AppID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.ctx == nil || a.ctx.Err() != nil || a.lives[id] != nil {
		return // the next server does
	}
	all := a.ctx
	ctx, cancel := context.WithCancel(all)
	a.lives[id] = cancel
	a.parts.Go(func() {
		defer cancel()
		a.carry(all, ctx, id)
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.lives, id)
	})
}

// carry is the life of an app, from the wait for a seat to its end. all is the server's; ctx ends when nobody wants
// the seat any more.
func (a *Apps) carry(all, ctx context.Context, id shoal.AppID) {
	for machines := 1; ; {
		p, err := a.Get(all, id)
		switch {
		case all.Err() != nil || shoal.KindOf(err) == shoal.KindNotFound || err == nil && !p.Live():
			return
		case err != nil:
			_ = retry.Sleep(all, again)
			continue
		}
		target, err := a.seat(ctx, p)
		switch {
		case all.Err() != nil:
			return
		case err != nil:
			if a.unseated(all, ctx, p, err) {
				return
			}
			continue
		}
		if err := a.begin(all, id, target); err != nil {
			a.cfg.Broker.Closed(target.Session, string(id))
			if !errors.Is(err, errStays) {
				_ = retry.Sleep(all, again)
			}
			continue
		}
		if a.follow(all, id, target, machines < mostMachines) {
			return
		}
		machines++
	}
}

// seat takes a seat for an app: as a part of its user's session, on the machine it has if it has one.
func (a *Apps) seat(ctx context.Context, p shoal.App) (route.Target, error) {
	if p.Stopping && p.State == shoal.AppWaiting {
		return route.Target{}, context.Canceled
	}
	req := route.Request{User: p.User, Pool: p.Pool, Machine: p.Machine, Kind: p.Endpoint, Source: "web", Arrived: p.Created}
	told := p.Progress
	return a.cfg.Broker.Login(ctx, req, string(p.ID), func(sentence string) {
		if sentence == told || p.State != shoal.AppWaiting {
			return
		}
		told = sentence
		_ = a.update(ctx, func(c *change) error { // the next one will say it
			p, err := c.tx.Apps().Get(p.ID)
			if err != nil || p.State != shoal.AppWaiting {
				return err
			}
			p.Progress = sentence
			_, err = c.put(p)
			return err
		})
	})
}

// unseated is what becomes of an app without a seat. true: it is over.
func (a *Apps) unseated(all, ctx context.Context, p shoal.App, why error) bool {
	var refused *route.Refusal
	switch {
	case p.State == shoal.AppWaiting && (ctx.Err() != nil || p.Stopping):
		a.end(all, p.ID, shoal.AppEnded, "it was stopped before it had a machine")
		return true
	case p.State == shoal.AppWaiting && errors.As(why, &refused):
		a.end(all, p.ID, shoal.AppFailed, refused.Error())
		return true
	case p.State == shoal.AppWaiting:
		_ = retry.Sleep(all, again)
		return false
	}
	// It may well run on its machine.
	if dead, reason, _ := a.machineDead(all, p.Machine); dead {
		a.lost(all, p.ID, reason)
		return true
	}
	news, pause := a.news(), time.NewTimer(seatAgain)
	defer pause.Stop()
	select {
	case <-news:
		_ = retry.Sleep(all, again)
	case <-pause.C:
	case <-all.Done():
	}
	return false
}

// begin puts on record that an app has a seat, and has its machine know. errStays: it is over or about to be.
func (a *Apps) begin(ctx context.Context, id shoal.AppID, target route.Target) error {
	var o api.AppOrder
	send := false
	err := a.update(ctx, func(c *change) error {
		send = false
		p, err := c.tx.Apps().Get(id)
		if err != nil {
			return err
		}
		if !p.Live() || p.State == shoal.AppWaiting && p.Stopping {
			return errStays
		}
		p.Session = target.Session
		if p.State == shoal.AppWaiting {
			p.Machine, p.State, p.Since, p.Progress = target.Machine, shoal.AppStarting, time.Now().UTC().Round(0), "starting on machine "+string(target.Machine)
			send = true
		}
		if p.Machine != target.Machine {
			return fmt.Errorf("app %s is on machine %s, and its seat on %s", id, p.Machine, target.Machine)
		}
		if o, _, err = c.tx.AppOrder(id); err != nil {
			return err
		}
		_, err = c.put(p)
		return err
	})
	if err == nil && send {
		a.cfg.Send(target.Machine, api.Record{App: &o})
	}
	return err
}

// follow waits for the end of an app that has a seat, and gives that back. false: its machine died before it ran,
// and it waits for another.
func (a *Apps) follow(all context.Context, id shoal.AppID, target route.Target, another bool) bool {
	done := target.Done
	look := time.NewTicker(seatAgain) // once the session is over, nobody tells of the machine
	defer look.Stop()
	for {
		news := a.news()
		p, err := a.Get(all, id)
		switch {
		case err == nil && !p.Live():
			a.cfg.Broker.Closed(target.Session, string(id))
			return true
		case err != nil && all.Err() == nil:
			_ = retry.Sleep(all, again)
			continue
		}
		select {
		case <-all.Done():
			return true
		case <-news:
			continue
		case <-done:
			done = nil
		case <-look.C:
			if done != nil {
				continue
			}
		}
		dead, why, err := a.machineDead(all, target.Machine)
		switch {
		case err != nil: // it is looked again
		case !dead:
			_ = a.Stop(all, id, "its session was ended")
		case p.State == shoal.AppStarting && !p.Stopping && another && a.backInLine(all, id, why):
			return false
		default:
			a.lost(all, id, why)
		}
	}
}

// machineDead reports whether nothing runs on a machine any more, and why.
func (a *Apps) machineDead(ctx context.Context, id shoal.MachineID) (dead bool, why string, err error) {
	var m shoal.Machine
	err = a.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		m, err = tx.Machines().Get(id)
		return err
	})
	switch {
	case shoal.KindOf(err) == shoal.KindNotFound:
		return true, fmt.Sprintf("machine %s is gone", id), nil
	case err != nil:
		return false, "", err
	case m.State != shoal.MachineStopped && m.State != shoal.MachineFailed && m.State != shoal.MachineGone:
		return false, "", nil
	}
	return true, dying(m, string(m.State)), nil
}

// dying says what becomes of a machine, and why.
func dying(m shoal.Machine, state string) string {
	why := fmt.Sprintf("machine %s is %s", m.ID, state)
	if m.Reason != "" {
		why += ": " + m.Reason
	}
	return why
}

// backInLine has an app wait for another machine.
func (a *Apps) backInLine(ctx context.Context, id shoal.AppID, why string) bool {
	err := a.update(ctx, func(c *change) error {
		p, err := c.tx.Apps().Get(id)
		if err != nil {
			return err
		}
		if p.State != shoal.AppStarting || p.Stopping {
			return errStays
		}
		event(c.tx, p, "appMoved", "%s of %s looks for another machine: %s", p.Endpoint, p.User, why)
		p.State, p.Since, p.Machine, p.Session = shoal.AppWaiting, time.Now().UTC().Round(0), "", ""
		p.Progress = why + "; looking for another"
		_, err = c.put(p)
		return err
	})
	return err == nil
}

// elsewhere is what she can do whose machine died.
const elsewhere = "; open it again and it starts on another"

// lost ends an app whose machine is dead.
func (a *Apps) lost(ctx context.Context, id shoal.AppID, why string) {
	a.end(ctx, id, shoal.AppFailed, why+elsewhere)
}

// end ends an app, trying until the store takes it.
func (a *Apps) end(ctx context.Context, id shoal.AppID, state shoal.AppState, why string) {
	for {
		err := a.update(ctx, func(c *change) error {
			p, err := c.tx.Apps().Get(id)
			if err != nil || !p.Live() {
				return err
			}
			return finish(c, p, api.AppReport{State: state, Reason: why})
		})
		if err == nil || shoal.KindOf(err) == shoal.KindNotFound || ctx.Err() != nil {
			return
		}
		a.cfg.Log.Warn("apps: the end of an app cannot be stored; trying again", "app", id, "err", err)
		_ = retry.Sleep(ctx, again)
	}
}

// finish puts the end of an app on record. One that was to end has ended as it should, however it did.
func finish(c *change, p shoal.App, r api.AppReport) error {
	const lines = 4 << 10
	now := time.Now().UTC().Round(0)
	why := r.Reason
	p.State = r.State
	if p.Stopping {
		p.State, why, r.Log, r.ExitCode = shoal.AppEnded, p.Reason, "", 0
	}
	if n := len(r.Log) - lines; n > 0 {
		r.Log = r.Log[n:]
	}
	p.Since, p.Ended, p.Reason, p.Log, p.ExitCode = now, now, why, r.Log, r.ExitCode
	p.Progress, p.Address, p.Ill, p.Kernels, p.Terminals, p.Stopping, p.Ends = "", "", "", 0, 0, false, time.Time{}
	p, err := c.put(p)
	if err != nil {
		return err
	}
	if p.State == shoal.AppFailed {
		event(c.tx, p, "appFailed", "%s of %s failed: %s", p.Endpoint, p.User, why)
	} else {
		event(c.tx, p, "appEnded", "%s of %s ended: %s", p.Endpoint, p.User, why)
	}
	return c.tx.DropAppOrder(p.ID)
}

// Stop begins to end an app; why says it to people. Of one that has ended it does nothing.
func (a *Apps) Stop(ctx context.Context, id shoal.AppID, why string) error {
	var p shoal.App
	err := a.update(ctx, func(c *change) (err error) {
		if p, err = c.tx.Apps().Get(id); err != nil || !p.Live() || p.Stopping {
			return err
		}
		p.Stopping, p.Reason, p.Progress = true, why, "ending"
		p, err = c.put(p)
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot stop app %s: %w", id, err)
	}
	a.mu.Lock()
	cancel := a.lives[id]
	a.mu.Unlock()
	switch {
	case !p.Live():
	case p.Machine != "":
		a.cfg.Send(p.Machine, api.Record{StopApp: &api.StopApp{ID: id}})
	case cancel != nil:
		cancel()
	}
	return nil
}
