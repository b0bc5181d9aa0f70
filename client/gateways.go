package client

import (
	"context"
	"net/http"

	"github.com/shoal-pool/shoal/api"
)

// Gateways lists the gateways that are processes of their own.
func (c *Client) Gateways(ctx context.Context) ([]api.Gateway, error) {
	return list[api.Gateway](ctx, c, "/gateways", query(), 0)
}

// AddGateway makes a token with which a gateway enrols, once, under a name.
func (c *Client) AddGateway(ctx context.Context, req api.AddGateway) (t api.GatewayToken, err error) {
	err = c.do(ctx, call{method: http.MethodPost, path: "/gateways", body: req}, &t)
	return t, err
}

// RemoveGateway forgets a gateway: machines do not trust its key any more.
func (c *Client) RemoveGateway(ctx context.Context, name api.GatewayName) error {
	return c.remove(ctx, pathOf("gateways", string(name)), nil)
}
