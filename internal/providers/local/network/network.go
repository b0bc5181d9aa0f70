// Package network joins local machines to the world: a bridge with a subnet of
// its own, an address for each machine, a packet filter and a forwarder for names.
//
// A machine's network namespace is made by whoever starts the machine and lives
// as long as its processes, so a machine that dies takes its interfaces along.
// What this package leaves on the host while machines live is one bridge, two
// nft tables and ip_forward; Close takes them away.
package network

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/shoal-pool/shoal/internal/whole"
)

// Config is how a network is set up.
type Config struct {
	Tag    string       // six characters that tell this installation from others on the host
	Bridge string       // at most 15 characters
	Subnet netip.Prefix // zero: the one in File, or else the first free one of Range
	File   string       // remembers the subnet
	Nft    string       // the program
	// Forwarding is a directory shared by all installations on the host that remembers what
	// ip_forward was before the first of them came.
	Forwarding string
	// AppAccounts are the accounts of the host whose programs reach the ways in to web apps, beside root's; nil: all.
	AppAccounts []int
	Log         *slog.Logger
}

// Host is a machine's place in the network.
type Host struct {
	Name string     `json:"name"`
	Pool string     `json:"pool"`
	Addr netip.Addr `json:"addr"`
	Mark uint32     `json:"mark"` // the same for all machines of a pool
}

// Net is an open network. Its methods may be called concurrently.
type Net struct {
	cfg     Config
	subnet  netip.Prefix
	gateway netip.Addr
	link    *netlink.Handle // speaks to the host's own network namespace, from any thread
	index   int             // of the bridge
	mtu     int
	dns     *forwarder
	forward string // the host's switch; tests have another

	mu    sync.Mutex
	hosts map[netip.Addr]Host
	last  netip.Addr // given out last
}

// poolBits is the size of a subnet when one is chosen: 4093 machines.
const poolBits = 20

// Range is where a subnet is chosen from: RFC 6598, which is neither routed in the
// internet nor likely in a site's own network.
func Range() netip.Prefix { return netip.MustParsePrefix("100.64.0.0/10") }

// Open makes the bridge, adopts it when it is there, and starts to answer names on it. The machines
// that are already there are handed over with hosts.
func Open(ctx context.Context, cfg Config, hosts []Host) (*Net, error) {
	link, err := netlink.NewHandle()
	if err != nil {
		return nil, fmt.Errorf("cannot speak to the kernel's network: %w", err)
	}
	n := &Net{cfg: cfg, link: link, hosts: map[netip.Addr]Host{}, mtu: 1500, forward: forwardSwitch}
	for _, h := range hosts {
		n.hosts[h.Addr] = h
	}
	if err := n.setUp(ctx); err != nil {
		return nil, errors.Join(err, n.Close(context.WithoutCancel(ctx), len(hosts) == 0))
	}
	return n, nil
}

