package gatehub

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
)

// Bounds on what a gateway says. Its own are below; whoever sends more is none of ours.
const (
	mostLogins = 10_000 // of one gateway at once
	mostParts  = 20_000
	maxWord    = 300 // of a name
	maxAge     = 10 * time.Minute
)

// words refuses names that are longer than any of ours.
func words(all ...string) error {
	for _, w := range all {
		if len(w) > maxWord || strings.ContainsAny(w, "/\x00\n") {
			return shoal.Errorf(shoal.KindInvalid, "cannot read the request: %q is no name", clip(w, 60))
		}
	}
	return nil
}

// source refuses an address that is none.
func source(s string) error {
	if len(s) > maxWord || strings.ContainsFunc(s, unicode.IsControl) {
		return shoal.Errorf(shoal.KindInvalid, "cannot read the request: %q is no address", clip(s, 60))
	}
	return nil
}

// Login finds a place for somebody who has proved to the gateway who she is, saying in sentences what is waited for. The last thing
// said is where, or why not. The end of ctx withdraws it.
func (h *Hub) Login(ctx context.Context, name api.GatewayName, req api.GatewayLogin, say func(api.GatewayAnswer) error) error {
	if err := errors.Join(words(req.Part, string(req.User), string(req.Pool), string(req.Machine), string(req.Avoid)), source(req.Source)); err != nil {
		return err
	}
	if req.Part == "" {
		return shoal.Errorf(shoal.KindInvalid, "cannot take a login without a name for its connection")
	}
	if !h.logins.Enter(name) {
		return shoal.Errorf(shoal.KindExhausted, "%d logins of gateway %s wait already", mostLogins, name)
	}
	defer h.logins.Leave(name)
	arrived := req.Arrived
	if now := time.Now(); arrived.Before(now.Add(-maxAge)) || arrived.After(now) {
		arrived = now
	}
	part := route.PartOf(string(name), req.Part)
	target, err := h.cfg.Router.Login(ctx, route.Request{User: req.User, Pool: req.Pool, New: req.New, Machine: req.Machine, Avoid: req.Avoid,
		Kind: "ssh", Source: req.Source, Arrived: arrived}, part, func(text string) {
		_ = say(api.GatewayAnswer{Progress: text}) // what does not go through ends ctx, too
	})
	if refused, ok := errors.AsType[*route.Refusal](err); ok {
		return say(api.GatewayAnswer{Refused: &refused.Reason})
	}
	if err != nil {
		return err
	}
	err = h.trusted(ctx, name, target.Machine)
	select {
	case <-target.Done:
		h.cfg.Router.Closed(target.Session, part)
		return say(api.GatewayAnswer{Refused: &shoal.Reason{Code: "ended", Sentence: "your session was ended"}})
	default:
	}
	if err == nil {
		err = say(api.GatewayAnswer{Route: &api.GatewayRoute{Session: target.Session, User: target.User, Pool: target.Pool, Machine: target.Machine, Address: target.Address}})
	}
	if err != nil {
		h.cfg.Router.Closed(target.Session, part)
		return err
	}
	// Not before: a gateway forgets what it hears of a session that it does not know yet, and may have opened another stream meanwhile.
	h.watch(name, target.Session, route.Watch{Done: target.Done, Used: target.Used})
	return nil
}

// trustTime is how long a login waits for its machine to trust a gateway. One that does not answer may do so all the same.
const trustTime = 3 * time.Second

// trusted waits until a machine knows the gateway's key.
func (h *Hub) trusted(ctx context.Context, name api.GatewayName, machine shoal.MachineID) error {
	var g api.Gateway
	err := h.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		g, err = tx.Gateways().Get(name)
		return err
	})
	if shoal.KindOf(err) == shoal.KindNotFound {
		err = unknown()
	}
	if err != nil {
		return err
	}
	short, cancel := context.WithTimeout(ctx, trustTime)
	defer cancel()
	_ = h.cfg.Trusted(short, machine, g.Rev)
	return ctx.Err()
}

