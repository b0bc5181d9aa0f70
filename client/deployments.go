package client

import (
	"context"
	"net/http"

	"github.com/shoal-pool/shoal/api"
)

// Deployments lists what was deployed from templates.
func (c *Client) Deployments(ctx context.Context) ([]api.Deployment, error) {
	return list[api.Deployment](ctx, c, "/deployments", query(), 0)
}

// Deployment reads what is on record of one.
func (c *Client) Deployment(ctx context.Context, name string) (api.Deployment, error) {
	return get[api.Deployment](ctx, c, pathOf("deployments", name), nil)
}

// PutDeployment puts a deployment on record under its name.
func (c *Client) PutDeployment(ctx context.Context, d api.Deployment) (kept api.Deployment, err error) {
	err = c.do(ctx, call{method: http.MethodPut, path: pathOf("deployments", d.Name), body: d}, &kept)
	return kept, err
}
