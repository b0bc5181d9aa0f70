package apps

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
)

// Orders are all apps that should run on a machine.
func (a *Apps) Orders(ctx context.Context, machine shoal.MachineID) (all []api.AppOrder, err error) {
	err = a.cfg.Store.View(ctx, func(tx *store.Tx) error {
		all = nil
		apps, err := tx.LiveAppsOn(machine)
		if err != nil {
			return err
		}
		for _, p := range apps {
			if p.Stopping {
				continue // what is not listed ends
			}
			o, found, err := tx.AppOrder(p.ID)
			if err != nil {
				return err
			}
			if !found {
				o = api.AppOrder{ID: p.ID, User: p.User, Endpoint: p.Endpoint}
			}
			all = append(all, o)
		}
		return nil
	})
	return all, err
}

// Report takes what a machine's agent says of apps. What is told of an app that is not the machine's, or is over,
// counts for nothing; one that runs all the same is ended.
func (a *Apps) Report(ctx context.Context, machine shoal.MachineID, reports []api.AppReport) error {
	var strays []shoal.AppID
	err := a.update(ctx, func(c *change) error {
		strays = nil
		m, err := c.tx.Machines().Get(machine)
		if err != nil {
			return err
		}
		for _, r := range reports {
			p, err := c.tx.Apps().Get(r.ID)
			if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
				return err
			}
			if err != nil || p.Machine != machine || !p.Live() {
				if !r.State.Ended() {
					strays = append(strays, r.ID)
				}
				continue
			}
			if err := take(c, p, m, r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("cannot take what machine %s says of apps: %w", machine, err)
	}
	for _, id := range strays {
		a.cfg.Send(machine, api.Record{StopApp: &api.StopApp{ID: id}})
	}
	return nil
}

// take puts on record what is told of an app.
func take(c *change, p shoal.App, m shoal.Machine, r api.AppReport) error {
	if r.State != p.State && !p.State.CanMove(r.State) {
		return nil // older news than what is known
	}
	if r.State.Ended() {
		if m.State == shoal.MachineStopping || m.Wanted == shoal.WantStop || m.Wanted == shoal.WantDelete { // that is why it was ended
			r = api.AppReport{State: shoal.AppFailed, Reason: dying(m, "ending") + elsewhere}
		}
		return finish(c, p, r)
	}
	if !p.Stopping && r.Progress != "" {
		p.Progress = r.Progress
	}
	p.Ill = r.Ill
	came := r.State == shoal.AppRunning && p.State != shoal.AppRunning
	if came {
		host, _, err := net.SplitHostPort(m.Address)
		if err != nil {
			host = m.Address
		}
		now := time.Now().UTC().Round(0)
		p.State, p.Since, p.Started, p.Reason, p.Progress = shoal.AppRunning, now, now, "", ""
		p.Address = net.JoinHostPort(host, strconv.Itoa(r.Port))
	}
	if r.LastActivity.After(p.LastActivity.Add(activityStep)) {
		var err error
		if p, err = touch(c, p, r.LastActivity); err != nil {
			return err
		}
	}
	p, err := c.put(p)
	if err != nil || !came {
		return err
	}
	event(c.tx, p, "appStarted", "%s of %s runs on machine %s", p.Endpoint, p.User, p.Machine)
	return c.tx.DropAppOrder(p.ID) // it holds secrets, and the machine has it
}

const (
	// tendEvery is how often it is stored who has used what, and how often who has not is looked for.
	tendEvery = 30 * time.Second
	// countsFor is how long the number of kernels is believed after it was told: whoever tells may have gone.
	countsFor = 15 * time.Minute
	// activityStep is how much newer an activity is that is worth storing.
	activityStep = 20 * time.Second
)

// tend stores who has used what, and ends apps that nobody uses. Where no app lives it does nothing.
func (a *Apps) tend(ctx context.Context) error {
	a.mu.Lock()
	used, quiet := a.used, len(a.known) == 0
	a.used = map[shoal.AppID]time.Time{}
	maps.DeleteFunc(a.over, func(_ shoal.AppID, at time.Time) bool { return time.Since(at) > time.Minute })
	a.mu.Unlock()
	if quiet {
		return nil
	}
	err := a.cfg.Keep(ctx)
	if err == nil {
		err = a.keepUse(ctx, used)
	}
	if err != nil {
		for id, at := range used {
			a.Used(id, at)
		}
		return err
	}
	type idle struct {
		id  shoal.AppID
		why string
	}
	var over []idle
	var soon []shoal.App
	err = a.cfg.Store.View(ctx, func(tx *store.Tx) error {
		all, err := tx.LiveApps()
		if err != nil {
			return err
		}
		for _, p := range all {
			d, err := a.idleFor(tx, p)
			if err != nil {
				return err
			}
			switch {
			case d.over:
				over = append(over, idle{p.ID, fmt.Sprintf("nobody used it for %s", d.since)})
			case !d.ends.Equal(p.Ends):
				p.Ends = d.ends
				soon = append(soon, p)
			}
			a.warn(p, d)
		}
		return nil
	})
	if len(soon) > 0 && err == nil {
		err = a.mark(ctx, soon)
	}
	for _, i := range over {
		err = errors.Join(err, a.Stop(ctx, i.id, i.why))
	}
	return err
}

// keepUse stores who has used what.
func (a *Apps) keepUse(ctx context.Context, used map[shoal.AppID]time.Time) error {
	if len(used) == 0 {
		return nil
	}
	return a.update(ctx, func(c *change) error {
		for id, at := range used {
			p, err := c.tx.Apps().Get(id)
			if shoal.KindOf(err) == shoal.KindNotFound || err == nil && (!p.Live() || !at.After(p.LastActivity.Add(activityStep))) {
				continue
			}
			if err == nil {
				_, err = touch(c, p, at)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// idleness is whether an app is to end because nobody uses it.
type idleness struct {
	over  bool
	since shoal.Duration // for how long nobody has used it
	ends  time.Time      // when it ends though kernels or terminals keep it; zero: they keep it, or nothing does
	warn  time.Duration  // how long before that its user is told
}

// idleFor says whether nobody has used an app for so long that it is to end: as long as the pool lets a machine be idle. A
// notebook's kernel or terminal is somebody's use, whether or not she looks at it, unless the endpoint says for how long.
func (a *Apps) idleFor(tx *store.Tx, p shoal.App) (d idleness, err error) {
	if p.State != shoal.AppRunning || p.Stopping {
		return d, nil
	}
	pool, err := tx.Pools().Get(p.Pool)
	if err != nil {
		return d, err
	}
	limit := time.Duration(pool.Scale.Idle.After)
	last := p.Started
	if p.LastActivity.After(last) {
		last = p.LastActivity
	}
	d.since = shoal.Duration(time.Since(last).Truncate(time.Second))
	s, err := tx.Sessions().Get(p.Session)
	if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
		return d, err
	}
	kept := (p.Kernels > 0 || p.Terminals > 0) && a.counts(p.ID) ||
		slices.ContainsFunc(s.Pins, func(x shoal.Pin) bool { return x.Kind == "kernel" || x.Kind == "terminal" })
	if kept {
		e, _ := pool.Endpoint(p.Endpoint)
		if e.IdleEnd <= 0 {
			return d, nil
		}
		limit = max(limit, time.Duration(e.IdleEnd))
		d.ends, d.warn = last.Add(limit).UTC().Round(0), time.Duration(pool.Scale.Idle.Warn)
		if s.KeepUntil.After(d.ends) {
			d.ends = s.KeepUntil
		}
	}
	if limit <= 0 || time.Since(last) < limit || time.Now().Before(s.KeepUntil) {
		return d, nil
	}
	unsure, err := unknown(tx, p) // unknown is not idle
	d.over = !unsure && err == nil
	return d, err
}

// mark puts on record when apps end.
func (a *Apps) mark(ctx context.Context, soon []shoal.App) error {
	return a.update(ctx, func(c *change) error {
		for _, x := range soon {
			p, err := c.tx.Apps().Get(x.ID)
			if err != nil || !p.Live() || p.Ends.Equal(x.Ends) {
				continue // it has gone
			}
			p.Ends = x.Ends
			if _, err := c.put(p); err != nil {
				return err
			}
		}
		return nil
	})
}

// warn tells a user, once, that an app of hers ends although kernels or terminals live in it.
func (a *Apps) warn(p shoal.App, d idleness) {
	if d.over || d.ends.IsZero() || time.Until(d.ends) > d.warn {
		return
	}
	a.mu.Lock()
	told := a.warned[p.ID].Equal(d.ends)
	a.warned[p.ID] = d.ends
	a.mu.Unlock()
	if !told {
		a.cfg.Send(p.Machine, api.Record{Message: &api.Message{User: p.User, Text: fmt.Sprintf(
			"Shoal: nobody has used %s on machine %s for %s. It ends at %s with its kernels and terminals, unless it is used before.", p.Endpoint, p.Machine, d.since, d.ends.Format("15:04 MST"))}})
	}
}

// counts reports whether the kernels and terminals of an app were told lately. After a start they are waited for.
func (a *Apps) counts(id shoal.AppID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	last := a.began
	if at := a.counted[id]; at.After(last) {
		last = at
	}
	return time.Since(last) < countsFor
}
