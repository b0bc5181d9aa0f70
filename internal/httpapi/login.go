package httpapi

import (
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/identity"
)

// tokenLife is how long a login lasts.
const tokenLife = 30 * 24 * time.Hour

func (a *API) login(c *call, req api.LoginRequest) (api.LoginResponse, error) {
	var resp api.LoginResponse
	from := source(c.Req)
	if c.By.Machine != "" {
		from = "machine " + string(c.By.Machine)
	}
	if wait := a.guesses.Wait(from, time.Now()); wait > 0 {
		return resp, identity.TooMany(wait)
	}
	err := a.prove(c, req, from, &resp)
	if shoal.KindOf(err) == shoal.KindUnauthenticated {
		a.guesses.Wrong(from, time.Now())
	}
	if err != nil || resp.Challenge != "" {
		return resp, err
	}
	resp.Token, resp.Expires, err = a.cfg.People.IssueToken(c.Ctx, req.User, tokenLife)
	return resp, err
}

// prove returns nil if the caller has proved to be the user, or has been given a challenge to do so.
func (a *API) prove(c *call, req api.LoginRequest, from string, resp *api.LoginResponse) error {
	switch {
	case req.User == "":
		return shoal.Errorf(shoal.KindInvalid, "cannot sign in: the request names no user")
	case req.Password != "" && (req.Key != "" || req.Signature != ""):
		return shoal.Errorf(shoal.KindInvalid, "cannot sign in with a password and a key at once")
	case req.Password != "":
		return a.cfg.People.CheckPassword(c.Ctx, req.User, req.Password, from)
	case req.Signature != "":
		return a.cfg.People.VerifySignature(c.Ctx, req.User, req.Challenge, req.Signature)
	case req.Key != "":
		// Whether it is a key of hers is not told before she has signed.
		resp.Challenge = a.cfg.People.Challenge(c.Ctx, req.User)
		return nil
	}
	return shoal.Errorf(shoal.KindInvalid, "cannot sign in without a password or a key").
		WithHint("send a password, or the public key of one to be challenged")
}
