package client

import (
	"context"

	"github.com/shoal-pool/shoal/api"
)

// WebLink makes an address that signs the caller in in a browser, once.
func (c *Client) WebLink(ctx context.Context) (api.WebLink, error) {
	return post[api.WebLink](ctx, c, "/web/link", nil)
}

// ConfirmWeb looks at what a browser of the caller's asks for, or confirms it.
func (c *Client) ConfirmWeb(ctx context.Context, code string, confirm bool) (api.Confirmation, error) {
	return post[api.Confirmation](ctx, c, "/web/confirm", api.ConfirmRequest{Code: code, Confirm: confirm})
}
