package agent

import (
	"context"
	"log/slog"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/provider"
)

// SessionSecrets asks the control plane for the secrets that a user's sessions get here, like CheckPassword.
func SessionSecrets(ctx context.Context, join provider.Join, tokenFile string, user shoal.UserName) (got api.SessionSecrets, err error) {
	c, err := newControl(Config{Join: join, TokenFile: tokenFile, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return got, err
	}
	defer c.http.CloseIdleConnections()
	err = c.post(ctx, "/agent/v1/secrets", api.SessionSecretsRequest{User: user}, &got)
	return got, err
}
