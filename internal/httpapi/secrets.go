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

// Secrets keeps values that nobody is to see but what uses them. It asks who asks.
type Secrets interface {
	Set(ctx context.Context, by access.Subject, name shoal.SecretName, req api.SetSecret) (shoal.Secret, error)
	List(ctx context.Context, by access.Subject) ([]shoal.Secret, error)
	Remove(ctx context.Context, by access.Subject, name shoal.SecretName) error
	Value(ctx context.Context, by access.Subject, name shoal.SecretName) ([]byte, error)
	OnMachine(ctx context.Context, machine shoal.MachineID, user shoal.UserName) (api.SessionSecrets, error)
}

func (a *API) secretTable() []endpoint {
	return []endpoint{
		{"GET", "/secrets", may(access.View, shoal.ObjectSecret), "", "List the secrets that the caller may use, without values", rest.Read(a.secrets)},
		{"PUT", "/secrets/{name}", may(access.Apply, shoal.ObjectSecret), "", "Keep a secret of the caller's, or give it another value", rest.Take(http.StatusOK, a.setSecret)},
		{"GET", "/secrets/{name}/value", may(access.Reveal, shoal.ObjectSecret), "", "Read a secret's value; each time is put on record", rest.Read(a.secretValue)},
		{"DELETE", "/secrets/{name}", may(access.Delete, shoal.ObjectSecret), "", "Remove a secret of the caller's", rest.Act(http.StatusNoContent, a.removeSecret)},
	}
}

func (a *API) secrets(c *call) (p api.List[shoal.Secret], err error) {
	p.Items, err = a.cfg.Secrets.List(c.Ctx, c.By)
	return p, err
}

func (a *API) setSecret(c *call, req api.SetSecret) (shoal.Secret, error) {
	return a.cfg.Secrets.Set(c.Ctx, c.By, shoal.SecretName(c.Name("name")), req)
}

func (a *API) secretValue(c *call) (v api.SecretValue, err error) {
	c.W.Header().Set("Cache-Control", "no-store")
	v.Value, err = a.cfg.Secrets.Value(c.Ctx, c.By, shoal.SecretName(c.Name("name")))
	return v, err
}

func (a *API) removeSecret(c *call) error {
	return a.cfg.Secrets.Remove(c.Ctx, c.By, shoal.SecretName(c.Name("name")))
}

// agentSecrets answers a machine to which somebody has come.
func (a *API) agentSecrets(ctx context.Context, c agenthub.Caller, req api.SessionSecretsRequest) (api.SessionSecrets, error) {
	if _, err := a.cfg.Hub.Relay(ctx, c.Machine, req.User); err != nil {
		return api.SessionSecrets{}, err
	}
	return a.cfg.Secrets.OnMachine(ctx, c.Machine, req.User)
}
