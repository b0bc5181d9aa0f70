package doctor

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// network tries what joins machines: a bridge, a cable and the packet filter.
func (h Host) network(ctx context.Context) []Finding {
	if h.Try == nil || h.UID != 0 {
		return nil
	}
	nft, err := h.LookPath("nft")
	if err != nil {
		nft = ""
	}
	bridge, filter := h.Try.Network(ctx, nft)
	var found []Finding
	if bridge != nil {
		found = missing("bridge", "modprobe -a bridge veth", "a trial bridge could not be made: %v", bridge)
	} else {
		found = ok("bridge", "a trial bridge with a cable worked")
	}
	switch {
	case nft == "": // said already
	case filter != nil:
		found = append(found, missing("nft rules", "modprobe -a nf_tables nft_masq nf_conntrack nft_meta_bridge", "trial rules could not be loaded: %v", filter)...)
	default:
		found = append(found, ok("nft rules", "trial rules worked")...)
	}
	return found
}

func (h Host) forwarding(context.Context) []Finding {
	const file = "proc/sys/net/ipv4/ip_forward"
	text, err := h.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return missing("ip_forward", "use a kernel with IPv4 and a mounted /proc", "/%s is not there", file)
	}
	if err != nil {
		return missing("ip_forward", "", "cannot read /%s: %v", file, err)
	}
	if strings.TrimSpace(text) == "1" {
		return ok("ip_forward", "on")
	}
	var st unix.Statfs_t
	if unix.Statfs(h.path(file), &st) == nil && st.Flags&unix.ST_RDONLY != 0 {
		return missing("ip_forward", "sysctl -w net.ipv4.ip_forward=1 outside, where this system's kernel settings are kept",
			"off, and /proc/sys is read-only, so the server cannot turn it on")
	}
	return ok("ip_forward", "off; the server turns it on while it runs")
}

// forwardChains finds a packet filter of the host's that lets nothing through which it does not know,
// as Docker and ufw set up. Our own chain accepts, but every chain must.
func (h Host) forwardChains(ctx context.Context) []Finding {
	nft, err := h.LookPath("nft")
	if err != nil || h.UID != 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	text, err := h.Output(ctx, nft, "list", "chains")
	if err != nil {
		return warning("forward chain", "nft list chains", "cannot list the packet filter's chains: %v", err)
	}
	for _, c := range droppingChains(text) {
		if c.family == "inet" && strings.HasPrefix(c.table, "shoal") {
			continue
		}
		mend := "nft insert rule " + c.family + " " + c.table + " " + c.chain + " ip saddr 100.64.0.0/10 accept && " +
			"nft insert rule " + c.family + " " + c.table + " " + c.chain + " ip daddr 100.64.0.0/10 accept"
		if c.chain == "FORWARD" {
			mend = "iptables -I FORWARD -s 100.64.0.0/10 -j ACCEPT && iptables -I FORWARD -d 100.64.0.0/10 -j ACCEPT"
		}
		return warning("forward chain", mend, "chain %s of table %s %s drops by default, so machines may not reach the world",
			c.chain, c.family, c.table)
	}
	return ok("forward chain", "none drops by default")
}

type chain struct{ family, table, chain string }

// droppingChains reads `nft list chains` for chains at the forward hook with policy drop.
func droppingChains(text string) []chain {
	var found []chain
	var at chain
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 3 && f[0] == "table":
			at.family, at.table = f[1], f[2]
		case len(f) >= 2 && f[0] == "chain":
			at.chain = f[1]
		case strings.Contains(line, "hook forward") && strings.Contains(line, "policy drop"):
			if at.family == "ip" || at.family == "inet" {
				found = append(found, at)
			}
		}
	}
	return found
}

// ports sees whether the server can listen where it will.
func (h Host) ports(ctx context.Context) []Finding {
	if h.Try == nil {
		return nil
	}
	if h.Try.Serves(h.path(h.Data, "shoal.sock")) {
		return ok("ports", "a server is running with %s", h.Data)
	}
	var found []Finding
	for _, l := range []struct{ check, flag, address string }{{"API port", "--listen", h.Listen}, {"SSH port", "--ssh-listen", h.SSHListen}, {"HTTPS port", "--https-listen", h.HTTPSListen}} {
		if l.flag == "--https-listen" && (l.address == "" || l.address == "off") {
			continue
		}
		if _, _, err := net.SplitHostPort(l.address); err != nil {
			found = append(found, missing(l.check, "write HOST:PORT, as in 127.0.0.1:2222", "cannot use %s %q: %v", l.flag, l.address, err)...)
			continue
		}
		if err := h.Try.Listen(ctx, l.address); err != nil {
			found = append(found, missing(l.check, "choose another with "+l.flag+" HOST:PORT, or see who has it with `ss -ltnp`", "%v", err)...)
			continue
		}
		found = append(found, ok(l.check, "%s is free", l.address)...)
	}
	return found
}
