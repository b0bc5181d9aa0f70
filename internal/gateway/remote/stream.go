package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/retry"
)

const (
	firstPause = 100 * time.Millisecond
	lastPause  = 2 * time.Second
	barredTime = 15 * time.Second // between two attempts of one that is not known any more
)

// follow keeps the stream until ctx ends, trying one server after the other.
func (g *Gateway) follow(ctx context.Context) {
	tries := retry.New(g.log, "gateway")
	pause := firstPause
	for ctx.Err() == nil {
		base, at := g.control.base()
		begun := time.Now()
		err := g.stream(ctx)
		g.mu.Lock()
		if g.state != away {
			g.enter(away)
			if ctx.Err() == nil {
				g.log.Warn("the control plane is away; who is on a machine stays, and comes again", "server", base, "connections", len(g.parts), "for", g.cfg.OfflineFor)
			}
		}
		g.bar(err)
		barred := g.barred != nil
		g.mu.Unlock()
		tries.Done(ctx, "follow the control plane", err)
		g.control.next(at)
		switch {
		case barred:
			pause = barredTime
		case time.Since(begun) > silence:
			pause = firstPause
		default:
			pause = min(2*pause, lastPause)
		}
		_ = retry.Sleep(ctx, pause)
	}
}

// bar takes note of whether the control plane knows this gateway. The caller holds mu.
func (g *Gateway) bar(err error) {
	if shoal.KindOf(err) != shoal.KindUnauthenticated {
		return
	}
	if g.barred == nil {
		g.log.Error("the control plane does not know this gateway any more: it takes nobody new; who is there stays", "gateway", g.identity.Name, "err", err)
	}
	g.barred = fmt.Errorf("gateway %s is not admitted any more", g.identity.Name)
}

// stream follows the control plane until it is away.
func (g *Gateway) stream(ctx context.Context) error {
	req, err := g.control.request(ctx, http.MethodGet, "/stream", nil)
	if err != nil {
		return err
	}
	req.Header.Set(api.StreamHeader, g.at)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g.mu.Lock()
	g.stop = cancel
	g.mu.Unlock()
	fresh := newMirror()
	return lines(ctx, g.control, req, func(r api.GatewayRecord) (bool, error) {
		if fresh != nil {
			fresh.apply(r)
		} else {
			g.heard(r)
		}
		if fresh != nil && r.Whole {
			g.begin(fresh)
			fresh = nil
			go func() {
				if err := g.join(ctx); err != nil {
					cancel(err)
				}
			}()
		}
		return false, context.Cause(ctx)
	})
}

// begin puts a new mirror in the place of the former.
func (g *Gateway) begin(m *mirror) {
	m.AsOf = time.Now()
	g.mu.Lock()
	former := g.mirror
	g.mirror, g.unsaved, g.barred = m, true, nil
	g.enter(joining)
	retire := g.retire
	g.mu.Unlock()
	for name, was := range former.Users {
		if !same(was, m.Users[name]) {
			retire(name)
		}
	}
}

// same reports whether connections to machines that were made for a user are still right for her.
func same(a, b api.GatewayUser) bool {
	return a.Name == b.Name && a.UID == b.UID && a.Shell == b.Shell && slices.Equal(a.Groups, b.Groups) && slices.Equal(a.Keys, b.Keys)
}

// join tells the control plane of all connections; from then on logins are asked of it.
func (g *Gateway) join(ctx context.Context) error {
	g.mu.Lock()
	report := g.everything()
	g.mu.Unlock()
	if err := g.control.call(ctx, "/report", report, &struct{}{}, answerTime); err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	g.enter(up)
	g.log.Info("the control plane answers", "connections", len(report.Parts))
	return nil
}

// heard takes what the control plane says.
func (g *Gateway) heard(r api.GatewayRecord) {
	g.mu.Lock()
	changed := g.mirror.apply(r)
	g.mirror.AsOf = time.Now()
	g.unsaved = g.unsaved || len(r.Users)+len(r.NoUsers)+len(r.Pools)+len(r.Routes)+len(r.NoRoutes) > 0
	for _, id := range r.Ended {
		if s := g.sessions[id]; s != nil && !s.over {
			s.over = true
			close(s.done)
		}
	}
	retire, gone := g.retire, g.gone
	g.mu.Unlock()
	for _, name := range changed {
		retire(name)
	}
	for _, id := range r.Gone {
		gone(id)
	}
}

// gather is how long news are collected before they are reported together.
const gather = 50 * time.Millisecond

// report tells what changes, and now and then that the gateway is there, until ctx ends.
func (g *Gateway) report(ctx context.Context) {
	tries := retry.New(g.log, "gateway")
	for {
		beat := time.NewTimer(api.GatewayReportEvery)
		select {
		case <-g.wake:
			_ = retry.Sleep(ctx, gather)
		case <-beat.C:
		case <-ctx.Done():
		}
		beat.Stop()
		if ctx.Err() != nil {
			return
		}
		g.mu.Lock()
		news, listening := g.news, g.state == up
		if listening {
			g.news = api.GatewayReport{}
		}
		g.mu.Unlock()
		if !listening {
			continue
		}
		err := g.control.call(ctx, "/report", news, &struct{}{}, answerTime)
		if !tries.Done(ctx, "report its connections", err) {
			g.doubt()
		}
	}
}

// errDoubt ends a stream so that another begins with everything.
var errDoubt = errors.New("it may not have heard all that was said")

// doubt has the control plane told of all connections again: something that was said may not have come to it.
func (g *Gateway) doubt() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stop != nil {
		g.stop(errDoubt)
	}
}

// farewell tells the control plane at the end that nobody is here any more.
func (g *Gateway) farewell(ctx context.Context) {
	g.mu.Lock()
	report := g.everything()
	g.mu.Unlock()
	if err := g.control.call(ctx, "/report", report, &struct{}{}, 2*time.Second); err != nil {
		g.log.Info("the control plane is not told that this gateway ends", "err", err)
	}
}
