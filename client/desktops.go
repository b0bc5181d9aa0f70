package client

import (
	"context"

	"github.com/shoal-pool/shoal/api"
)

// Desktop asks for the way to a desktop. The password in the answer is told this once.
func (c *Client) Desktop(ctx context.Context, req api.DesktopRequest) (api.DesktopTicket, error) {
	return post[api.DesktopTicket](ctx, c, "/desktops", req)
}
