package client

import (
	"context"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// AppQuery selects web apps; zero fields select all but those that ended.
type AppQuery struct {
	Pool  shoal.PoolName
	User  shoal.UserName
	State shoal.AppState // AppEnded too
	Ended bool           // those that ended or failed as well
	Limit int            // at most so many, the newest; 0: all
}

// Apps lists the web apps that the caller may see, newest first.
func (c *Client) Apps(ctx context.Context, q AppQuery) ([]shoal.App, error) {
	return list[shoal.App](ctx, c, "/apps", query("pool", string(q.Pool), "user", string(q.User), "state", string(q.State), "ended", flag(q.Ended)), q.Limit)
}

// OpenApp opens a web app: the one that lives, or a new one. It does not wait until that runs.
func (c *Client) OpenApp(ctx context.Context, req api.OpenApp) (shoal.App, error) {
	return post[shoal.App](ctx, c, "/apps", req)
}

// App reads one web app.
func (c *Client) App(ctx context.Context, id shoal.AppID) (shoal.App, error) {
	return get[shoal.App](ctx, c, pathOf("apps", string(id)), nil)
}

// WaitApp returns a web app once it is newer than rev or has ended, or after half a minute as it is.
func (c *Client) WaitApp(ctx context.Context, id shoal.AppID, rev shoal.Rev) (shoal.App, error) {
	return get[shoal.App](ctx, c, pathOf("apps", string(id), "wait"), query("rev", number(rev)))
}

// StopApp begins to end a web app.
func (c *Client) StopApp(ctx context.Context, id shoal.AppID) error {
	return c.remove(ctx, pathOf("apps", string(id)), nil)
}

// TellAppUse tells how a web app is used.
func (c *Client) TellAppUse(ctx context.Context, id shoal.AppID, r api.AppActivity) (shoal.App, error) {
	return post[shoal.App](ctx, c, pathOf("apps", string(id), "activity"), r)
}
