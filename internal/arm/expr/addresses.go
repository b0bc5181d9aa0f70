package expr

import (
	"math/big"
	"net/netip"

	"github.com/shoal-pool/shoal/internal/arm/tree"
)

// addresses are the functions on ranges of addresses.
func addresses() []*Function {
	return []*Function{
		{Name: "parseCidr", Min: 1, Max: 1, Call: parseCidr},
		{Name: "cidrSubnet", Min: 3, Max: 3, Call: cidrSubnet},
		{Name: "cidrHost", Min: 2, Max: 2, Call: cidrHost},
	}
}

func (c *Call) prefix(i int) (netip.Prefix, error) {
	s, err := c.plain(i)
	if err != nil {
		return netip.Prefix{}, err
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, c.Wrong(i, "write 10.0.0.0/16", "%s is no range of addresses", c.Args[i].Show())
	}
	return p.Masked(), nil
}

// plus is an address so many behind another.
func plus(a netip.Addr, n *big.Int) netip.Addr {
	b := a.AsSlice()
	sum := new(big.Int).Add(new(big.Int).SetBytes(b), n)
	if sum.BitLen() > len(b)*8 {
		return netip.Addr{}
	}
	out, _ := netip.AddrFromSlice(sum.FillBytes(b))
	return out
}

// count is how many addresses there are with so many bits.
func count(bits int) *big.Int { return new(big.Int).Lsh(big.NewInt(1), uint(bits)) }

func parseCidr(c *Call) (*tree.Value, error) {
	p, err := c.prefix(0)
	if err != nil {
		return nil, err
	}
	bits := p.Addr().BitLen() - p.Bits()
	last := plus(p.Addr(), new(big.Int).Sub(count(bits), big.NewInt(1)))
	first, lastUsable := p.Addr(), last
	var b builder
	set := func(name string, v *tree.Value) { b.set(name, tree.Place{}, v) }
	set("network", tree.StringValue(p.Addr().String()))
	if p.Addr().Is4() {
		mask, _ := netip.AddrFromSlice(new(big.Int).Sub(count(32), count(bits)).FillBytes(make([]byte, 4)))
		set("netmask", tree.StringValue(mask.String()))
		set("broadcast", tree.StringValue(last.String()))
		if bits >= 2 {
			first, lastUsable = first.Next(), last.Prev()
		}
	}
	set("firstUsable", tree.StringValue(first.String()))
	set("lastUsable", tree.StringValue(lastUsable.String()))
	set("cidr", tree.IntValue(int64(p.Bits())))
	return b.value(), nil
}

func cidrSubnet(c *Call) (*tree.Value, error) {
	p, err := c.prefix(0)
	if err != nil {
		return nil, err
	}
	length, err := c.int(1)
	if err != nil {
		return nil, err
	}
	n, err := c.int(2)
	if err != nil {
		return nil, err
	}
	if length < int64(p.Bits()) || length > int64(p.Addr().BitLen()) {
		return nil, c.Wrong(1, "", "a part of %s has %d to %d bits, not %d", p, p.Bits(), p.Addr().BitLen(), length)
	}
	parts := count(int(length) - p.Bits())
	if n < 0 || big.NewInt(n).Cmp(parts) >= 0 {
		return nil, c.Wrong(2, "the first one is 0", "%s has %s parts of %d bits, so there is no part %d", p, parts, length, n)
	}
	at := plus(p.Addr(), new(big.Int).Mul(big.NewInt(n), count(p.Addr().BitLen()-int(length))))
	return tree.StringValue(netip.PrefixFrom(at, int(length)).String()), nil
}

func cidrHost(c *Call) (*tree.Value, error) {
	p, err := c.prefix(0)
	if err != nil {
		return nil, err
	}
	n, err := c.int(1)
	if err != nil {
		return nil, err
	}
	at := p.Addr()
	if n >= 0 {
		skip := n
		if at.Is4() {
			skip++ // the first address is the network's own
		}
		at = plus(at, big.NewInt(skip))
	}
	if n < 0 || !at.IsValid() || !p.Contains(at) {
		return nil, c.Wrong(1, "the first one is 0", "%s has no host %d", p, n)
	}
	return tree.StringValue(at.String()), nil
}
