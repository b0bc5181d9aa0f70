package desk

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/store"
)

// openTime is how long a ticket waits for its endpoint's port to be opened.
const openTime = 3 * time.Second

// Ticket lets who asks, and may, come to a desktop, from the address in the request or from where the request comes itself.
func (d *Desk) Ticket(ctx context.Context, by access.Subject, req api.DesktopRequest, source string) (api.DesktopTicket, error) {
	var t api.DesktopTicket
	if err := access.Check(by, access.Open, access.Object{Kind: access.ObjectDesktop, Owner: by.User}); err != nil {
		return t, err
	}
	from, err := addressOf(req.From, source)
	if err != nil {
		return t, err
	}
	err = d.cfg.Store.View(ctx, func(tx *store.Tx) error {
		if u, err := tx.Users().Get(by.User); err != nil || u.Disabled {
			return shoal.Errorf(shoal.KindDenied, "user %s may not log in", by.User)
		}
		pools, err := tx.Pools().List()
		if err != nil {
			return err
		}
		if t.Pool, t.Endpoint, err = choose(pools, req); err != nil {
			return err
		}
		return startable(tx, t.Pool)
	})
	if err != nil {
		return t, err
	}
	address, why := d.cfg.Address(t.Pool, t.Endpoint)
	// A pool that was applied a moment ago opens its port in the next.
	for began := time.Now(); address == "" && why == "" && time.Since(began) < openTime && retry.Sleep(ctx, openTime/50) == nil; {
		address, why = d.cfg.Address(t.Pool, t.Endpoint)
	}
	switch {
	case why != "": // what listens there may be anybody's, and would get the password
		return t, shoal.Errorf(shoal.KindConflict, "endpoint %s of pool %s cannot be reached: %s", t.Endpoint, t.Pool, why).
			WithHint("an admin frees the port, or chooses another by the endpoint's listen; until then `shoal why pool %s` says how it stands", t.Pool)
	case address == "":
		return t, shoal.Errorf(shoal.KindUnavailable, "endpoint %s of pool %s is not open at the gateway", t.Endpoint, t.Pool).
			WithHint("`shoal why pool %s` says why", t.Pool)
	}
	if t.Fingerprint, err = d.Fingerprint(t.Pool); err != nil {
		return t, err
	}
	t.User, t.From, t.Address = by.User, from, address
	t.Password, t.Expires = d.Issue(by.User, t.Pool, Source(from))
	return t, nil
}

// startable refuses a pool that has no machine and may have none: a client of RDP could not be told why it waits in vain.
func startable(tx *store.Tx, name shoal.PoolName) error {
	p, err := tx.Pools().Get(name)
	if err != nil {
		return err
	}
	machines, err := tx.LiveMachinesIn(name)
	if err != nil || slices.ContainsFunc(machines, shoal.Machine.Alive) {
		return err
	}
	switch f := p.Fixed; {
	case p.Size.Max == 0:
		return shoal.Errorf(shoal.KindConflict, "pool %s may have no machines, so there is no desktop: its size.max is 0", name).
			WithHint("an admin raises size.max with `shoal apply`")
	case f != nil && f.Size == 0 && (f.Until.IsZero() || time.Now().Before(f.Until)):
		return shoal.Errorf(shoal.KindConflict, "pool %s is kept without machines, so there is no desktop: an operator scaled it to 0", name).
			WithHint("`shoal why pool %s` says until when", name)
	}
	return nil
}

// addressOf is the address that a client will come from.
func addressOf(told, source string) (string, error) {
	if told != "" {
		ip, err := netip.ParseAddr(told)
		if err != nil {
			return "", shoal.Errorf(shoal.KindInvalid, "cannot take %q as the address that the client comes from", clip(told)).WithHint("write an IP address")
		}
		return ip.String(), nil
	}
	if ap, err := netip.ParseAddrPort(source); err == nil {
		return ap.Addr().Unmap().WithZone("").String(), nil
	}
	return "127.0.0.1", nil // by a socket: of this host
}

// choose finds the pool and its endpoint: those that are named, or the only ones, or the default pool's.
func choose(pools []shoal.Pool, req api.DesktopRequest) (shoal.PoolName, string, error) {
	desktops := func(p shoal.Pool) (names []string) {
		for _, e := range p.Endpoints {
			if e.Protocol == shoal.ProtocolRDP {
				names = append(names, e.Name)
			}
		}
		return names
	}
	var found []shoal.Pool
	for _, p := range pools {
		switch {
		case req.Pool != "" && p.Name != req.Pool || p.Deleting:
		case req.Pool != "" || len(desktops(p)) > 0:
			found = append(found, p)
		}
	}
	if i := slices.IndexFunc(found, func(p shoal.Pool) bool { return p.Default }); i >= 0 {
		found = found[i : i+1]
	}
	switch {
	case len(found) == 0 && req.Pool != "":
		return "", "", shoal.Errorf(shoal.KindNotFound, "no pool %q", clip(string(req.Pool)))
	case len(found) == 0:
		return "", "", shoal.Errorf(shoal.KindNotFound, "no pool has desktops").WithHint("an admin adds an endpoint of protocol rdp to one")
	case len(found) > 1:
		var names []string
		for _, p := range found {
			names = append(names, string(p.Name))
		}
		return "", "", shoal.Errorf(shoal.KindInvalid, "there are several pools with desktops: %s", strings.Join(names, ", ")).WithHint("name one")
	}
	names := desktops(found[0])
	switch {
	case len(names) == 0:
		return "", "", shoal.Errorf(shoal.KindNotFound, "pool %s has no desktops", found[0].Name).WithHint("an admin adds an endpoint of protocol rdp to it")
	case req.Endpoint != "" && !slices.Contains(names, req.Endpoint):
		return "", "", shoal.Errorf(shoal.KindNotFound, "pool %s has no endpoint %q of protocol rdp; it has %s", found[0].Name, clip(req.Endpoint), strings.Join(names, ", "))
	case req.Endpoint != "":
		return found[0].Name, req.Endpoint, nil
	}
	return found[0].Name, names[0], nil
}
