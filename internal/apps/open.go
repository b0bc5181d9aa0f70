package apps

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/store"
)

const (
	// mostApps is how many apps a user may have at a time.
	mostApps = 32
	// stopTime is for how long a new app waits for the end of the one in whose place it comes. It is more than
	// the grace that apps have.
	stopTime = 20 * time.Second
)

// Open returns the app of a user, pool, endpoint and name, starting one if none lives. It does not wait until that runs.
func (a *Apps) Open(ctx context.Context, user shoal.UserName, pool shoal.PoolName, endpoint, name string) (shoal.App, error) {
	if p, ok := a.Find(ctx, user, pool, endpoint, name); ok {
		return p, nil
	}
	p, _, err := a.Ask(ctx, api.OpenApp{User: user, Pool: pool, Endpoint: endpoint, Name: name})
	return p, err
}

// Ask is Open with all that may be asked for. fresh: the app is new.
func (a *Apps) Ask(ctx context.Context, req api.OpenApp) (p shoal.App, fresh bool, err error) {
	if r := req.Ready; r != nil && r.Path != "" && !strings.HasPrefix(r.Path, "/") {
		whole := *r
		whole.Path = "/" + r.Path
		req.Ready = &whole
	}
	if err := check(req); err != nil {
		return p, false, err
	}
	if a.running() == nil {
		return p, false, shoal.Errorf(shoal.KindUnavailable, "cannot start an app: the server is starting or ending").WithHint("try again in a moment")
	}
	patience := time.NewTimer(stopTime)
	defer patience.Stop()
	for late := false; ; {
		news := a.news()
		var before shoal.App // one that is about to end
		err = a.update(ctx, func(c *change) error {
			p, before, fresh, err = a.find(c, req, late)
			return err
		})
		if err != nil {
			return p, false, fmt.Errorf("cannot open %s: %w", clip(req.Endpoint), err)
		}
		if before.ID == "" {
			break
		}
		select {
		case <-news:
		case <-patience.C:
			late = true
		case <-ctx.Done():
			return p, false, shoal.Errorf(shoal.KindCancelled, "cannot open %s: %w", req.Endpoint, context.Cause(ctx))
		}
	}
	if fresh {
		a.attend(p.ID)
	}
	return a.reached(p), fresh, nil
}

// clip keeps what comes from outside short.
func clip(s string) string {
	const most = 64
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// check refuses a request that is wrong whatever the pools are.
func check(req api.OpenApp) error {
	bad := func(hint, format string, args ...any) error {
		return shoal.Errorf(shoal.KindInvalid, "cannot open an app: "+format, args...).WithHint("%s", hint)
	}
	extra := req.Command != "" || len(req.Env) > 0 || req.Name != "" || req.BaseURL != "" || req.Ready != nil
	switch {
	case req.Endpoint == "":
		return bad("give the name of an http endpoint of the pool", "no endpoint is named")
	case req.User == "":
		return bad("sign in with `shoal login`, or add --as USER", "an app runs as a user, and none is named")
	case extra && req.Endpoint != shoal.EndpointJupyter:
		return bad("leave them out: the pool says what runs", "command, env, name, baseURL and ready are for the endpoint %s alone", shoal.EndpointJupyter)
	case !validName(req.Name):
		return bad("use letters and digits", "%q cannot be its name", clip(req.Name))
	case req.BaseURL != "" && !validBase(req.BaseURL):
		return bad("write a path such as /user/alice/", "%q cannot be its base", clip(req.BaseURL))
	}
	ready := req.Ready
	if ready != nil {
		whole := *ready
		spec.CompleteProbe(&whole)
		ready = &whole
	}
	if m := spec.CheckApp(req.Command, req.Env, ready); len(m) > 0 {
		e := shoal.Errorf(shoal.KindInvalid, "cannot open an app: %s", m[0].Msg)
		e.Mistakes = m
		return e
	}
	return nil
}

// validName reports whether a server can be called so by its user. It is shown to people and no part of a path.
func validName(s string) bool {
	const most = 128
	return len(s) <= most && utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r == '/' || !unicode.IsPrint(r) })
}

// validBase reports whether a path can be an app's base.
func validBase(s string) bool {
	const most = 512
	strange := strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune(`?#"'\<>`, r) })
	return len(s) <= most && strings.HasPrefix(s, "/") && strings.HasSuffix(s, "/") && !strings.Contains(s, "//") && !strings.Contains(s, "/../") && !strings.Contains(s, "/./") && !strange
}