func (n *Net) setUp(ctx context.Context) error {
	err := n.alone(func() error {
		if err := n.choose(); err != nil {
			return err
		}
		n.mtu = n.uplinkMTU()
		if err := n.makeBridge(); err != nil {
			return fmt.Errorf("cannot set up the bridge %s: %w", n.cfg.Bridge, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	n.tendPorts()
	if err := n.nft(ctx, n.rules(n.all())); err != nil {
		return err
	}
	if err := n.forwardOn(); err != nil {
		return err
	}
	dns, err := listenDNS(n.gateway, n.lookup, n.cfg.Log)
	if err != nil {
		return err
	}
	n.dns = dns
	return nil
}

// Subnet is where the machines are.
func (n *Net) Subnet() netip.Prefix { return n.subnet }

// Gateway is the host's address on the bridge, where names are answered.
func (n *Net) Gateway() netip.Addr { return n.gateway }

// choose settles the subnet: the configured one, the remembered one, or the first free one.
func (n *Net) choose() error {
	remembered, err := readSubnet(n.cfg.File)
	if err != nil {
		return err
	}
	switch {
	case remembered.IsValid() && (len(n.hosts) > 0 || !n.cfg.Subnet.IsValid() || n.cfg.Subnet == remembered):
		n.subnet = remembered
	case n.cfg.Subnet.IsValid():
		if err := n.free(n.cfg.Subnet); err != nil {
			return err
		}
		n.subnet = n.cfg.Subnet.Masked()
	default:
		if n.subnet, err = n.firstFree(); err != nil {
			return err
		}
	}
	if !n.subnet.Addr().Is4() || n.subnet.Bits() > 29 || n.subnet.Bits() < 8 {
		return fmt.Errorf("cannot use %s as the machines' subnet: it must be IPv4, between /8 and /29", n.subnet)
	}
	n.gateway = n.subnet.Addr().Next()
	if n.subnet == remembered { // a full disk, or an end in the middle, must not lose it: machines have their addresses there
		return nil
	}
	b, err := json.Marshal(struct{ Subnet netip.Prefix }{n.subnet})
	if err != nil {
		return err
	}
	return whole.Write(n.cfg.File, b, 0o600)
}

func readSubnet(file string) (netip.Prefix, error) {
	b, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return netip.Prefix{}, nil
	}
	var v struct{ Subnet netip.Prefix }
	if err == nil && json.Unmarshal(b, &v) != nil {
		return netip.Prefix{}, nil // cut off by a crash; chosen anew
	}
	return v.Subnet, err
}

// firstFree finds a subnet of Range that no route of the host touches.
func (n *Net) firstFree() (netip.Prefix, error) {
	taken, err := n.routes()
	if err != nil {
		return netip.Prefix{}, err
	}
	for a := Range().Addr(); Range().Contains(a); a = step(a, 1<<(32-poolBits)) {
		p := netip.PrefixFrom(a, poolBits)
		if !touches(p, taken) {
			return p, nil
		}
	}
	return netip.Prefix{}, fmt.Errorf("cannot choose a subnet for machines: all of %s is in use by the host's routes", Range())
}

// free refuses a subnet that the host already has a route into.
func (n *Net) free(p netip.Prefix) error {
	taken, err := n.routes()
	if err != nil {
		return err
	}
	for _, t := range taken {
		if t.Overlaps(p) {
			return fmt.Errorf("cannot use %s as the machines' subnet: the host has a route to %s", p, t)
		}
	}
	return nil
}

func touches(p netip.Prefix, taken []netip.Prefix) bool {
	for _, t := range taken {
		if t.Overlaps(p) {
			return true
		}
	}
	return false
}

// routes are the networks that the host can reach otherwise than by its default route and by our bridge.
func (n *Net) routes() ([]netip.Prefix, error) {
	own := -1
	if l, err := n.link.LinkByName(n.cfg.Bridge); err == nil {
		own = l.Attrs().Index
	}
	list, err := n.link.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: 0}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("cannot read the host's routes: %w", err)
	}
	var out []netip.Prefix
	for _, r := range list {
		if r.Dst == nil || r.LinkIndex == own {
			continue
		}
		addr, ok := netip.AddrFromSlice(r.Dst.IP.To4())
		bits, _ := r.Dst.Mask.Size()
		if ok && bits > 0 {
			out = append(out, netip.PrefixFrom(addr, bits))
		}
	}
	return out, nil
}

// uplinkMTU is that of the default route, so that no machine sends what must be cut up.
func (n *Net) uplinkMTU() int {
	list, err := n.link.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{}, 0)
	if err != nil {
		return 1500
	}
	for _, r := range list {
		if ones, _ := maskOf(r.Dst); ones != 0 {
			continue
		}
		if l, err := n.link.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().MTU >= 1280 {
			return min(l.Attrs().MTU, 9000)
		}
	}
	return 1500
}

func maskOf(dst *net.IPNet) (ones, bits int) {
	if dst == nil {
		return 0, 32
	}
	return dst.Mask.Size()
}

