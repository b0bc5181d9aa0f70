package engine

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/fleet"
	"github.com/shoal-pool/shoal/provider"
)

// watcher keeps the view of one provider fresh.
type watcher struct {
	name string
	p    provider.Provider
	kick chan struct{} // observe now; capacity 1
	turn chan struct{} // holds a token while the provider is observed
}

func newWatcher(name string, p provider.Provider) *watcher {
	return &watcher{name: name, p: p, kick: make(chan struct{}, 1), turn: make(chan struct{}, 1)}
}

func (w *watcher) look() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// The rhythm of observing.
const (
	observeTime  = 30 * time.Second // for one Observe
	observeGap   = 20 * time.Millisecond
	observeFirst = 100 * time.Millisecond // while machines are on their way, longer and longer
	observeLast  = 5 * time.Second
	observeIdle  = time.Minute
	observeWorst = 30 * time.Second // between tries that fail
)

// watch observes a provider: when kicked, often while machines are on their way,
// and seldom otherwise.
func (e *Engine) watch(ctx context.Context, w *watcher) {
	wait := observeFirst
	var changed <-chan struct{} // nil never yields
	if n, ok := w.p.(provider.Notifier); ok {
		changed = n.Changed()
	}
	for {
		began := time.Now()
		news := e.observe(ctx, w)
		pause := max(observeGap, time.Since(began))
		wait = wait * 3 / 2
		if news {
			wait = observeFirst
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		select {
		case <-ctx.Done():
			return
		case <-w.kick:
			wait = observeFirst
		case <-changed:
		case <-time.After(e.patience(w, &wait)):
		}
	}
}

// patience is how long a provider need not be observed.
func (e *Engine) patience(w *watcher, wait *time.Duration) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.sights[w.name]
	switch {
	case s.failures > 0:
		return min(time.Second<<min(s.failures-1, 5), observeWorst)
	case !e.moving[w.name]:
		*wait = observeFirst
		return observeIdle
	}
	*wait = min(*wait, observeLast)
	return *wait
}

var errSilent = errors.New("it does not answer")

// observe asks a provider for its machines and keeps the answer; true if it is other than the last.
// A call that hangs is given up after a time, and no other is made until it has come back.
func (e *Engine) observe(ctx context.Context, w *watcher) bool {
	select {
	case w.turn <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	type answer struct {
		o   provider.Observation
		err error
	}
	began := time.Now()
	short, cancel := context.WithTimeout(ctx, observeTime)
	answers := make(chan answer, 1)
	go func() {
		defer cancel()
		o, err := w.p.Observe(short)
		<-w.turn
		answers <- answer{o, err}
	}()
	limit := time.NewTimer(observeTime + time.Second)
	defer limit.Stop()
	select {
	case a := <-answers:
		if ctx.Err() != nil {
			return false
		}
		return e.sighted(ctx, w.name, began, a.o, a.err)
	case <-limit.C:
		return e.sighted(ctx, w.name, began, provider.Observation{}, errSilent)
	case <-ctx.Done():
		return false
	}
}

// sighted keeps what a provider showed and wakes the engine if that may matter.
func (e *Engine) sighted(ctx context.Context, name string, began time.Time, o provider.Observation, err error) bool {
	now := time.Now()
	e.mu.Lock()
	old := e.sights[name]
	s := sight{seen: old.seen, tried: now}
	if err != nil {
		s.err, s.failing, s.failures = err.Error(), old.failing, old.failures+1
		if s.failing.IsZero() {
			s.failing = now
		}
	} else {
		s.seen = &fleet.Seen{Began: began, Complete: o.Complete, Machines: map[shoal.MachineID]provider.Observed{}}
		for _, m := range o.Machines {
			s.seen.Machines[m.ID] = m
		}
	}
	e.sights[name] = s
	news := (err == nil) != (old.failures == 0) || old.tried.IsZero()
	late := false
	if err == nil && old.seen != nil {
		news = news || old.seen.Complete != s.seen.Complete || !maps.Equal(old.seen.Machines, s.seen.Machines)
		late = !e.landed.Before(old.seen.Began) // the last one may have been too old to say anything
	}
	e.mu.Unlock()
	if err != nil && (old.err != s.err || old.failures == 0) {
		e.cfg.Log.Log(ctx, slog.LevelWarn, "engine: a provider cannot be observed; what it has is unknown, and nothing is concluded from it", "provider", name, "err", err)
	}
	if err == nil && old.failures > 0 {
		e.cfg.Log.Info("engine: a provider can be observed again", "provider", name)
	}
	if news || late {
		e.Wake()
	}
	return news
}
