package agenthub

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/store"
)

const (
	// maxQueue is how many records wait for a slow agent before it gets a Snapshot instead.
	maxQueue = 1024
	// agentBeat is how often agents report when they have nothing to say.
	agentBeat = 2 * time.Minute
	// streamBeat is how often an empty record is sent, so that a connection that died without a word
	// is found out. It is seldom: the open stream itself says that the machine lives.
	streamBeat = 2 * time.Minute
	// defaultLease is long, so that a server that is restarted, or a network that fails for a while, ends nothing.
	defaultLease = 5 * time.Minute
)

// link is the stream of one machine.
type link struct {
	Caller
	pool   shoal.PoolName
	cancel context.CancelCauseFunc
	wake   chan struct{} // capacity 1: there is something to send

	// Guarded by Hub.mu:
	queue  []api.Record
	stale  bool    // a Snapshot must come first
	people *people // the accounts that were sent last
}

var (
	errNewer    = errors.New("the machine has opened another stream")
	errOutdated = errors.New("a snapshot is due")
)

// Stream sends a machine what it should be, with send on the caller's goroutine, until ctx ends, send
// fails, or the machine opens another stream. It returns why it ended, never nil. What is there together is sent
// together.
func (h *Hub) Stream(ctx context.Context, c Caller, send func(...api.Record) error) error {
	m, err := h.machine(ctx, c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l := &link{Caller: c, pool: m.Pool, cancel: cancel, wake: make(chan struct{}, 1)}
	if err := h.open(l); err != nil {
		return err
	}
	defer h.close(l)
	for {
		snapshot, err := h.snapshot(ctx, l)
		if err == nil {
			err = send(api.Record{Snapshot: snapshot})
		}
		if err == nil {
			err = h.feed(ctx, l, send)
		}
		if !errors.Is(err, errOutdated) {
			return h.why(ctx, err)
		}
	}
}

// why is the reason a stream ended.
func (h *Hub) why(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errNewer) {
		return shoal.Errorf(shoal.KindConflict, "the stream ended: %w", errNewer)
	} else if cause != nil {
		return shoal.Errorf(shoal.KindCancelled, "the stream ended: %w", cause)
	}
	return err
}

// open makes a stream the machine's only one. One of an older start does not end one of a newer.
func (h *Hub) open(l *link) error {
	h.presence.Lock()
	defer h.presence.Unlock()
	h.mu.Lock()
	old := h.links[l.Machine]
	if old != nil && old.Epoch > l.Epoch {
		h.mu.Unlock()
		return unknown()
	}
	h.links[l.Machine] = l
	if e := h.effects[l.Machine]; e.epoch != l.Epoch || e.pool != l.pool {
		h.effects[l.Machine] = effect{epoch: l.Epoch, pool: l.pool}
		h.trimEffects()
	}
	h.mu.Unlock()
	if old != nil {
		old.cancel(errNewer)
	}
	h.cfg.Engine.Connected(l.Machine, true)
	return nil
}

// close ends a stream's place, unless another has taken it.
func (h *Hub) close(l *link) {
	h.presence.Lock()
	defer h.presence.Unlock()
	h.mu.Lock()
	mine := h.links[l.Machine] == l
	if mine {
		delete(h.links, l.Machine)
	}
	l.queue = nil
	h.mu.Unlock()
	if mine {
		h.cfg.Engine.Connected(l.Machine, false)
	}
}

// maxEffects is how many machines without a stream are remembered. A forgotten one costs a moment of
// waiting once its agent is back.
const maxEffects = 4096

// trimEffects bounds the effects. The caller holds mu.
func (h *Hub) trimEffects() {
	for id := range h.effects {
		if len(h.effects) <= maxEffects+len(h.links) {
			return
		}
		if h.links[id] == nil {
			delete(h.effects, id)
		}
	}
}

