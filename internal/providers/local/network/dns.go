package network

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/shoal-pool/shoal/internal/atmost"
)

// forwarder answers machines' names on the bridge and hands all else to the host's resolvers.
type forwarder struct {
	lookup  func(asker netip.Addr, name string) (netip.Addr, bool)
	log     *slog.Logger
	fixed   []string // asked instead of the host's resolvers; for tests
	servers [2]*dns.Server
	running sync.WaitGroup

	asking *atmost.Limit[netip.Addr] // questions under way, by who asks

	mu      sync.Mutex
	read    time.Time // mtime of resolv.conf when it was read
	resolve []string
}

const (
	resolvConf      = "/etc/resolv.conf"
	maxQuestions    = 256
	maxOfOne        = 64 // questions of one machine: those to which nobody answers must not take all the others' places
	answerTTL       = 5  // seconds: machines come and go
	upstreamTimeout = 4 * time.Second
)

// listenDNS serves on port 53 of an address, UDP and TCP.
func listenDNS(addr netip.Addr, lookup func(netip.Addr, string) (netip.Addr, bool), log *slog.Logger) (*forwarder, error) {
	f := &forwarder{lookup: lookup, log: log, asking: atmost.New[netip.Addr](maxOfOne, maxQuestions)}
	at := netip.AddrPortFrom(addr, 53).String()
	fail := func(err error) error {
		return fmt.Errorf("cannot answer names for machines on %s: %w; "+
			"another name server that takes every address of the host must be told to leave this one out", at, err)
	}
	udp, err := net.ListenPacket("udp4", at)
	if err != nil {
		return nil, fail(err)
	}
	tcp, err := net.Listen("tcp4", at)
	if err != nil {
		return nil, fail(errors.Join(err, udp.Close()))
	}
	f.servers = [2]*dns.Server{{PacketConn: udp, Handler: f}, {Listener: tcp, Handler: f, MaxTCPQueries: 64}}
	for _, s := range f.servers {
		up := make(chan struct{})
		s.NotifyStartedFunc = func() { close(up) }
		failed := make(chan struct{})
		f.running.Go(func() {
			defer close(failed)
			if err := s.ActivateAndServe(); err != nil {
				log.Warn("names for machines are not answered any more", "error", err)
			}
		})
		select { // Shutdown fails on a server that has not started
		case <-up:
		case <-failed:
		}
	}
	return f, nil
}

func (f *forwarder) close() {
	for _, s := range f.servers {
		_ = s.Shutdown() // fails only if it does not run
	}
	f.running.Wait()
}

// ServeDNS answers one question.
func (f *forwarder) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	var asker netip.Addr
	if from, err := netip.ParseAddrPort(w.RemoteAddr().String()); err == nil {
		asker = from.Addr().Unmap()
	}
	answer := f.own(asker, q)
	if answer == nil {
		if !f.asking.Enter(asker) { // too many at once: the asker tries again
			_ = w.Close()
			return
		}
		answer = f.ask(w.RemoteAddr().Network(), q)
		f.asking.Leave(asker)
	}
	fit(answer, q, w.RemoteAddr().Network())
	_ = w.WriteMsg(answer) // the asker may have gone
}

// fit makes an answer as small as the asker needs it. Names came compressed, and were spelt out to be read.
func fit(answer, q *dns.Msg, network string) {
	answer.Compress = true
	if network != "udp" || answer.IsTsig() != nil { // signed, it cannot be cut
		return
	}
	size := dns.MinMsgSize
	if o := q.IsEdns0(); o != nil {
		size = max(size, int(o.UDPSize()))
	}
	answer.Truncate(size)
}

// own answers for the name of a machine, nil for any other.
func (f *forwarder) own(asker netip.Addr, q *dns.Msg) *dns.Msg {
	if len(q.Question) != 1 || q.Opcode != dns.OpcodeQuery || !asker.IsValid() {
		return nil
	}
	name := strings.ToLower(strings.TrimSuffix(q.Question[0].Name, "."))
	addr, ok := f.lookup(asker, name)
	if !ok {
		return nil
	}
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	if t := q.Question[0].Qtype; t == dns.TypeA || t == dns.TypeANY {
		m.Answer = []dns.RR{&dns.A{A: addr.AsSlice(),
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: answerTTL}}}
	}
	return m
}

// ask hands a question to the host's resolvers in turn.
func (f *forwarder) ask(network string, q *dns.Msg) *dns.Msg {
	c := &dns.Client{Net: network, Timeout: upstreamTimeout, UDPSize: dns.MaxMsgSize}
	for _, server := range f.upstreams() {
		if answer, _, err := c.Exchange(q, server); err == nil {
			return answer
		}
	}
	return new(dns.Msg).SetRcode(q, dns.RcodeServerFailure)
}

// upstreams are the host's resolvers, read anew when the file has changed.
func (f *forwarder) upstreams() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fixed != nil {
		return f.fixed
	}
	info, err := os.Stat(resolvConf)
	if err != nil || info.ModTime().Equal(f.read) {
		return f.resolve
	}
	conf, err := dns.ClientConfigFromFile(resolvConf)
	if err != nil {
		return f.resolve
	}
	f.read, f.resolve = info.ModTime(), nil
	for _, s := range conf.Servers {
		f.resolve = append(f.resolve, net.JoinHostPort(s, conf.Port))
	}
	return f.resolve
}
