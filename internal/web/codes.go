package web

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
)

// code is what a one-time code stands for.
type code struct {
	user       shoal.UserName
	client     string
	uri, state string
	cookie     string // the browser's; the code ends with it
}

// maxState is how long a client's state may be.
const maxState = 512

// authorize sends a browser back to a client with a code that says who she is, or first lets her sign in.
func (w *Web) authorize(rw http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	client, uri, state := q.Get("client"), q.Get("redirect_uri"), q.Get("state")
	// Until the address is known to be the client's nothing is sent there, no error either.
	if !slices.Contains(w.cfg.Clients[client], uri) {
		w.Message(rw, r, http.StatusBadRequest, "This sign-in cannot go on",
			"The page that sent you here is not one that Shoal knows.", "Go to the page you want and begin there. An administrator can set where the hub is.")
		return
	}
	if state == "" || len(state) > maxState {
		w.Message(rw, r, http.StatusBadRequest, "This sign-in cannot go on",
			"The page that sent you here gave no state, by which it would know its own request again.", "Go to the page you want and begin there.")
		return
	}
	u, secret, err := w.signedIn(r)
	switch {
	case isNobody(err):
		redirect(rw, http.StatusFound, loginPath(r.URL.RequestURI()))
		return
	case err != nil:
		w.unknown(rw, r, err)
		return
	}
	c, _ := w.codes.Put(string(u.Name), code{user: u.Name, client: client, uri: uri, state: state, cookie: secret})
	sep := "?"
	if strings.Contains(uri, "?") {
		sep = "&"
	}
	redirect(rw, http.StatusFound, uri+sep+url.Values{"code": {c}, "state": {state}}.Encode())
}

// Redeem says whom a code stands for, once, to the client it was made for.
func (w *Web) Redeem(ctx context.Context, by access.Subject, req api.RedeemRequest) (api.Redeemed, error) {
	if by.Service == "" {
		return api.Redeemed{}, shoal.Errorf(shoal.KindDenied, "only the hub may redeem sign-in codes, not %s", by)
	}
	denied := shoal.Errorf(shoal.KindDenied, "the code is not good, or not any more").
		WithHint("a code is good once, for a minute, with the redirect and the state it was asked for; begin again at /shoal/authorize")
	c, ok := w.codes.Take(req.Code)
	if !ok || c.client != by.Service || c.uri != req.RedirectURI || c.state != req.State {
		return api.Redeemed{}, denied
	}
	u, err := w.cfg.People.BrowserUser(ctx, c.cookie)
	switch {
	case isNobody(err) || err == nil && u.Name != c.user: // signed out meanwhile
		return api.Redeemed{}, denied
	case err != nil:
		return api.Redeemed{}, err
	}
	groups := u.Groups
	if groups == nil {
		groups = []shoal.GroupName{}
	}
	return api.Redeemed{User: u.Name, Groups: groups}, nil
}

// link is what a one-time link stands for.
type link struct {
	user  shoal.UserName
	means string // those she could sign in by when it was made
}

// Link makes an address at which the caller is signed in, once, in whatever browser she opens it.
func (w *Web) Link(ctx context.Context, by access.Subject) (api.WebLink, error) {
	switch {
	case by.User == "":
		return api.WebLink{}, shoal.Errorf(shoal.KindDenied, "cannot sign %s in in a browser: only users are", by).
			WithHint("sign in as one with `shoal login`, or add --as USER")
	case by.Browser:
		return api.WebLink{}, shoal.Errorf(shoal.KindDenied, "in a browser you are signed in already").WithHint("run `shoal web` for another browser")
	}
	means, err := w.cfg.People.Means(ctx, by.User)
	if err != nil {
		return api.WebLink{}, err
	}
	secret, expires := w.links.Put(string(by.User), link{by.User, means})
	path := "/shoal/link#" + string(by.User) + "." + secret
	answer := api.WebLink{Path: path, Expires: expires}
	if base := w.cfg.URL(); base != "" {
		answer.URL = strings.TrimRight(base, "/") + path
	}
	return answer, nil
}
