package app

import (
	"context"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/gateway"
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
