package gatehub

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/route"
)

// link is the stream of one gateway.
type link struct {
	name   api.GatewayName
	at     string          // names the process
	ctx    context.Context // ends with the stream
	cancel context.CancelCauseFunc
	wake   chan struct{} // capacity 1: there is something to send

	// Guarded by Hub.mu:
	waiting []api.GatewayRecord
	watched map[shoal.SessionID]route.Watch
}

// queue has a record sent. The caller holds mu.
func (l *link) queue(r api.GatewayRecord) {
	l.waiting = append(l.waiting, r)
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// mostWaiting is how many records wait for a gateway that takes none, before its stream is ended.
const mostWaiting = 10_000

// recordsAtOnce is how many records are sent together: each time a gateway is waited for anew.
const recordsAtOnce = 16

// Stream sends a gateway what it is to know, with send on the caller's goroutine, until ctx ends, send fails, the gateway
// opens another stream, or is removed. It returns why it ended, never nil. At names the gateway's process: while one is heard of,
// another is KindConflict, for both would take each other's connections off the record.
func (h *Hub) Stream(ctx context.Context, name api.GatewayName, at string, send func(...api.GatewayRecord) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	l := &link{name: name, at: at, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1), watched: map[shoal.SessionID]route.Watch{}}
	h.mu.Lock()
	former := h.links[name]
	if former != nil && former.at != at && time.Since(h.heard[name]) < 2*api.GatewayReportEvery {
		h.mu.Unlock()
		return shoal.Errorf(shoal.KindConflict, "another process is gateway %s already", name).
			WithHint("each gateway needs a data directory of its own: `shoal gateway add` another one")
	}
	h.links[name], h.heard[name] = l, time.Now()
	h.mu.Unlock()
	if former != nil {
		former.cancel(shoal.Errorf(shoal.KindConflict, "gateway %s has opened another stream", name))
	}
	defer func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.links[name] == l {
			delete(h.links, name)
		}
	}()
	select {
	case h.wanted <- struct{}{}:
	default:
	}
	err := h.feed(ctx, l, send)
	if cause := context.Cause(ctx); cause != nil {
		if _, ours := errors.AsType[*shoal.Error](cause); ours {
			return cause
		}
		return shoal.Errorf(shoal.KindCancelled, "the stream ended: %w", cause)
	}
	return err
}

func (h *Hub) feed(ctx context.Context, l *link, send func(...api.GatewayRecord) error) error {
	beat := time.NewTimer(api.GatewayBeat)
	defer beat.Stop()
	var known *view
	for {
		h.mu.Lock()
		now, news := h.view, h.news
		var records []api.GatewayRecord
		if len(l.waiting) > mostWaiting {
			h.mu.Unlock()
			return shoal.Errorf(shoal.KindExhausted, "gateway %s does not take what it is sent", l.name)
		}
		if now != nil {
			records, l.waiting = l.waiting, nil
		}
		h.mu.Unlock()
		if now != nil && now != known {
			records = append(now.since(known), records...)
			known = now
		}
		if len(records) > 0 {
			for some := range slices.Chunk(records, recordsAtOnce) {
				if err := errors.Join(send(some...), ctx.Err()); err != nil {
					return err
				}
			}
			beat.Reset(api.GatewayBeat)
			continue
		}
		select {
		case <-news:
		case <-l.wake:
		case <-beat.C:
			if err := send(api.GatewayRecord{}); err != nil {
				return err
			}
			beat.Reset(api.GatewayBeat)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// watch has a gateway told of the end of a session of which it has parts.
func (h *Hub) watch(name api.GatewayName, id shoal.SessionID, w route.Watch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.links[name]
	if l == nil {
		return
	}
	_, known := l.watched[id]
	l.watched[id] = w
	if known || w.Done == nil {
		return
	}
	go func() {
		select {
		case <-w.Done:
		case <-l.ctx.Done():
			return
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(l.watched, id)
		l.queue(api.GatewayRecord{Ended: []shoal.SessionID{id}})
	}()
}
