package app

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/batch/fence"
	"github.com/shoal-pool/shoal/provider"
)

// Options are what `shoal serve` can be told. The zero value of a field means its default.
type Options struct {
	Data      string // the data directory; default /var/lib/shoal
	Database  string // a PostgreSQL that other servers may use too, postgres://…; default a file in Data
	Listen    string // the API for tokens; default 127.0.0.1:7420
	SSHListen string // the gateway; default 127.0.0.1:2222
	// AgentListen is where agents of machines come in that are not on this host; default: nowhere. AgentURL is how those
	// machines write it; default https:// and AgentListen.
	AgentListen, AgentURL string
	// EndpointHost is on which address the ports of pools' rdp and tcp endpoints are opened; default that of SSHListen.
	EndpointHost string
	// Role is what this process does: control,gateway, the default; control, which leaves ssh to gateways elsewhere, SSHListen being
	// where people find these; or gateway, which has of all that is here only Data, SSHListen, Linger, Log and what follows.
	Role       string
	Servers    []string      // of a gateway: the URLs of its control plane
	TokenFile  string        // with what it enrols
	OfflineFor time.Duration // for how long it lets people in without its control plane; default an hour
	Subnet     string        // of local machines; default the first free /20 of 100.64.0.0/10
	// Programs are the executables that may make machines: paths, which pools name exec:PATH, or kubernetes or azure, for which
	// the executable lies in BinDir.
	Programs []string
	GPURoot  string // where the GPUs' device nodes and driver lie; default /
	BinDir   string // where shoal-agent and shoal lie; default the directory of this program
	// MountHelper is this program, if it calls mounts.Child first; empty: there are no network shares.
	MountHelper string
	// KeepHistory is for how long what has ended is kept: jobs, sessions, machines, events; default 90 days.
	KeepHistory time.Duration
	// Linger is for how long ssh connections go on, without anything else, once the server is told to end or another leads.
	Linger time.Duration
	// TaskLease is for how long tasks run on without an answer of the server; default 5 minutes, which is the most.
	TaskLease time.Duration
	OutputCap shoal.Bytes // kept of each stream of a task; default 1 GiB
	Web       Web
	Version   string
	Log       *slog.Logger

	// Boot is clock.Config's: which boot of the host this is. Nil: nothing is known of the clock of earlier processes.
	Boot func() (id string, up time.Duration, err error)

	// For tests of the whole: what would otherwise be made from the addresses above.
	Listeners Listeners
	Providers map[string]provider.Provider // by the name that pools give; nil: the local one
	Dial      func(ctx context.Context, network, address string) (net.Conn, error)
}

// Listeners are the doors of a server. Those that are nil are opened by address.
type Listeners struct {
	Control net.Listener // the API for tokens
	Local   net.Listener // the API for this host's root
	Agent   net.Listener // what agents on this host dial
	Agents  net.Listener // what agents elsewhere dial, by TLS; only where there is an address for it
	SSH     net.Listener // the gateway
	HTTPS   net.Listener // the gateway, for browsers
	HTTP    net.Listener // sends browsers to HTTPS; only where there is an address for it, as CHP
	CHP     net.Listener // the API of configurable-http-proxy
}

// DefaultData is the data directory of a host's own installation.
const DefaultData = "/var/lib/shoal"

const (
	defaultListen    = "127.0.0.1:7420"
	defaultSSHListen = "127.0.0.1:2222"
	bothRoles        = "control,gateway"
	roleControl      = "control"
	roleGateway      = "gateway"
	defaultOffline   = time.Hour
	defaultKeep      = 90 * 24 * time.Hour
)

// withDefaults fills in what was not said and refuses what cannot be.
func (o Options) withDefaults() (Options, error) {
	for _, d := range []struct {
		field *string
		value string
	}{{&o.Data, DefaultData}, {&o.Listen, defaultListen}, {&o.Role, bothRoles}} {
		if *d.field == "" {
			*d.field = d.value
		}
	}
	if o.Role == "gateway,control" {
		o.Role = bothRoles
	}
	if o.Role != bothRoles && o.Role != roleControl && o.Role != roleGateway {
		return o, shoal.Errorf(shoal.KindInvalid, "cannot serve the role %q", o.Role).
			WithHint("there are control, gateway, and both: control,gateway")
	}
	if o.Role != roleControl && o.SSHListen == "" {
		o.SSHListen = defaultSSHListen
	}
	if o.OfflineFor <= 0 {
		o.OfflineFor = defaultOffline
	}
	for _, l := range []struct{ flag, address string }{{"--listen", o.Listen}, {"--ssh-listen", o.SSHListen}} {
		if l.address == "" {
			continue
		}
		if _, _, err := net.SplitHostPort(l.address); err != nil {
			return o, shoal.Errorf(shoal.KindInvalid, "cannot use %s %q: %w", l.flag, l.address, err).
				WithHint("write HOST:PORT, as in 127.0.0.1:2222")
		}
	}
	var err error
	if o.AgentURL, err = agentURL(o); err != nil {
		return o, err
	}
	if o.Web, err = o.Web.withDefaults(); err != nil {
		return o, err
	}
	if o.EndpointHost == "" {
		o.EndpointHost, _, _ = net.SplitHostPort(cmp.Or(o.SSHListen, defaultSSHListen))
	}
	data, err := filepath.Abs(o.Data)
	if err != nil {
		return o, err
	}
	o.Data = data
	if strings.ContainsAny(o.Data, ":,\\") {
		return o, shoal.Errorf(shoal.KindInvalid, "cannot use %q as the data directory: overlay mounts allow no colon, comma or backslash in it", o.Data)
	}
	if o.BinDir == "" {
		self, err := os.Executable()
		if err != nil {
			return o, err
		}
		o.BinDir = filepath.Dir(self)
	}
	if o.TaskLease != 0 && (o.TaskLease < fence.Shortest || o.TaskLease > fence.Longest) {
		return o, shoal.Errorf(shoal.KindInvalid, "cannot use --task-lease %s", shoal.Duration(o.TaskLease)).
			WithHint("it is between %s and %s", shoal.Duration(fence.Shortest), shoal.Duration(fence.Longest))
	}
	if o.KeepHistory <= 0 {
		o.KeepHistory = defaultKeep
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// Paths below the data directory.
func (o Options) path(elem ...string) string {
	return filepath.Join(append([]string{o.Data}, elem...)...)
}
