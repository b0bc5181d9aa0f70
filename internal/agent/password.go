package agent

import (
	"context"
	"log/slog"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/provider"
)

// CheckPassword asks the control plane whether a password is the user's, with the token that the agent of this start of
// the machine has got. It is called by another process than the agent: PAM's.
func CheckPassword(ctx context.Context, join provider.Join, tokenFile string, user shoal.UserName, password string) error {
	c, err := newControl(Config{Join: join, TokenFile: tokenFile, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer c.http.CloseIdleConnections()
	var answer struct{}
	return c.post(ctx, "/agent/v1/password", api.PasswordCheck{User: user, Password: password}, &answer)
}
