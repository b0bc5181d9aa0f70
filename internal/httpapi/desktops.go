package httpapi

import (
	"context"
	"net/http"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
)

// Desktops know who may come to a desktop.
type Desktops interface {
	Ticket(ctx context.Context, by access.Subject, req api.DesktopRequest, source string) (api.DesktopTicket, error)
	Check(ctx context.Context, machine shoal.MachineID, user shoal.UserName, password string) error
}

func (a *API) desktopTable() []endpoint {
	return []endpoint{
		{"POST", "/desktops", may(access.Open, access.ObjectDesktop), "", "Get the way to a desktop: for some minutes the client's address may start a machine, with a password that is good once", take(http.StatusCreated, (*API).desktop)},
	}
}

func noDesktops() error {
	return shoal.Errorf(shoal.KindNotFound, "this server gives no desktops")
}

func (a *API) desktop(c *call, req api.DesktopRequest) (api.DesktopTicket, error) {
	if err := access.Check(c.by, access.Open, access.Object{Kind: access.ObjectDesktop, Owner: c.by.User}); err != nil {
		return api.DesktopTicket{}, err
	}
	if a.cfg.Desktops == nil {
		return api.DesktopTicket{}, noDesktops()
	}
	c.w.Header().Set("Cache-Control", "no-store")
	return a.cfg.Desktops.Ticket(c.ctx, c.by, req, source(c.req))
}

// agentPassword answers a machine before it opens a desktop.
func (a *API) agentPassword(w http.ResponseWriter, r *http.Request) error {
	c, err := a.agent(r)
	if err != nil {
		return err
	}
	body, err := a.readJSON(w, r)
	if err != nil {
		return err
	}
	check, err := lenient[api.PasswordCheck](body)
	if err != nil {
		return err
	}
	if a.cfg.Desktops == nil {
		return noDesktops()
	}
	if err := a.cfg.Desktops.Check(r.Context(), c.Machine, check.User, check.Password); err != nil {
		return err
	}
	return (&call{w: w}).answer(http.StatusOK, struct{}{})
}
