package network

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"pgregory.net/rapid"
)

// plain is a network in memory only.
func plain(subnet string) *Net {
	p := netip.MustParsePrefix(subnet)
	return &Net{subnet: p, gateway: p.Addr().Next(), hosts: map[netip.Addr]Host{}, cfg: Config{Tag: "abc123", Bridge: "shoal-abc123", Nft: "nft", Log: slog.New(slog.DiscardHandler)}}
}

// Whatever machines come and go: no address twice, none that is not a machine's, one mark for a pool and
// none for two; the subnet is full exactly when all are taken.
func TestAssign(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := plain("100.64.16.0/28")
		have := map[netip.Addr]Host{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "release") {
				for a, h := range have {
					n.Release(h)
					delete(have, a)
					break
				}
				continue
			}
			h, err := n.Assign("m", rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "pool"))
			if err != nil {
				if !errors.Is(err, ErrFull) || len(have) != 13 {
					t.Fatalf("with %d machines: %v", len(have), err)
				}
				continue
			}
			if _, twice := have[h.Addr]; twice || !n.subnet.Contains(h.Addr) || h.Addr == n.gateway || h.Addr == n.subnet.Addr() || h.Addr.As4()[3]&15 == 15 {
				t.Fatalf("a machine has the address %s", h.Addr)
			}
			for _, o := range have {
				if (o.Pool == h.Pool) != (o.Mark == h.Mark) {
					t.Fatalf("pools %s and %s have marks %d and %d", o.Pool, h.Pool, o.Mark, h.Mark)
				}
			}
			have[h.Addr] = h
		}
	})
}

// An address is not given to another machine while others are free that were never used.
func TestAssignWaitsLong(t *testing.T) {
	n := plain("100.64.16.0/24")
	first, _ := n.Assign("m-1", "a")
	n.Release(first)
	if second, _ := n.Assign("m-2", "a"); second.Addr == first.Addr {
		t.Errorf("%s went from hand to hand", first.Addr)
	}
}

func TestLookup(t *testing.T) {
	n := plain("100.64.16.0/24")
	a, _ := n.Assign("m-a", "lab")
	b, _ := n.Assign("m-b", "lab")
	c, _ := n.Assign("m-c", "other")
	host := netip.MustParseAddr("192.0.2.1")
	for _, c := range []struct {
		asker netip.Addr
		name  string
		want  netip.Addr
	}{{a.Addr, "m-b", b.Addr}, {a.Addr, "m-a", a.Addr}, {a.Addr, "m-c", netip.Addr{}}, {c.Addr, "m-a", netip.Addr{}}, {host, "m-c", c.Addr}, {a.Addr, "m-x", netip.Addr{}}} {
		if got, ok := n.lookup(c.asker, c.name); got != c.want || ok != c.want.IsValid() {
			t.Errorf("%s asks for %s and hears %s, want %s", c.asker, c.name, got, c.want)
		}
	}
}

