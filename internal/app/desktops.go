package app

import (
	"context"
	"net"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/engine"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/gateway/doors"
	"github.com/shoal-pool/shoal/internal/gateway/rdpfront"
	"github.com/shoal-pool/shoal/internal/gateway/rdpfront/desk"
	"github.com/shoal-pool/shoal/internal/gateway/tcpfront"
	"github.com/shoal-pool/shoal/internal/reach"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
)

// makeDesktops makes what is between people's desktops, or other ports of machines, and the pools that have them.
func (a *App) makeDesktops() {
	a.desk = desk.New(desk.Config{Store: a.store, Dir: a.opts.path("keys", "desktops"), People: a.people, Log: a.log,
		Address: func(pool shoal.PoolName, endpoint string) (address, why string) {
			return a.endpoints.Address(pool, endpoint)
		}})
	rdp := rdpfront.New(rdpfront.Config{Desk: a.desk, Router: a.logins, Dial: a.reach.Dial, Prove: a.desk.Prove, Log: a.log})
	tcp := tcpfront.New(tcpfront.Config{Recent: a.desk.Recent, Router: a.logins, Dial: a.reach.Dial, Log: a.log})
	a.endpoints = doors.New(doors.Config{Store: a.store, Host: a.opts.EndpointHost, Log: a.log, Listen: new(net.ListenConfig).Listen,
		Fronts: map[string]doors.Front{shoal.ProtocolRDP: rdp.Serve, shoal.ProtocolTCP: tcp.Serve}})
}

// noting is a Router that has the desk know from where people sign in.
type noting struct {
	gateway.Router
	desk *desk.Desk
}

// Login notes who has proved who she is: nobody else asks by ssh.
func (n noting) Login(ctx context.Context, r route.Request, part string, progress func(string)) (route.Target, error) {
	n.desk.SignedIn(r.User, r.Source)
	return n.Router.Login(ctx, r, part, progress)
}

// explained is an Engine that knows where pools' endpoints are reached, how JupyterHub is, whether users are kept apart, and how machines
// are reached.
type explained struct {
	*engine.Engine
	doors  *doors.Doors
	others []func(context.Context, shoal.PoolName) []shoal.Reason
	reach  *reach.Reach
}

// WhyPool adds what there is to say of endpoints and users.
func (e explained) WhyPool(ctx context.Context, name shoal.PoolName) (api.Why, error) {
	why, err := e.Engine.WhyPool(ctx, name)
	if err == nil {
		why.Reasons = append(why.Reasons, e.doors.Why(name)...)
		for _, more := range e.others {
			why.Reasons = append(why.Reasons, more(ctx, name)...)
		}
	}
	return why, err
}

// whyTogether says of pools whose people share machines that nothing keeps them apart there, and of those for JupyterHub that there is none.
// apart tells the providers whose machines have a control group for each user.
func (a *App) whyTogether(apart func(provider string) bool) func(context.Context, shoal.PoolName) []shoal.Reason {
	return func(ctx context.Context, name shoal.PoolName) (reasons []shoal.Reason) {
		var pool shoal.Pool
		if err := a.store.View(ctx, func(tx *store.Tx) (err error) {
			pool, err = tx.Pools().Get(name)
			return err
		}); err != nil {
			return nil
		}
		if pool.Has(shoal.UseInteractive) && pool.Seats > 1 && !apart(pool.Provider) {
			reasons = append(reasons, shoal.Reason{Code: "together", Sentence: "people on one machine share its processors and its memory as their processes do, since machines of provider " +
				pool.Provider + " have no control group for each user; seats: 1 keeps them apart"})
		}
		if _, wants := pool.Endpoint(shoal.EndpointJupyter); wants && a.images == nil && a.opts.Providers == nil {
			reasons = append(reasons, shoal.Reason{Code: "hub", Sentence: "JupyterHub does not run: it needs a server with local machines, which needs root"})
		}
		return reasons
	}
}

// WhyMachine adds how the machine is reached.
func (e explained) WhyMachine(ctx context.Context, id shoal.MachineID) (api.Why, error) {
	why, err := e.Engine.WhyMachine(ctx, id)
	if err == nil {
		why.Reasons = append(why.Reasons, e.reach.Why(id)...)
	}
	return why, err
}
