package httpapi

import (
	"context"
	"net/http"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/agenthub"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
)

// Desktops know who may come to a desktop.
type Desktops interface {
	Ticket(ctx context.Context, by access.Subject, req api.DesktopRequest, source string) (api.DesktopTicket, error)
	Check(ctx context.Context, machine shoal.MachineID, user shoal.UserName, password string) error
}

func (a *API) desktopTable() []endpoint {
	return []endpoint{
		{"POST", "/desktops", may(access.Open, access.ObjectDesktop), "", "Get the way to a desktop: for some minutes the client's address may start a machine, with a password that is good once", rest.Take(http.StatusCreated, a.desktop)},
	}
}

func noDesktops() error {
	return shoal.Errorf(shoal.KindNotFound, "this server gives no desktops")
}

func (a *API) desktop(c *call, req api.DesktopRequest) (api.DesktopTicket, error) {
	if err := access.Check(c.By, access.Open, access.Object{Kind: access.ObjectDesktop, Owner: c.By.User}); err != nil {
		return api.DesktopTicket{}, err
	}
	if a.cfg.Desktops == nil {
		return api.DesktopTicket{}, noDesktops()
	}
	c.W.Header().Set("Cache-Control", "no-store")
	return a.cfg.Desktops.Ticket(c.Ctx, c.By, req, source(c.Req))
}

// agentPassword answers a machine before it opens a desktop.
func (a *API) agentPassword(ctx context.Context, c agenthub.Caller, check api.PasswordCheck) (none struct{}, err error) {
	if a.cfg.Desktops == nil {
		return none, noDesktops()
	}
	return none, a.cfg.Desktops.Check(ctx, c.Machine, check.User, check.Password)
}