// snapshot makes all that a machine should be. What is sent to it from now on comes after.
func (h *Hub) snapshot(ctx context.Context, l *link) (*api.Snapshot, error) {
	h.mu.Lock()
	l.queue, l.stale = nil, false // what was in it is stored, and read below
	h.mu.Unlock()
	m, err := h.machine(ctx, l.Caller)
	if err != nil {
		return nil, err
	}
	s := &api.Snapshot{Machine: m.ID, Pool: m.Pool, Resources: m.Resources, Heartbeat: shoal.Duration(min(agentBeat, h.cfg.Lease*2/5)), Beat: shoal.Duration(h.cfg.Beat), Lease: shoal.Duration(h.cfg.Lease),
		UserSlices: h.cfg.UserSlices(m.Provider)}
	err = h.cfg.Store.View(ctx, func(tx *store.Tx) error {
		p, err := tx.Pools().Get(m.Pool)
		if err != nil {
			return err
		}
		if s.Desktop, err = h.desktopOf(p); err != nil {
			return err
		}
		s.Setup, s.Probes = p.Setup, probesOf(p)
		s.IdleProbe, s.Notice = p.Scale.Idle.Probe, noticeOf(p, m.ID)
		s.Mounts, err = mountsOf(tx, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	if s.Tasks, err = h.cfg.Batch.Orders(ctx, m.ID); err != nil {
		return nil, err
	}
	if s.Tasks == nil {
		s.Tasks = []api.TaskOrder{}
	}
	if h.cfg.Apps != nil {
		s.Doors = h.cfg.Doors(m.Provider)
		if s.Apps, err = h.cfg.Apps.Orders(ctx, m.ID); err != nil {
			return nil, err
		}
	}
	if err := h.refresh(ctx); err != nil { // after the tasks: whose they are has an account in it
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.pools[m.Pool]
	if p == nil { // it came and went between the two looks
		return nil, shoal.Errorf(shoal.KindUnavailable, "pool %s has changed just now", m.Pool)
	}
	l.people = p
	s.Accounts = p.Accounts
	return s, nil
}

// noticeOf is what people read about the end of a machine when they log in.
func noticeOf(p shoal.Pool, id shoal.MachineID) string {
	if !p.Has(shoal.UseInteractive) {
		return ""
	}
	return fmt.Sprintf("Machine %s may sleep %s after the last of its users has left, unless something of theirs runs. "+
		"Terminals in which nothing runs end when they are not used for %s. To keep all of yours: shoal session keep-awake 8h",
		id, p.Scale.Idle.After, shoal.Duration(p.Scale.Idle.UnusedFor()))
}

// desktopOf is what a pool's machines do for its rdp endpoint.
func (h *Hub) desktopOf(p shoal.Pool) (*api.DesktopOrder, error) {
	for _, e := range p.Endpoints {
		if e.Protocol != shoal.ProtocolRDP || h.cfg.Desktop == nil {
			continue
		}
		cert, key, err := h.cfg.Desktop(p.Name)
		return &api.DesktopOrder{Port: e.Port, Certificate: cert, Key: key}, err
	}
	return nil, nil
}

// probesOf are the endpoints of a pool that its machines' agents ask. Those that are on record from before they were
// asked have no probe.
func probesOf(p shoal.Pool) (all []api.EndpointProbe) {
	for _, e := range p.Endpoints {
		if e.Protocol == shoal.ProtocolHTTP || e.Ready == nil {
			continue
		}
		all = append(all, api.EndpointProbe{Name: e.Name, Protocol: e.Protocol, Port: e.Port, Interval: e.Ready.Interval, Timeout: e.Ready.Timeout, Threshold: e.Ready.Threshold})
	}
	return all
}

// feed sends what comes after a Snapshot, until another one is due.
func (h *Hub) feed(ctx context.Context, l *link, send func(...api.Record) error) error {
	began := time.Now()
	beat, looked := time.NewTimer(h.nextBeat()), began
	defer beat.Stop()
	for {
		accounts, queue, err := h.take(l)
		if err != nil {
			return err
		}
		if accounts != nil {
			queue = append([]api.Record{{Accounts: accounts}}, queue...)
		}
		if len(queue) > 0 {
			if err := errors.Join(send(queue...), ctx.Err()); err != nil {
				return err
			}
			continue
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			return ctx.Err()
		case <-beat.C:
			if time.Since(began) > h.cfg.Lease && time.Since(h.Answered(l.Machine)) > h.cfg.Lease {
				return shoal.Errorf(shoal.KindUnavailable, "the stream ended: nothing was reported for %s", shoal.Duration(h.cfg.Lease)) // it hangs, or cannot reach us
			}
			if time.Since(looked) >= streamBeat/2 {
				if _, err := h.machine(ctx, l.Caller); shoal.KindOf(err) == shoal.KindUnauthenticated {
					return err // it is gone, and nobody told it
				}
				looked = time.Now()
			}
			if err := send(api.Record{}); err != nil {
				return err
			}
			beat.Reset(h.nextBeat())
		}
	}
}

// nextBeat is with jitter, so that the streams of a site do not speak all at once.
func (h *Hub) nextBeat() time.Duration {
	if h.cfg.Beat > 0 {
		return h.cfg.Beat/2 + rand.N(h.cfg.Beat/2)
	}
	beat := min(streamBeat, h.cfg.Lease*2/5)
	return beat/2 + rand.N(beat)
}

// take takes what is to be sent: accounts, if they are others than those sent last, come before
// orders to run something as one of them.
func (h *Hub) take(l *link) (*api.Accounts, []api.Record, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.stale {
		return nil, nil, errOutdated
	}
	queue := l.queue
	l.queue = nil
	now := h.pools[l.pool]
	if now == nil || now == l.people {
		return nil, queue, nil
	}
	l.people = now
	return &now.Accounts, queue, nil
}

// Send queues a record for a machine. False means that it will not be sent: the machine has no stream,
// or reads too slowly, and gets a Snapshot first when it has one again.
func (h *Hub) Send(id shoal.MachineID, r api.Record) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.links[id]
	if l == nil || l.stale {
		return false
	}
	// An order for somebody who was added a moment ago would come before her account.
	whose := shoal.UserName("")
	switch {
	case r.Run != nil:
		whose = r.Run.User
	case r.App != nil:
		whose = r.App.User
	}
	stranger := whose != "" && (h.pools[l.pool] == nil || !h.pools[l.pool].names[whose])
	if stranger || len(l.queue) >= maxQueue {
		l.queue, l.stale = nil, true
	} else {
		l.queue = append(l.queue, r)
	}
	wake(l.wake)
	return !l.stale
}