// Report takes what has changed at a gateway.
func (h *Hub) Report(ctx context.Context, name api.GatewayName, r api.GatewayReport) error {
	if err := bounded(r); err != nil {
		return err
	}
	h.mu.Lock()
	h.heard[name] = time.Now()
	var used []func()
	if l := h.links[name]; l != nil {
		for _, id := range r.Used {
			if w, ok := l.watched[id]; ok && w.Used != nil {
				used = append(used, w.Used)
			}
		}
	}
	h.mu.Unlock()
	for _, f := range used {
		f()
	}
	if len(r.Suspect) > 0 {
		if err := h.suspect(ctx, name, r.Suspect); err != nil { // before its connections there are closed
			return err
		}
	}
	for _, p := range r.Closed {
		id := route.PartOf(string(name), p.Part)
		if p.Session != "" {
			h.cfg.Router.Closed(p.Session, id)
		} else if err := h.cfg.Sessions.ClosedPart(ctx, id); err != nil {
			return err
		}
	}
	if r.All {
		return h.all(ctx, name, r.Parts)
	}
	return nil
}

// suspect passes on which machines do not answer, of those where the gateway had somebody.
func (h *Hub) suspect(ctx context.Context, name api.GatewayName, machines []shoal.MachineID) error {
	for _, id := range machines {
		var there bool
		err := h.cfg.Store.View(ctx, func(tx *store.Tx) error {
			sessions, err := tx.LiveSessionsOn(id)
			there = slices.ContainsFunc(sessions, func(s shoal.Session) bool { return holds(name, s) })
			return err
		})
		if err != nil {
			return err
		}
		if there {
			h.cfg.Router.Suspect(id)
		}
	}
	return nil
}

// all takes all connections of a gateway, and tells it of those whose sessions are over.
func (h *Hub) all(ctx context.Context, name api.GatewayName, parts []api.GatewayPart) error {
	var held []route.Held
	var underWay []string
	for _, p := range parts {
		id := route.PartOf(string(name), p.Part)
		if p.Session == "" {
			underWay = append(underWay, id)
			continue
		}
		since := p.Since
		if now := time.Now(); since.After(now) || since.IsZero() {
			since = now
		}
		held = append(held, route.Held{Part: id, Session: p.Session, Machine: p.Machine, Source: p.Source, Since: since})
	}
	watches, err := h.cfg.Sessions.Hold(ctx, string(name), held, underWay)
	if err != nil {
		return err
	}
	var over []shoal.SessionID
	for _, p := range held {
		if w, live := watches[p.Session]; live {
			h.watch(name, p.Session, w)
		} else if !slices.Contains(over, p.Session) {
			over = append(over, p.Session)
		}
	}
	if len(over) > 0 {
		h.mu.Lock()
		defer h.mu.Unlock()
		if l := h.links[name]; l != nil {
			l.queue(api.GatewayRecord{Ended: over})
		}
	}
	return nil
}

func bounded(r api.GatewayReport) error {
	if max(len(r.Parts), len(r.Closed), len(r.Used), len(r.Suspect)) > mostParts {
		return shoal.Errorf(shoal.KindInvalid, "cannot take a report of so much: %d connections, %d of them closed", len(r.Parts), len(r.Closed))
	}
	for _, p := range slices.Concat(r.Parts, r.Closed) {
		if err := errors.Join(words(p.Part, string(p.Session), string(p.Machine)), source(p.Source)); err != nil {
			return err
		}
	}
	for _, id := range r.Suspect {
		if err := words(string(id)); err != nil {
			return err
		}
	}
	return nil
}

// Password reports whether a password is a user's. Guessers are slowed down as at our own door.
func (h *Hub) Password(ctx context.Context, p api.GatewayPassword) error {
	const longest = 4096
	if len(p.Password) > longest || words(string(p.User)) != nil || source(p.Source) != nil {
		return shoal.Errorf(shoal.KindUnauthenticated, "the password is not right")
	}
	return h.cfg.Password(ctx, p.User, p.Password, p.Source)
}

// Environ is what a login finds in a pool where the gateway has a connection of the user's.
func (h *Hub) Environ(ctx context.Context, name api.GatewayName, at api.GatewayPlace) (api.GatewayEnviron, error) {
	if err := words(string(at.User), string(at.Pool)); err != nil {
		return api.GatewayEnviron{}, err
	}
	there := false
	err := h.cfg.Store.View(ctx, func(tx *store.Tx) error {
		sessions, err := tx.LiveSessionsIn(at.Pool)
		there = slices.ContainsFunc(sessions, func(s shoal.Session) bool { return s.User == at.User && holds(name, s) })
		return err
	})
	if err == nil && !there {
		err = shoal.Errorf(shoal.KindDenied, "gateway %s has no connection of user %s in pool %s", name, at.User, at.Pool)
	}
	if err != nil {
		return api.GatewayEnviron{}, err
	}
	return h.cfg.Environ(ctx, at.User, at.Pool), nil
}
