package remote

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/route"
)

const (
	// patience is how long a login waits for a control plane that is away. Another server takes over in less.
	patience = 30 * time.Second
	// passwordTime bounds the look at a password, for which others may wait; environTime that for a login's secrets.
	passwordTime = 30 * time.Second
	environTime  = 7 * time.Second
	// givenUp is how long after a login that was given up the control plane is told that there is no connection, should it
	// have thought so.
	givenUp = 5 * time.Second
)

// part is a connection that somebody has, or a login under way, which has no route yet.
type part struct {
	id     string // of the front end
	name   string // on record; no other login has the same
	route  api.GatewayRoute
	source string
	since  time.Time
}

// session is one of which there are parts.
type session struct {
	parts int
	done  chan struct{} // closed when it ends
	over  bool
}

// everything is all that is there, for a report. What was to be reported is in it. The caller holds mu.
func (g *Gateway) everything() api.GatewayReport {
	r := api.GatewayReport{All: true, Used: g.news.Used}
	g.news = api.GatewayReport{}
	for _, p := range g.parts {
		r.Parts = append(r.Parts, api.GatewayPart{Part: p.name, Session: p.route.Session, Machine: p.route.Machine, Source: p.source, Since: p.since})
	}
	return r
}

// tell has something reported. The caller holds mu.
func (g *Gateway) tell() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// Login asks the control plane where a login goes. While that is away it is led to the session that its user has.
func (g *Gateway) Login(ctx context.Context, req route.Request, id string, progress func(string)) (route.Target, error) {
	var late <-chan time.Time
	for {
		g.mu.Lock()
		state, changed, barred := g.state, g.changed, g.barred
		var p *part
		why := ""
		switch {
		case barred != nil:
		case state == up:
			p = g.enroll(req, id)
		case state == away:
			var to api.GatewayRoute
			if to, why = g.known(req); why == "" {
				p = g.enroll(req, id)
				p.route = to
				t := g.target(to)
				g.mu.Unlock()
				g.log.Info("a login goes to the session that is known", "user", req.User, "session", to.Session, "machine", to.Machine)
				return t, nil
			}
		}
		g.mu.Unlock()
		if barred != nil {
			return route.Target{}, refusal("gateway", "%v; ask an administrator for another", barred)
		}
		if p != nil {
			t, err := g.ask(ctx, req, p, progress)
			if err == nil || !isAway(err) && shoal.KindOf(err) != shoal.KindUnauthenticated {
				return t, err
			}
			g.doubt() // the stream finds out how things are
		}
		if late == nil {
			late = time.After(patience)
		}
		if why != "" {
			progress("the control plane does not answer; waiting for it")
		}
		select {
		case <-changed:
		case <-late:
			return route.Target{}, refusal("away", "the control plane does not answer, and without it %s; try again in a while", or(why, "nobody new is let in"))
		case <-ctx.Done():
			return route.Target{}, shoal.Errorf(shoal.KindCancelled, "cannot log in: the client went away: %w", context.Cause(ctx))
		}
	}
}

