package app

import (
	"context"
	"net/http"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/web"
)

// makePages makes the pages for browsers.
func (a *App) makePages() (err error) {
	a.pages, err = web.New(web.Config{Store: a.store, People: a.people, Broker: confiding{a.logins, a.secrets}, Apps: a.apps, Log: a.log,
		URL: a.webURL, SSH: a.sshAddress,
		Tokens:   func(r *http.Request) (shoal.UserName, error) { return a.api.TokenUser(r) },
		SignedIn: a.desk.SignedIn,
		Reached:  a.endpoints.Address,
		Desktop: func(ctx context.Context, user shoal.UserName, req api.DesktopRequest, source string) (api.DesktopTicket, error) {
			return a.desk.Ticket(ctx, access.Subject{User: user, Role: shoal.RoleMember}, req, source)
		}})
	return err
}