// makeBridge makes the bridge with the gateway's address, or completes what is there.
func (n *Net) makeBridge() error {
	l, err := n.link.LinkByName(n.cfg.Bridge)
	if errors.As(err, new(netlink.LinkNotFoundError)) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = n.cfg.Bridge, n.mtu, mac(n.gateway)
		if err := n.link.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return err
		}
		l, err = n.link.LinkByName(n.cfg.Bridge)
	}
	if err != nil {
		return err
	}
	if l.Type() != "bridge" {
		return fmt.Errorf("there is an interface of that name already, and it is a %s", l.Type())
	}
	n.index = l.Attrs().Index
	// Machines speak IPv4 only; without this the bridge would take an address of its own.
	if err := sysctl("net/ipv6/conf/"+n.cfg.Bridge+"/disable_ipv6", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := sysctl("net/ipv4/conf/"+n.cfg.Bridge+"/send_redirects", "0"); err != nil {
		return err
	}
	want := &netlink.Addr{IPNet: &net.IPNet{IP: n.gateway.AsSlice(), Mask: net.CIDRMask(n.subnet.Bits(), 32)}}
	have, err := n.link.AddrList(l, netlink.FAMILY_V4)
	if err != nil {
		return err
	}
	for _, a := range have {
		if !a.Equal(*want) {
			if err := n.link.AddrDel(l, &a); err != nil {
				return err
			}
		}
	}
	if err := n.link.AddrReplace(l, want); err != nil {
		return err
	}
	return n.link.LinkSetUp(l)
}

func sysctl(name, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0)
}

// tendPorts deletes interfaces of machines that are no more, and puts those of the others on the bridge,
// should that be a new one.
func (n *Net) tendPorts() {
	known := map[string]bool{}
	for _, h := range n.all() {
		known[n.port(h)] = true
	}
	links, err := n.link.LinkList()
	if err != nil {
		return
	}
	for _, l := range links {
		switch name := l.Attrs().Name; {
		case !strings.HasPrefix(name, n.portPrefix()):
		case !known[name]:
			_ = n.link.LinkDel(l)
		case l.Attrs().MasterIndex != n.index:
			_ = n.link.LinkSetMasterByIndex(l, n.index)
		}
	}
}

func (n *Net) table() string      { return "shoal_" + n.cfg.Tag }
func (n *Net) portPrefix() string { return "v" + n.cfg.Tag + "-" }

// port names the host's end of a machine's cable after the last half of its address.
func (n *Net) port(h Host) string {
	b := h.Addr.As4()
	return n.portPrefix() + strconv.FormatUint(uint64(b[1])<<16|uint64(b[2])<<8|uint64(b[3]), 16)
}

// mac derives the hardware address from the IP: locally administered, one for each.
func mac(a netip.Addr) net.HardwareAddr {
	b := a.As4()
	return net.HardwareAddr{0x02, 0x53, b[0], b[1], b[2], b[3]}
}

func (n *Net) all() []Host {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make([]Host, 0, len(n.hosts))
	for _, h := range n.hosts {
		out = append(out, h)
	}
	return out
}

// lookup answers a name for the machine that asks: machines of the same pool know each other.
func (n *Net) lookup(asker netip.Addr, name string) (netip.Addr, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	from, machine := n.hosts[asker]
	for _, h := range n.hosts {
		if h.Name == name && (!machine || h.Pool == from.Pool) {
			return h.Addr, true
		}
	}
	return netip.Addr{}, false
}

// Close stops answering names. With last set, which is when no machine is left, the bridge,
// the tables and what was changed on the host go too.
func (n *Net) Close(ctx context.Context, last bool) error {
	if n.dns != nil {
		n.dns.close()
	}
	defer n.link.Close()
	if !last {
		return nil
	}
	var errs []error
	n.tendPorts()
	t := n.table()
	errs = append(errs, n.nft(ctx, fmt.Sprintf("table inet %s\ndelete table inet %s\ntable bridge %s\ndelete table bridge %s\n", t, t, t, t)))
	if l, err := n.link.LinkByName(n.cfg.Bridge); err == nil && l.Type() == "bridge" {
		errs = append(errs, n.link.LinkDel(l))
	}
	errs = append(errs, n.forwardOff())
	if err := os.Remove(n.cfg.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
