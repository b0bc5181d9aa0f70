package app

import (
	"context"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/secrets"
	"github.com/shoal-pool/shoal/internal/store"
)

// environTime is how long a login waits for the secrets of its pool.
const environTime = 5 * time.Second

// environ is what logins find: the secrets that their pool gives them, and where machines keep these as files.
func (a *App) environ(ctx context.Context, user shoal.UserName, pool shoal.PoolName) (e gateway.Environ) {
	ctx, cancel := context.WithTimeout(ctx, environTime)
	defer cancel()
	got, err := a.secrets.ForLogin(ctx, pool, user)
	if err != nil {
		a.log.Error("a login has no secrets", "user", user, "pool", pool, "err", err)
		e.Notes = []string{"shoal: the secrets of pool " + string(pool) + " cannot be had now: " + err.Error()}
		return e
	}
	e.Vars = map[string]string{}
	for variable, value := range got.Values {
		e.Vars[variable+"_FILE"] = api.SessionSecretFile(user, variable)
		if !strings.Contains(string(value), "\x00") { // no variable can hold one
			e.Vars[variable] = string(value)
		}
	}
	for _, why := range got.Missing {
		e.Notes = append(e.Notes, "shoal: "+why)
	}
	return e
}

// confiding says of sessions which secrets they lack, too.
type confiding struct {
	frugalLogins
	secrets *secrets.Keeper
}

// WhySession adds the secrets that the session's pool names and its user has not.
func (c confiding) WhySession(ctx context.Context, id shoal.SessionID) (api.Why, error) {
	why, err := c.frugalLogins.WhySession(ctx, id)
	if err != nil {
		return why, err
	}
	var s shoal.Session
	err = c.store.View(ctx, func(tx *store.Tx) (err error) {
		s, err = tx.Sessions().Get(id)
		return err
	})
	if err != nil || !s.Live() {
		return why, err
	}
	all, err := c.secrets.Missing(ctx, s.Pool, s.User)
	for _, m := range all {
		why.Reasons = append(why.Reasons, shoal.Reason{Code: "secret", Sentence: m})
	}
	return why, err
}
