package httpapi

import (
	"context"
	"fmt"
	"net/http"
	"reflect"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
	"github.com/shoal-pool/shoal/internal/store"
)

// Apps keeps users' web apps. It does not ask who asks.
type Apps interface {
	Ask(ctx context.Context, req api.OpenApp) (p shoal.App, fresh bool, err error)
	Get(ctx context.Context, id shoal.AppID) (shoal.App, error)
	List(ctx context.Context, f store.AppFilter, cursor string, limit int) ([]shoal.App, string, error)
	Wait(ctx context.Context, id shoal.AppID, rev shoal.Rev) (shoal.App, error)
	Stop(ctx context.Context, id shoal.AppID, why string) error
	Activity(ctx context.Context, id shoal.AppID, r api.AppActivity) (shoal.App, error)
	Why(ctx context.Context, id shoal.AppID) (api.Why, error)
}

func (a *API) appTable() []endpoint {
	return []endpoint{
		{"GET", "/apps", may(access.View, shoal.ObjectApp), "pool,user,state,ended,cursor,limit", "List the web apps that the caller may see, newest first", rest.Read(a.apps)},
		{"POST", "/apps", may(access.Open, shoal.ObjectApp), "", "Open a web app: 201 with a new one, 200 with the one of the same user, pool, endpoint and name that lives. Does not wait until it runs",
			rest.Action{In: reflect.TypeFor[api.OpenApp](), Out: reflect.TypeFor[shoal.App](), Status: http.StatusCreated, Serve: a.openApp}},
		{"GET", "/apps/{id}", may(access.View, shoal.ObjectApp), "", "Show a web app", rest.Read(a.app)},
		{"GET", "/apps/{id}/wait", may(access.View, shoal.ObjectApp), "rev", "Wait until a web app is newer than a rev, or has ended; answers after a while all the same", rest.Read(a.waitApp)},
		{"DELETE", "/apps/{id}", may(access.End, shoal.ObjectApp), "", "End a web app; begins it and does not wait", rest.Act(http.StatusAccepted, a.stopApp)},
		{"POST", "/apps/{id}/activity", may(access.TellUse, shoal.ObjectApp), "", "Tell when a web app was used last, and for what", rest.Take(http.StatusOK, a.appActivity)},
	}
}

func appObject(p shoal.App) access.Object {
	return access.Object{Kind: shoal.ObjectApp, Name: string(p.ID), Owner: p.User}
}

// byHub reports whether the hub's own token came with a request.
func (a *API) byHub(token string) bool { return a.cfg.HubToken != "" && equal(token, a.cfg.HubToken) }

// theApp returns an app that the caller may do something to.
func (a *API) theApp(c *call, do access.Action) (shoal.App, error) {
	return a.appNamed(c, do, shoal.AppID(c.Name("id")))
}

func (a *API) appNamed(c *call, do access.Action, id shoal.AppID) (shoal.App, error) {
	p, err := a.cfg.Apps.Get(c.Ctx, id)
	if shoal.KindOf(err) == shoal.KindNotFound {
		return p, access.Missing(access.Object{Kind: shoal.ObjectApp, Name: string(id)})
	}
	if err != nil {
		return p, err
	}
	return p, access.Check(c.By, do, appObject(p))
}

func (a *API) openApp(c *call) error {
	req, err := rest.Decode[api.OpenApp](c.Body)
	if err != nil {
		return err
	}
	if req.User == "" {
		req.User = c.By.User
	}
	if req.User != "" { // else it is refused as nobody's
		if err := access.Check(c.By, access.Open, access.Object{Kind: shoal.ObjectApp, Owner: req.User}); err != nil {
			return err
		}
	}
	p, fresh, err := a.cfg.Apps.Ask(c.Ctx, req)
	if err != nil {
		return err
	}
	p = a.placed(c, p)
	status := http.StatusOK
	if fresh {
		status = http.StatusCreated
	}
	c.W.Header().Set("Location", prefix+"/apps/"+string(p.ID))
	return c.Answer(status, p)
}

func (a *API) app(c *call) (shoal.App, error) {
	p, err := a.theApp(c, access.View)
	if err == nil {
		c.Tag(p.Rev)
	}
	return a.placed(c, p), err
}

// placed is an app with the address at which whoever asks finds it.
func (a *API) placed(c *call, p shoal.App) shoal.App {
	if c.By.Service == access.ServiceHub && a.cfg.AppAt != nil && p.Address != "" && p.Live() {
		p.Address = a.cfg.AppAt(c.Ctx, p)
	}
	return p
}

func (a *API) waitApp(c *call) (shoal.App, error) {
	p, err := a.theApp(c, access.View)
	if err != nil {
		return p, err
	}
	rev, err := c.Number("rev", 0)
	if err != nil {
		return p, err
	}
	p, err = a.cfg.Apps.Wait(c.Ctx, p.ID, shoal.Rev(rev))
	return a.placed(c, p), err
}

func (a *API) apps(c *call) (list api.List[shoal.App], err error) {
	f := store.AppFilter{User: shoal.UserName(c.Query("user")), Pool: shoal.PoolName(c.Query("pool")), State: shoal.AppState(c.Query("state"))}
	if f.Ended, err = c.Flag("ended", false); err != nil {
		return list, err
	}
	if !access.Everybody(c.By, shoal.ObjectApp) {
		if f.User != "" && f.User != c.By.User {
			return listed[shoal.App](nil, "", 0), nil
		}
		f.User = c.By.User
	}
	cursor, limit, err := c.Page()
	if err != nil {
		return list, err
	}
	all, next, err := a.cfg.Apps.List(c.Ctx, f, cursor, limit)
	for i := range all {
		all[i] = a.placed(c, all[i])
	}
	return listed(all, next, a.cfg.Store.Rev()), err
}

func (a *API) stopApp(c *call) error {
	p, err := a.theApp(c, access.End)
	if err != nil {
		return err
	}
	return a.cfg.Apps.Stop(c.Ctx, p.ID, fmt.Sprintf("%s stopped it", c.By))
}

func (a *API) appActivity(c *call, r api.AppActivity) (shoal.App, error) {
	p, err := a.theApp(c, access.TellUse)
	if err != nil {
		return p, err
	}
	return a.cfg.Apps.Activity(c.Ctx, p.ID, r)
}
