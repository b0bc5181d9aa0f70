package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
)

// ErrFull says that every address of the subnet is taken.
var ErrFull = errors.New("every address of the machines' subnet is taken")

// Assign gives a machine an address, the one free the longest ago first, and its pool's mark.
func (n *Net) Assign(name, pool string) (Host, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := Host{Name: name, Pool: pool, Mark: n.markOf(pool)}
	size := 1 << (32 - n.subnet.Bits())
	a := n.last
	if !n.subnet.Contains(a) {
		a = n.gateway
	}
	for range size {
		a = step(a, 1)
		if !n.subnet.Contains(a) || !n.subnet.Contains(step(a, 1)) { // past the end, or broadcast
			a = n.gateway
			continue
		}
		if _, taken := n.hosts[a]; !taken && a != n.gateway {
			h.Addr, n.last = a, a
			n.hosts[a] = h
			return h, nil
		}
	}
	return Host{}, ErrFull
}

// markOf is the mark of a pool's machines, or the lowest that no pool has.
func (n *Net) markOf(pool string) uint32 {
	used := map[uint32]bool{}
	for _, h := range n.hosts {
		if h.Pool == pool {
			return h.Mark
		}
		used[h.Mark] = true
	}
	m := uint32(1)
	for used[m] {
		m++
	}
	return m
}

// step adds to an IPv4 address.
func step(a netip.Addr, by uint32) netip.Addr {
	b := a.As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+by)
	return netip.AddrFrom4(b)
}

// Release gives an address back. The machine must be disconnected.
func (n *Net) Release(h Host) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.hosts, h.Addr)
}

// Admit lets a machine's packets through. Repeating it is harmless.
func (n *Net) Admit(ctx context.Context, h Host) error { return n.nft(ctx, n.elements("add", h)) }

// Plug makes the machine's interface. It must be called on an operating system thread that is in
// the machine's network namespace, named by the open file netns; that thread configures its side.
func (n *Net) Plug(h Host, netns *os.File) error {
	n.unplug(h)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex, attrs.Flags = n.port(h), n.mtu, n.index, net.FlagUp
	err := n.link.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerMTU: uint32(n.mtu),
		PeerHardwareAddr: mac(h.Addr), PeerNamespace: netlink.NsFd(int(netns.Fd()))})
	if err != nil {
		return fmt.Errorf("cannot make the interface %s: %w", attrs.Name, err)
	}
	// IPv6 stays on the loopback only; machines have no address of that kind.
	if err := sysctl("net/ipv6/conf/eth0/disable_ipv6", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// ping without NET_RAW: ICMP sockets for every group.
	if err := sysctl("net/ipv4/ping_group_range", "0 2147483647"); err != nil {
		return err
	}
	if err := n.inside(h); err != nil {
		return fmt.Errorf("cannot configure the machine's interface: %w", err)
	}
	return n.closeApps()
}

// inside configures the machine's side; the caller's thread is in its namespace.
func (n *Net) inside(h Host) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	eth, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: h.Addr.AsSlice(), Mask: net.CIDRMask(n.subnet.Bits(), 32)}}
	if err := netlink.AddrAdd(eth, addr); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(eth); err != nil {
		return err
	}
	return netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: n.gateway.AsSlice()})
}

// unplug deletes the host's end of a machine's cable, if it is there.
func (n *Net) unplug(h Host) {
	if l, err := n.link.LinkByName(n.port(h)); err == nil {
		_ = n.link.LinkDel(l)
	}
}

// Disconnect takes a machine off the network: its cable and its place in the packet filter.
func (n *Net) Disconnect(ctx context.Context, h Host) error {
	n.unplug(h)
	// Adding first makes the deletion succeed whether or not they were there.
	return n.nft(ctx, n.elements("add", h)+n.elements("delete", h))
}