func or(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

func refusal(code, format string, args ...any) error {
	return &route.Refusal{Reason: shoal.Reason{Code: code, Sentence: fmt.Sprintf(format, args...)}}
}

// enroll notes a login. The caller holds mu.
func (g *Gateway) enroll(req route.Request, id string) *part {
	g.counts++
	p := &part{id: id, name: fmt.Sprintf("%s.%d", id, g.counts), source: req.Source, since: time.Now()}
	g.parts[id] = p
	return p
}

// target is where a login goes. The caller holds mu.
func (g *Gateway) target(to api.GatewayRoute) route.Target {
	s := g.sessions[to.Session]
	if s == nil || s.over {
		s = &session{done: make(chan struct{})}
		g.sessions[to.Session] = s
	}
	s.parts++
	return route.Target{Session: to.Session, User: to.User, Pool: to.Pool, Machine: to.Machine, Address: to.Address,
		Principal: route.Principal(to.User, to.Pool), Done: s.done, Used: func() { g.used(to.Session) }}
}

// ask has the control plane decide about a login.
func (g *Gateway) ask(ctx context.Context, req route.Request, p *part, progress func(string)) (route.Target, error) {
	in := api.GatewayLogin{Part: p.name, User: req.User, Pool: req.Pool, New: req.New, Machine: req.Machine, Avoid: req.Avoid, Source: req.Source, Arrived: req.Arrived}
	var target route.Target
	r, err := g.control.request(ctx, http.MethodPost, "/login", in)
	if err == nil {
		err = lines(ctx, g.control, r, func(a api.GatewayAnswer) (bool, error) {
			switch {
			case a.Refused != nil:
				return true, &route.Refusal{Reason: *a.Refused}
			case a.Problem != nil:
				return true, problemError(*a.Problem)
			case a.Route != nil:
				g.mu.Lock()
				defer g.mu.Unlock()
				p.route = *a.Route
				target = g.target(*a.Route)
				return true, nil
			case a.Progress != "":
				progress(a.Progress)
			}
			return false, nil
		})
	}
	if err == nil {
		return target, nil
	}
	g.mu.Lock()
	if g.parts[p.id] == p {
		delete(g.parts, p.id)
	}
	g.mu.Unlock()
	if isAway(err) || ctx.Err() != nil {
		time.AfterFunc(givenUp, func() { g.closed(api.GatewayPart{Part: p.name}) })
	}
	return target, err
}

// known is the session to which a login can be led without the control plane, or why there is none. The caller holds mu.
func (g *Gateway) known(req route.Request) (to api.GatewayRoute, why string) {
	if err := g.fresh(); err != nil {
		return to, fmt.Sprintf("nobody new is let in: %v", err)
	}
	if _, may := g.mirror.Users[req.User]; !may {
		return to, "user " + string(req.User) + " may not log in"
	}
	if req.New {
		return to, "there is no new place"
	}
	var all []api.GatewayRoute
	for _, r := range g.mirror.Routes {
		if r.User == req.User && (req.Pool == "" || r.Pool == req.Pool) && (req.Machine == "" || r.Machine == req.Machine) && r.Machine != req.Avoid {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, func(a, b api.GatewayRoute) int { return strings.Compare(string(a.Session), string(b.Session)) })
	if at := slices.IndexFunc(all, func(r api.GatewayRoute) bool { p, _ := g.mirror.pool(r.Pool); return p.Default }); req.Pool == "" && at > 0 {
		all = all[at:]
	}
	if len(all) == 0 {
		return to, "only who has a session on a machine that runs is let in, and you have none"
	}
	return all[0], ""
}

// Closed tells that a part has gone.
func (g *Gateway) Closed(id shoal.SessionID, name string) {
	g.mu.Lock()
	p := g.parts[name]
	if p == nil || p.route.Session != id {
		g.mu.Unlock()
		return
	}
	delete(g.parts, name)
	if s := g.sessions[id]; s != nil {
		if s.parts--; s.parts == 0 {
			delete(g.sessions, id)
		}
	}
	g.mu.Unlock()
	g.closed(api.GatewayPart{Part: p.name, Session: id})
}

// closed reports it. While nobody listens that is not needed: all that is there is told then.
func (g *Gateway) closed(p api.GatewayPart) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != away {
		g.news.Closed = append(g.news.Closed, p)
		g.tell()
	}
}

// Suspect tells that a machine does not answer.
func (g *Gateway) Suspect(id shoal.MachineID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.state != away {
		g.news.Suspect = append(g.news.Suspect, id)
		g.tell()
	}
}

// used tells that much goes through a session's connections. It is told with the next report.
func (g *Gateway) used(id shoal.SessionID) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !slices.Contains(g.news.Used, id) {
		g.news.Used = append(g.news.Used, id)
	}
}

// CheckPassword has the control plane look at a password, which nobody else can.
func (g *Gateway) CheckPassword(ctx context.Context, name shoal.UserName, password, source string) error {
	return g.control.call(ctx, "/password", api.GatewayPassword{User: name, Password: password, Source: source}, &struct{}{}, passwordTime)
}

// Environ is what a login finds in a pool.
func (g *Gateway) Environ(ctx context.Context, user shoal.UserName, pool shoal.PoolName) gateway.Environ {
	g.mu.Lock()
	p, known := g.mirror.pool(pool)
	g.mu.Unlock()
	if known && !p.Secrets {
		return gateway.Environ{}
	}
	var e api.GatewayEnviron
	if err := g.control.call(ctx, "/environ", api.GatewayPlace{User: user, Pool: pool}, &e, environTime); err != nil {
		return gateway.Environ{Notes: []string{"shoal: the secrets of pool " + string(pool) + " cannot be had now: " + err.Error()}}
	}
	return gateway.Environ{Vars: e.Vars, Notes: e.Notes}
}