// find returns the app that lives, one that is about to end and is waited for unless that took too long, or a new one.
func (a *Apps) find(c *change, req api.OpenApp, late bool) (p, before shoal.App, fresh bool, err error) {
	u, err := c.tx.Users().Get(req.User)
	if err == nil && u.Disabled {
		err = shoal.Errorf(shoal.KindDenied, "user %s is disabled", req.User)
	}
	if err != nil {
		return p, before, false, err
	}
	pool, e, err := choose(c.tx, req)
	if err != nil {
		return p, before, false, err
	}
	const all = 1000
	hers, _, err := c.tx.AppsPage(store.AppFilter{User: req.User}, "", all)
	if err != nil {
		return p, before, false, err
	}
	for _, x := range hers {
		if x.Pool != pool.Name || x.Endpoint != e.Name || x.Name != req.Name {
			continue
		}
		if !x.Stopping {
			return x, before, false, nil
		}
		before = x
	}
	if before.ID != "" && !late {
		return p, before, false, nil
	}
	switch {
	case e.Command == "" && req.Command == "":
		return p, before, false, shoal.Errorf(shoal.KindInvalid, "%s is started by JupyterHub", e.Name).WithHint("open %s/hub/spawn?pool=%s", a.cfg.URL(), pool.Name)
	case pool.Deleting:
		return p, before, false, shoal.Errorf(shoal.KindConflict, "pool %s is being deleted and takes nobody new", pool.Name)
	case len(hers) >= mostApps:
		return p, before, false, shoal.Errorf(shoal.KindExhausted, "user %s has %d apps, and the limit is %d", req.User, len(hers), mostApps).
			WithHint("`shoal app stop` ends those that are not needed")
	}
	p, err = insert(c, pool, e, req)
	return p, shoal.App{}, err == nil, err
}

// choose finds the pool and its endpoint.
func choose(tx *store.Tx, req api.OpenApp) (pool shoal.Pool, e shoal.Endpoint, err error) {
	if req.Pool != "" {
		if pool, err = tx.Pools().Get(req.Pool); err != nil {
			return pool, e, err
		}
		e, ok := pool.Endpoint(req.Endpoint)
		if !ok || e.Protocol != shoal.ProtocolHTTP {
			return pool, e, shoal.Errorf(shoal.KindNotFound, "pool %s has no http endpoint %q", pool.Name, clip(req.Endpoint)).
				WithHint("`shoal pool show %s` lists them", pool.Name)
		}
		return pool, e, nil
	}
	all, err := tx.Pools().List()
	if err != nil {
		return pool, e, err
	}
	var with []shoal.Pool
	for _, p := range all {
		if e, ok := p.Endpoint(req.Endpoint); !ok || e.Protocol != shoal.ProtocolHTTP || p.Deleting {
			continue
		}
		if p.Default {
			with = []shoal.Pool{p}
			break
		}
		with = append(with, p)
	}
	switch len(with) {
	case 0:
		return pool, e, shoal.Errorf(shoal.KindNotFound, "no pool has an http endpoint %q", clip(req.Endpoint))
	case 1:
		e, _ = with[0].Endpoint(req.Endpoint)
		return with[0], e, nil
	}
	return pool, e, shoal.Errorf(shoal.KindInvalid, "several pools have an endpoint %q", clip(req.Endpoint)).
		WithHint("name the pool: %s, for instance", with[0].Name)
}

// insert stores a new app with what its machine will be told.
func insert(c *change, pool shoal.Pool, e shoal.Endpoint, req api.OpenApp) (shoal.App, error) {
	now := time.Now().UTC().Round(0)
	base := req.BaseURL
	if base == "" {
		base = fmt.Sprintf("/shoal/app/%s/%s/", pool.Name, e.Name)
	}
	p := shoal.App{User: req.User, Pool: pool.Name, Endpoint: e.Name, Name: req.Name, State: shoal.AppWaiting, Since: now,
		Progress: "looking for a machine", BaseURL: base, StripPrefix: e.StripPrefix}
	o := api.AppOrder{User: req.User, Endpoint: e.Name, Command: req.Command, Env: map[string]string{}, BaseURL: base, Strip: e.StripPrefix}
	if o.Command == "" {
		o.Command = e.Command
	}
	maps.Copy(o.Env, e.Env)
	maps.Copy(o.Env, req.Env)
	o.Env["SHOAL_POOL"] = string(pool.Name)
	if e.Ready != nil {
		o.Ready = *e.Ready
	}
	if req.Ready != nil {
		o.Ready = *req.Ready
	}
	spec.CompleteProbe(&o.Ready)
	for {
		p.ID = shoal.NewAppID()
		stored, err := c.tx.Apps().Insert(p)
		if shoal.KindOf(err) == shoal.KindConflict {
			continue
		}
		if err != nil {
			return p, err
		}
		c.apps = append(c.apps, stored)
		o.ID = stored.ID
		return stored, c.tx.PutAppOrder(o)
	}
}