// TestRemembersSubnet: where the machines are is written once, and not again at each start.
func TestRemembersSubnet(t *testing.T) {
	n := plain("100.64.16.0/28")
	n.cfg.File = filepath.Join(t.TempDir(), "network.json")
	if err := os.WriteFile(n.cfg.File, []byte(`{"Subnet":"100.64.32.0/20"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(n.cfg.File)
	if err != nil {
		t.Fatal(err)
	}
	past := before.ModTime().Add(-time.Hour)
	if err := os.Chtimes(n.cfg.File, past, past); err != nil {
		t.Fatal(err)
	}
	if err := n.choose(); err != nil {
		t.Fatal(err)
	}
	after, err := os.Stat(n.cfg.File)
	if err != nil || !after.ModTime().Equal(past) || n.subnet.String() != "100.64.32.0/20" || n.gateway.String() != "100.64.32.1" {
		t.Errorf("%s, %s; written at %s, %v", n.subnet, n.gateway, after.ModTime(), err)
	}
}

func TestRefusesSubnets(t *testing.T) {
	for _, subnet := range []string{"fd00::/64", "10.0.0.0/30", "10.0.0.0/7"} {
		n := plain("10.0.0.0/24")
		link, err := netlink.NewHandle()
		if err != nil {
			t.Fatal(err)
		}
		n.link = link
		n.cfg.Subnet, n.cfg.File = netip.MustParsePrefix(subnet), filepath.Join(t.TempDir(), "network.json")
		if err := n.choose(); err == nil {
			t.Errorf("%s is taken for a subnet", subnet)
		}
		link.Close()
	}
}

// The tables are what nft takes for such, with machines in them and again without.
func TestRulesAreRules(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("nft needs root, and is left out with -short")
	}
	n := plain("100.64.16.0/24")
	var hosts []Host
	for _, pool := range []string{"lab", "lab", "other"} {
		h, _ := n.Assign("m", pool)
		hosts = append(hosts, h)
	}
	rules := n.rules(hosts)
	for _, h := range hosts {
		rules += n.elements("delete", h)
	}
	path, err := exec.LookPath("nft")
	if err != nil {
		path = "/usr/sbin/nft"
	}
	cmd := exec.Command(path, "-c", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s\n%s", err, out, rules)
	}
	for _, addr := range metadata() {
		if !strings.Contains(rules, addr) {
			t.Errorf("the metadata address %s is not in the rules", addr)
		}
	}
	n.cfg.Nft = path
	if err := n.nft(t.Context(), "nonsense\n"); err == nil || !strings.Contains(err.Error(), "packet filter") {
		t.Errorf("nonsense is accepted: %v", err)
	}
}

// upstream is a name server that answers every A question with one address, unless it is silent.
func upstream(t *testing.T) string {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp4", pc.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		n := 1
		if strings.HasPrefix(q.Question[0].Name, "large.") {
			n = 100
		}
		for i := range n {
			m.Answer = append(m.Answer, &dns.A{A: net.IPv4(192, 0, 2, byte(i+7)), Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}})
		}
		if w.RemoteAddr().Network() == "udp" {
			m.Truncate(512)
		}
		_ = w.WriteMsg(m)
	})
	for _, s := range []*dns.Server{{PacketConn: pc, Handler: h}, {Listener: l, Handler: h}} {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		go func() { _ = s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	return pc.LocalAddr().String()
}

func TestForwarder(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("port 53 needs root")
	}
	at := netip.MustParseAddr("127.77.53.1")
	n := plain("127.0.0.0/8") // who asks is on the loopback
	n.hosts[netip.MustParseAddr("127.0.0.1")] = Host{Name: "m-a", Pool: "lab", Addr: netip.MustParseAddr("127.0.0.1")}
	n.hosts[netip.MustParseAddr("127.0.0.9")] = Host{Name: "m-b", Pool: "lab", Addr: netip.MustParseAddr("127.0.0.9")}
	f, err := listenDNS(at, n.lookup, n.cfg.Log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	if _, err := listenDNS(at, n.lookup, n.cfg.Log); err == nil || !strings.Contains(err.Error(), "another name server") {
		t.Errorf("a port that is taken: %v", err)
	}
	upstreams := func(list ...string) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.fixed = list
	}
	upstreams(upstream(t))
	ask := func(network, name string, kind uint16) *dns.Msg {
		t.Helper()
		c := &dns.Client{Net: network, Timeout: 10 * time.Second}
		m, _, err := c.ExchangeContext(context.Background(), new(dns.Msg).SetQuestion(name, kind), at.String()+":53")
		if err != nil {
			t.Fatalf("%s over %s: %v", name, network, err)
		}
		return m
	}
	for _, network := range []string{"udp", "tcp"} {
		if m := ask(network, "M-B.", dns.TypeA); len(m.Answer) != 1 || !m.Answer[0].(*dns.A).A.Equal(net.IPv4(127, 0, 0, 9)) || !m.Authoritative {
			t.Errorf("a machine's name over %s: %v", network, m)
		}
		if m := ask(network, "m-b.", dns.TypeAAAA); len(m.Answer) != 0 || m.Rcode != dns.RcodeSuccess {
			t.Errorf("a machine's address of the other kind over %s: %v", network, m)
		}
		if m := ask(network, "example.org.", dns.TypeA); len(m.Answer) != 1 || !m.Answer[0].(*dns.A).A.Equal(net.IPv4(192, 0, 2, 7)) {
			t.Errorf("another name over %s: %v", network, m)
		}
	}
	if m := ask("udp", "large.example.org.", dns.TypeA); !m.Truncated {
		t.Errorf("a large answer over udp does not ask for tcp: %v", m)
	}
	if m := ask("tcp", "large.example.org.", dns.TypeA); len(m.Answer) != 100 {
		t.Errorf("a large answer over tcp has %d parts", len(m.Answer))
	}
	// A machine that asks much to which nobody answers takes no other's place, and hears the names of machines still.
	for range maxQuestions {
		f.asking.Enter(netip.MustParseAddr("127.0.0.1"))
	}
	if m := ask("udp", "m-b.", dns.TypeA); len(m.Answer) != 1 {
		t.Errorf("a machine's name, while its asker's questions wait: %v", m)
	}
	if other := netip.MustParseAddr("127.0.0.9"); !f.asking.Enter(other) {
		t.Error("another machine may not ask any more")
	} else {
		f.asking.Leave(other)
	}
	for range maxOfOne {
		f.asking.Leave(netip.MustParseAddr("127.0.0.1"))
	}
	if its, all := f.asking.Taken(netip.MustParseAddr("127.0.0.1")); its != 0 || all != 0 {
		t.Errorf("%d questions are under way, %d of one", all, its)
	}
	upstreams("127.0.0.1:1")
	if m := ask("udp", "example.org.", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("with no server to ask: %v", m)
	}
}

// Forwarding is one switch for many: the last one restores it, whatever died in between.
func TestForwarding(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("interfaces need root, and are left out with -short")
	}
	link, err := netlink.NewHandle()
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "ip_forward")
	if err := os.WriteFile(file, []byte("0\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	install := func(bridge string) *Net {
		n := &Net{link: link, forward: file, cfg: Config{Bridge: bridge, Forwarding: filepath.Join(dir, "run", "forwarding")}}
		if err := n.forwardOn(); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o755); err != nil {
		t.Fatal(err)
	}
	is := func(when, want string) {
		t.Helper()
		b, _ := os.ReadFile(file)
		if got := strings.TrimSpace(string(b)); got != want {
			t.Errorf("%s: ip_forward is %s, want %s", when, got, want)
		}
	}
	// Of the first the interface exists, as of one that runs; the second's is gone, as of one that died.
	alive := install("lo")
	is("with one", "1")
	install("shoal-no-such")
	last := install("shoal-another")
	if err := last.forwardOff(); err != nil {
		t.Fatal(err)
	}
	is("while one runs", "1")
	install("lo") // opened again
	if err := alive.forwardOff(); err != nil {
		t.Fatal(err)
	}
	is("after the last", "0")
	if _, err := os.Stat(alive.cfg.Forwarding); err == nil {
		t.Error("the directory is left")
	}
	if err := alive.forwardOff(); err != nil {
		t.Errorf("doing it again: %v", err)
	}
}
