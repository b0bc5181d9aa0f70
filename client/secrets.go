package client

import (
	"context"
	"net/http"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Secrets lists the secrets that the caller may use, without their values.
func (c *Client) Secrets(ctx context.Context) ([]shoal.Secret, error) {
	return list[shoal.Secret](ctx, c, "/secrets", query(), 0)
}

// SetSecret keeps a secret of the caller's, or gives the one of that name another value. Members of the groups may use it.
func (c *Client) SetSecret(ctx context.Context, name shoal.SecretName, req api.SetSecret) (s shoal.Secret, err error) {
	err = c.do(ctx, call{method: http.MethodPut, path: pathOf("secrets", string(name)), body: req}, &s)
	return s, err
}

// SecretValue reads a secret's value, which is put on record.
func (c *Client) SecretValue(ctx context.Context, name shoal.SecretName) ([]byte, error) {
	v, err := get[api.SecretValue](ctx, c, pathOf("secrets", string(name), "value"), nil)
	return v.Value, err
}

// RemoveSecret removes a secret of the caller's.
func (c *Client) RemoveSecret(ctx context.Context, name shoal.SecretName) error {
	return c.remove(ctx, pathOf("secrets", string(name)), nil)
}
