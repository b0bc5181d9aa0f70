package network

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// nftTimeout bounds one call of nft; it takes milliseconds unless the host is stuck.
const nftTimeout = 30 * time.Second

// tables is both tables with capitals in place of names and addresses. Deleting after an empty declaration
// makes the whole file one transaction that works whether or not the tables were there.
//
// Table inet: what leaves the bridge for the host or the world. Table bridge: what
// machines say to each other, and that each speaks with its own address only. Frames
// between machines pass the inet table too where the host filters bridges
// (bridge-nf-call-iptables), so it lets those through: they were judged before. What a
// machine sends another by way of the host's routing is dropped in bridge's output.
const tables = `table inet TABLE
delete table inet TABLE
table bridge TABLE
delete table bridge TABLE
table inet TABLE {
  set doors {
    type inet_service
  }
  chain input {
    type filter hook input priority -10; policy accept;
    iifname "BRIDGE" jump from_machine
  }
  chain from_machine {
    ct state established,related accept
    ip daddr GATEWAY udp dport 53 accept
    ip daddr GATEWAY tcp dport 53 accept
    ip daddr GATEWAY tcp dport @doors accept
    ip daddr GATEWAY icmp type echo-request accept
    reject
  }
  chain output {
    type filter hook output priority -10; policy accept;
    oifname "BRIDGE" tcp dport 600-1019 tcp flags & (syn | ack) == syn meta skuid ACCOUNTS reject with tcp reset
  }
  chain forward {
    type filter hook forward priority -10; policy accept;
    iifname "BRIDGE" oifname "BRIDGE" accept
    iifname "BRIDGE" jump to_world
    oifname "BRIDGE" jump to_machine
  }
  chain to_world {
    ip saddr != SUBNET drop
    ip daddr { METADATA } reject
    meta nfproto ipv6 drop
  }
  chain to_machine {
    ct state established,related accept
    drop
  }
  chain source {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr SUBNET oifname != "BRIDGE" masquerade
  }
}
table bridge TABLE {
  set ports {
    typeof iifname . ether saddr . ip saddr
  }
  map pool {
    type ipv4_addr : mark
  }
  set member {
    type ipv4_addr . mark
  }
  chain prerouting {
    type filter hook prerouting priority -300; policy accept;
    iifname "PORTS" jump own
  }
  chain own {
    iifname . ether saddr . ip saddr @ports return
    arp saddr ether != 00:00:00:00:00:00 iifname . arp saddr ether . arp saddr ip @ports return
    drop
  }
  chain forward {
    type filter hook forward priority -200; policy accept;
    iifname "PORTS" oifname "PORTS" jump between
  }
  chain output {
    type filter hook output priority -200; policy accept;
    oifname "PORTS" ip saddr SUBNET ip saddr != GATEWAY drop
  }
  chain between {
    meta mark set ip saddr map @pool
    ip daddr . meta mark @member accept
    meta mark set arp saddr ip map @pool
    arp daddr ip . meta mark @member accept
    drop
  }
}
`

// appTable lies in each machine's own namespace, where its root may not change it. Users' web apps listen at these
// ports, for the machine's agent alone: it is root's, and lets in the gateway. From within the machine nobody
// else reaches them, nor anybody from outside.
const appTable = `table inet shoal
delete table inet shoal
table inet shoal {
  chain output {
    type filter hook output priority 0; policy accept;
    oifname "lo" tcp dport 61000-64999 tcp flags & (syn | ack) == syn meta skuid != 0 reject with tcp reset
  }
  chain input {
    type filter hook input priority 0; policy accept;
    iifname != "lo" tcp dport 61000-64999 tcp flags & (syn | ack) == syn reject with tcp reset
  }
}
`

// closeApps closes the ports of web apps in a machine; the caller's thread is in its namespace.
func (n *Net) closeApps() error { return n.nft(context.Background(), appTable) }

// rules writes both tables anew, with the machines that are there.
func (n *Net) rules(hosts []Host) string {
	var b strings.Builder
	b.WriteString(strings.NewReplacer("TABLE", n.table(), "BRIDGE", n.cfg.Bridge, "PORTS", n.portPrefix()+"*",
		"GATEWAY", n.gateway.String(), "SUBNET", n.subnet.String(), "METADATA", strings.Join(metadata(), ", "), "ACCOUNTS", n.accounts()).Replace(tables))
	for _, h := range hosts {
		b.WriteString(n.elements("add", h))
	}
	return b.String()
}

// accounts are those of the host that do not reach the ways in to web apps, as nft says it.
func (n *Net) accounts() string {
	if n.cfg.AppAccounts == nil {
		return "> 4294967294" // nobody's
	}
	list := "0"
	for _, uid := range n.cfg.AppAccounts {
		list += ", " + strconv.Itoa(uid)
	}
	return "!= { " + list + " }"
}

// metadata is where clouds tell a host what it is, often with credentials: link-local addresses, and those
// of Azure, Alibaba and Oracle that are not.
func metadata() []string {
	return []string{"169.254.0.0/16", "168.63.129.16", "100.100.100.200", "192.0.0.192"}
}

// elements are the commands that let a machine in ("add") or out ("delete").
func (n *Net) elements(verb string, h Host) string {
	t := n.table()
	return fmt.Sprintf("%s element bridge %s ports { %q . %s . %s }\n", verb, t, n.port(h), mac(h.Addr), h.Addr) +
		fmt.Sprintf("%s element bridge %s pool { %s : %d }\n", verb, t, h.Addr, h.Mark) +
		fmt.Sprintf("%s element bridge %s member { %s . %d }\n", verb, t, h.Addr, h.Mark)
}

// nft runs a file of commands as one transaction.
func (n *Net) nft(ctx context.Context, commands string) error {
	ctx, cancel := context.WithTimeout(ctx, nftTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.cfg.Nft, "-f", "-")
	cmd.Stdin = strings.NewReader(commands)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		text := strings.TrimSpace(out.String())
		if len(text) > 500 {
			text = text[:500] + "…"
		}
		return fmt.Errorf("cannot change the packet filter (nft): %w: %s", err, text)
	}
	return nil
}
