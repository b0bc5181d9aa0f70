package httpapi

import (
	"context"
	"net/http"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
)

// Web knows who is signed in in browsers.
type Web interface {
	// Subject says who asks with a cookie; an error where another site's page could have sent the request.
	Subject(r *http.Request) (access.Subject, error)
	StepUp(r *http.Request, req api.StepUpRequest) (api.StepUp, error)
	Confirm(ctx context.Context, by access.Subject, req api.ConfirmRequest) (api.Confirmation, error)
	Link(ctx context.Context, by access.Subject) (api.WebLink, error)
	Redeem(ctx context.Context, by access.Subject, req api.RedeemRequest) (api.Redeemed, error)
	// Forget tells that a user may sign in by something else now.
	Forget(name shoal.UserName)
}

// Browser is the face for browsers beside pages of Shoal's: who sends no token is whom her cookie signs in.
func (a *API) Browser() http.Handler {
	return a.face(func(r *http.Request) (access.Subject, error) {
		if r.Header.Get("Authorization") == "" && a.cfg.Web != nil {
			return a.cfg.Web.Subject(r)
		}
		return a.byToken(r)
	}, false)
}

func (a *API) webTable() []endpoint {
	return []endpoint{
		{"POST", "/web/link", rule{words: "users, but not from a browser"}, "", "Make an address at which a browser is signed in, once, within five minutes", rest.Read(a.webLink)},
		{"POST", "/web/redeem", rule{words: "the hub"}, "", "Say whom a code of /shoal/authorize stands for, once", rest.Take(http.StatusOK, a.redeem)},
		{"POST", "/web/step-up", rule{words: "whoever is signed in in a browser"}, "", "Get the token by which one request from a browser has the rights of one's role", rest.Take(http.StatusOK, a.stepUp)},
		{"POST", "/web/confirm", rule{words: "users, but neither from a browser nor through a machine"}, "", "Look at, or confirm, what a browser of one's own asks for", rest.Take(http.StatusOK, a.confirm)},
	}
}

// browsers is what signs them in.
func (a *API) browsers() (Web, error) {
	if a.cfg.Web == nil {
		return nil, shoal.Errorf(shoal.KindNotFound, "this server has no pages for browsers")
	}
	return a.cfg.Web, nil
}

func (a *API) webLink(c *call) (api.WebLink, error) {
	w, err := a.browsers()
	if err != nil {
		return api.WebLink{}, err
	}
	return w.Link(c.Ctx, c.By)
}

func (a *API) redeem(c *call, req api.RedeemRequest) (api.Redeemed, error) {
	w, err := a.browsers()
	if err != nil {
		return api.Redeemed{}, err
	}
	return w.Redeem(c.Ctx, c.By, req)
}

func (a *API) stepUp(c *call, req api.StepUpRequest) (api.StepUp, error) {
	w, err := a.browsers()
	if err != nil {
		return api.StepUp{}, err
	}
	if !c.By.Browser {
		return api.StepUp{}, shoal.Errorf(shoal.KindDenied, "only requests that come from a browser are confirmed").
			WithHint("with a bearer token send the request itself")
	}
	return w.StepUp(c.Req, req)
}

func (a *API) confirm(c *call, req api.ConfirmRequest) (api.Confirmation, error) {
	w, err := a.browsers()
	if err != nil {
		return api.Confirmation{}, err
	}
	return w.Confirm(c.Ctx, c.By, req)
}

// TokenUser says whose API token a request carries. KindUnauthenticated: nobody's.
func (a *API) TokenUser(r *http.Request) (shoal.UserName, error) {
	by, err := a.byToken(r)
	if err == nil && by.User == "" {
		err = shoal.Errorf(shoal.KindUnauthenticated, "the token is no user's")
	}
	return by.User, err
}
