package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// Listen opens a port of the host's address on the bridge to all machines, until the listener is closed; 0 is a free
// one. Whoever answers there speaks to machines' users, who may be hostile.
func (n *Net) Listen(ctx context.Context, port int) (net.Listener, error) {
	var c net.ListenConfig
	l, err := c.Listen(ctx, "tcp4", netip.AddrPortFrom(n.gateway, uint16(port)).String())
	if err != nil {
		return nil, err
	}
	d := &door{Listener: l, net: n, port: l.Addr().(*net.TCPAddr).Port}
	if err := n.nft(ctx, d.element("add")); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return d, nil
}

// door is a listener with its place in the packet filter.
type door struct {
	net.Listener
	net  *Net
	port int
	once sync.Once
	err  error
}

func (d *door) element(verb string) string {
	return fmt.Sprintf("%s element inet %s doors { %d }\n", verb, d.net.table(), d.port)
}

// Close shuts the door first. When the network is gone by then, so is the door.
func (d *door) Close() error {
	d.once.Do(func() {
		d.err = d.Listener.Close()
		if _, err := d.net.link.LinkByName(d.net.cfg.Bridge); err != nil {
			return
		}
		// Adding first makes the deletion succeed whether or not it was there.
		d.err = errors.Join(d.err, d.net.nft(context.Background(), d.element("add")+d.element("delete")))
	})
	return d.err
}
