package app

import (
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/url"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/engine"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/certs"
)

// agents is the door for agents on machines that are not on this host. It has an authority of its own, which each machine is told
// together with its token: what people trust does not come into it.
type agents struct {
	own     *certs.Own
	control engine.Control
}

// makeAgents makes what a listener for agents needs, if there is to be one.
func (a *App) makeAgents() error {
	if a.opts.AgentListen == "" {
		return nil
	}
	u, err := url.Parse(a.opts.AgentURL)
	if err != nil {
		return err
	}
	own, err := certs.FromOwn(a.opts.path("tls", "agents"), []string{u.Hostname()})
	if err != nil {
		return err
	}
	a.agents = agents{own: own, control: engine.Control{URL: a.opts.AgentURL, CA: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: own.CA().Raw}))}}
	return nil
}

// control is how machines of a provider reach this server.
func (a *App) control(provider string) engine.Control {
	if provider == "local" || a.agents.own == nil {
		return engine.Control{URL: controlInMachine}
	}
	return a.agents.control
}

// silentAfter is when a machine that takes nothing is given up: its host has lost its power, or its network. The default is that of
// the kernel, which is a quarter of an hour.
const silentAfter = 45 * time.Second

// listenAgents opens the door, or returns nil if there is to be none.
func (a *App) listenAgents() func() (net.Listener, error) {
	if a.opts.AgentListen == "" {
		return nil
	}
	// Those who come in inherit the limit, which holds for the kernel's own questions, too. A multipath socket does not know it.
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		limit := func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silentAfter.Milliseconds()))
		}
		if e := raw.Control(limit); e != nil {
			return e
		}
		return err
	}}
	lc.SetMultipathTCP(false)
	return func() (net.Listener, error) { return listenTCP(lc, a.opts.AgentListen, "--agent-listen") }
}

func (a *App) agentRuns() []part {
	if a.sockets.Agents == nil {
		return nil
	}
	return []part{{"machines", serve(tls.NewListener(a.sockets.Agents, a.agents.own.TLS()), a.withGateways(a.ledAgents(a.api.Agent())))}}
}

// agentURL is what agents dial where nobody says it: the address on which the server listens, if that is one.
func agentURL(o Options) (string, error) {
	if o.AgentURL != "" {
		u, err := url.Parse(o.AgentURL)
		if o.AgentListen == "" || err != nil || u.Scheme != "https" || u.Host == "" {
			return "", shoal.Errorf(shoal.KindInvalid, "cannot use --agent-url %q", o.AgentURL).
				WithHint("write https://HOST:PORT as machines see it, and --agent-listen for the address that it leads to")
		}
		return o.AgentURL, nil
	}
	if o.AgentListen == "" {
		return "", nil
	}
	host, port, err := net.SplitHostPort(o.AgentListen)
	ip := net.ParseIP(host)
	if err != nil || host == "" || ip.IsUnspecified() || port == "0" {
		return "", shoal.Errorf(shoal.KindInvalid, "cannot know at which address machines reach --agent-listen %q", o.AgentListen).
			WithHint("say it: --agent-url https://HOST:PORT")
	}
	return "https://" + o.AgentListen, nil
}
