package client

import (
	"context"
	"net/http"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// Whoami says who the caller is to the server.
func (c *Client) Whoami(ctx context.Context) (api.Whoami, error) {
	return get[api.Whoami](ctx, c, "/whoami", nil)
}

// Version says what answers.
func (c *Client) Version(ctx context.Context) (api.Version, error) {
	return get[api.Version](ctx, c, "/version", nil)
}

// Apply creates or changes objects, all of them or none.
func (c *Client) Apply(ctx context.Context, req api.ApplyRequest) (api.ApplyResult, error) {
	return post[api.ApplyResult](ctx, c, "/apply", req)
}

// Login is one step of signing in; see api.LoginRequest.
func (c *Client) Login(ctx context.Context, req api.LoginRequest) (api.LoginResponse, error) {
	return post[api.LoginResponse](ctx, c, "/login", req)
}

// Pools lists all pools.
func (c *Client) Pools(ctx context.Context) ([]shoal.Pool, error) {
	return list[shoal.Pool](ctx, c, "/pools", query(), 0)
}

// Pool reads one pool.
func (c *Client) Pool(ctx context.Context, name shoal.PoolName) (shoal.Pool, error) {
	return get[shoal.Pool](ctx, c, pathOf("pools", string(name)), nil)
}

// ScalePool sets a pool's size by hand, or gives it back to the autoscaler.
func (c *Client) ScalePool(ctx context.Context, name shoal.PoolName, req api.ScaleRequest) (shoal.Pool, error) {
	return post[shoal.Pool](ctx, c, pathOf("pools", string(name), "scale"), req)
}

// Rehearse asks what the autoscaler would do with a pool, without doing it.
func (c *Client) Rehearse(ctx context.Context, name shoal.PoolName, req api.RehearsalRequest) (api.Rehearsal, error) {
	return post[api.Rehearsal](ctx, c, pathOf("pools", string(name), "rehearse"), req)
}

// Rollout tells how far a pool's machines have come to be as it says.
func (c *Client) Rollout(ctx context.Context, name shoal.PoolName) (api.RolloutStatus, error) {
	return get[api.RolloutStatus](ctx, c, pathOf("pools", string(name), "rollout"), nil)
}

// SteerRollout pauses a rollout, lets it go on, or goes back to a former revision.
func (c *Client) SteerRollout(ctx context.Context, name shoal.PoolName, req api.RolloutRequest) (api.RolloutStatus, error) {
	return post[api.RolloutStatus](ctx, c, pathOf("pools", string(name), "rollout"), req)
}

// DeletePool has a pool's machines removed, and it with the last of them. It does not wait for that.
func (c *Client) DeletePool(ctx context.Context, name shoal.PoolName) error {
	return c.remove(ctx, pathOf("pools", string(name)), nil)
}

// Shares lists all shares.
func (c *Client) Shares(ctx context.Context) ([]shoal.Share, error) {
	return list[shoal.Share](ctx, c, "/shares", query(), 0)
}

// Share reads one share.
func (c *Client) Share(ctx context.Context, name shoal.ShareName) (shoal.Share, error) {
	return get[shoal.Share](ctx, c, pathOf("shares", string(name)), nil)
}

// DeleteShare forgets a share that no pool mounts. Its files stay.
func (c *Client) DeleteShare(ctx context.Context, name shoal.ShareName) error {
	return c.remove(ctx, pathOf("shares", string(name)), nil)
}

// Groups lists all groups.
func (c *Client) Groups(ctx context.Context) ([]shoal.Group, error) {
	return list[shoal.Group](ctx, c, "/groups", query(), 0)
}

// Group reads one group.
func (c *Client) Group(ctx context.Context, name shoal.GroupName) (shoal.Group, error) {
	return get[shoal.Group](ctx, c, pathOf("groups", string(name)), nil)
}

// DeleteGroup removes a group. Its files keep its number.
func (c *Client) DeleteGroup(ctx context.Context, name shoal.GroupName) error {
	return c.remove(ctx, pathOf("groups", string(name)), nil)
}

// Users lists the users that the caller may see.
func (c *Client) Users(ctx context.Context) ([]shoal.User, error) {
	return list[shoal.User](ctx, c, "/users", query(), 0)
}

// User reads one user.
func (c *Client) User(ctx context.Context, name shoal.UserName) (shoal.User, error) {
	return get[shoal.User](ctx, c, pathOf("users", string(name)), nil)
}

// AddUser makes a new user, with a password unless that is empty.
func (c *Client) AddUser(ctx context.Context, u shoal.User, password string) (shoal.User, error) {
	return post[shoal.User](ctx, c, "/users", api.NewUser{User: u, Password: password})
}

// SetPassword sets a user's password; an empty one takes it away.
func (c *Client) SetPassword(ctx context.Context, name shoal.UserName, password string) error {
	return c.do(ctx, call{method: http.MethodPut, path: pathOf("users", string(name), "password"),
		body: api.PasswordRequest{Password: password}}, nil)
}

// DisableUser keeps a user out and ends her sessions and jobs.
func (c *Client) DisableUser(ctx context.Context, name shoal.UserName) (shoal.User, error) {
	return post[shoal.User](ctx, c, pathOf("users", string(name), "disable"), nil)
}

// EnableUser lets a user in again.
func (c *Client) EnableUser(ctx context.Context, name shoal.UserName) (shoal.User, error) {
	return post[shoal.User](ctx, c, pathOf("users", string(name), "enable"), nil)
}

// RemoveUser removes a user; the answer says where files of hers stay.
func (c *Client) RemoveUser(ctx context.Context, name shoal.UserName) (ch api.Change, err error) {
	err = c.do(ctx, call{method: http.MethodDelete, path: pathOf("users", string(name))}, &ch)
	return ch, err
}

// MachineQuery selects machines; zero fields select all but those gone.
type MachineQuery struct {
	Pool  shoal.PoolName
	State shoal.MachineState // MachineGone too
	Gone  bool               // those gone as well
	Limit int                // at most so many, the newest; 0: all
}

// Machines lists machines, newest first.
func (c *Client) Machines(ctx context.Context, q MachineQuery) ([]shoal.Machine, error) {
	return list[shoal.Machine](ctx, c, "/machines", query("pool", string(q.Pool), "state", string(q.State), "gone", flag(q.Gone)), q.Limit)
}

// Machine reads one machine.
func (c *Client) Machine(ctx context.Context, id shoal.MachineID) (shoal.Machine, error) {
	return get[shoal.Machine](ctx, c, pathOf("machines", string(id)), nil)
}

// Drain keeps new users and tasks off a machine.
func (c *Client) Drain(ctx context.Context, id shoal.MachineID, req api.DrainRequest) (shoal.Machine, error) {
	return post[shoal.Machine](ctx, c, pathOf("machines", string(id), "drain"), req)
}

// Undrain takes an operator's cordon away.
func (c *Client) Undrain(ctx context.Context, id shoal.MachineID) (shoal.Machine, error) {
	return post[shoal.Machine](ctx, c, pathOf("machines", string(id), "undrain"), nil)
}

// DeleteMachine has a machine removed; with force although somebody is on it. It does not wait for that.
func (c *Client) DeleteMachine(ctx context.Context, id shoal.MachineID, force bool) error {
	return c.remove(ctx, pathOf("machines", string(id)), query("force", flag(force)))
}

// SessionQuery selects sessions; zero fields select all but those ended.
type SessionQuery struct {
	Pool    shoal.PoolName
	User    shoal.UserName
	Machine shoal.MachineID
	State   shoal.SessionState // SessionEnded too
	Ended   bool               // those ended as well
	Limit   int                // at most so many, the newest; 0: all
}

// Sessions lists the sessions that the caller may see, newest first.
func (c *Client) Sessions(ctx context.Context, q SessionQuery) ([]shoal.Session, error) {
	v := query("pool", string(q.Pool), "user", string(q.User), "machine", string(q.Machine), "state", string(q.State), "ended", flag(q.Ended))
	return list[shoal.Session](ctx, c, "/sessions", v, q.Limit)
}

// Session reads one session.
func (c *Client) Session(ctx context.Context, id shoal.SessionID) (shoal.Session, error) {
	return get[shoal.Session](ctx, c, pathOf("sessions", string(id)), nil)
}

// EndSession ends a session.
func (c *Client) EndSession(ctx context.Context, id shoal.SessionID) error {
	return c.remove(ctx, pathOf("sessions", string(id)), nil)
}

// KeepAwake keeps a session's machine for d from now; 0 takes that back.
func (c *Client) KeepAwake(ctx context.Context, id shoal.SessionID, d time.Duration) (shoal.Session, error) {
	return post[shoal.Session](ctx, c, pathOf("sessions", string(id), "keep-awake"), api.KeepAwakeRequest{For: shoal.Duration(d)})
}

// Usage is the bill since a time, with a row for each of by: user, group, pool, job or machine. idle says whose the time
// is that nobody used: "apart" (or empty), or "shared" among those who used the pool.
func (c *Client) Usage(ctx context.Context, by, idle string, since time.Time) (api.Usage, error) {
	return get[api.Usage](ctx, c, "/usage", query("by", by, "since", instant(since), "idle", idle))
}

// Why says why something is as it is. Kind is pool, machine, session, app, job or login; a login is
// named by its user, and pool says where to (empty: the default pool).
func (c *Client) Why(ctx context.Context, kind, name, pool string) (api.Why, error) {
	return get[api.Why](ctx, c, pathOf("why", kind, name), query("pool", pool))
}

// Images lists the images that providers keep.
func (c *Client) Images(ctx context.Context) ([]api.Image, error) {
	return list[api.Image](ctx, c, "/images", query(), 0)
}

// Snapshot freezes the image host under a name. It takes minutes.
func (c *Client) Snapshot(ctx context.Context, name string) (api.Image, error) {
	return post[api.Image](ctx, c, "/images", api.SnapshotRequest{Name: name})
}

// RemoveImage removes a snapshot that no machine uses.
func (c *Client) RemoveImage(ctx context.Context, name string) error {
	return c.remove(ctx, pathOf("images", name), nil)
}
