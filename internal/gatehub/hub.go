package gatehub

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"math"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/atmost"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/route"
	"github.com/shoal-pool/shoal/internal/store"
)

// Sessions keeps the parts of gateways; the broker does.
type Sessions interface {
	Hold(ctx context.Context, gateway string, held []route.Held, underWay []string) (map[shoal.SessionID]route.Watch, error)
	Gateways(ctx context.Context) (map[string]int, error)
	Lost(ctx context.Context, gateway string) error
	ClosedPart(ctx context.Context, part string) error
}

// Router says where logins go; it is that of package gateway.
type Router interface {
	Login(ctx context.Context, r route.Request, part string, progress func(string)) (route.Target, error)
	Closed(session shoal.SessionID, part string)
	Suspect(machine shoal.MachineID)
}

// Config is what a Hub needs. All fields but CA, Log, Environ and Dial must be set.
type Config struct {
	Store    *store.DB
	Key      []byte        // 32 bytes: tokens are HMACs of it
	Own      ssh.PublicKey // with which this server's own gateway signs
	HostKey  func() (string, error)
	HostCA   ssh.PublicKey
	CA       string // PEM of the authority by which gateways know this server, if it has one of its own
	Sessions Sessions
	Router   Router
	// Password reports whether a password is a user's, and slows guessers down.
	Password func(ctx context.Context, name shoal.UserName, password, source string) error
	Environ  func(ctx context.Context, user shoal.UserName, pool shoal.PoolName) api.GatewayEnviron
	Dial     func(ctx context.Context, machine shoal.MachineID, address string) (net.Conn, error)
	// Trusted returns once a machine's agent has put into effect what was stored at a revision, or when ctx ends.
	Trusted func(ctx context.Context, machine shoal.MachineID, rev shoal.Rev) error
	Log     *slog.Logger
}

const (
	// grace is after which time without a report a gateway is lost.
	grace = time.Minute
	// lookEvery is how often it is looked for gateways that are lost.
	lookEvery = 5 * time.Second
	// mostGateways bounds how many there are.
	mostGateways = 100
)

// Hub is where gateways call. Its methods may be called from any goroutine.
type Hub struct {
	cfg     Config
	started time.Time

	logins *atmost.Limit[api.GatewayName] // under way

	mu     sync.Mutex // guards what follows; never held while waiting or in the store
	links  map[api.GatewayName]*link
	heard  map[api.GatewayName]time.Time // the latest report
	names  []api.GatewayName             // that have enrolled
	keys   []string                      // theirs, behind that of this server's own
	view   *view
	news   chan struct{} // closed when view changes
	wanted chan struct{} // wakes Run: somebody wants a view
}

// New makes a Hub. Run makes it work.
func New(cfg Config) *Hub {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Environ == nil {
		cfg.Environ = func(context.Context, shoal.UserName, shoal.PoolName) (e api.GatewayEnviron) { return e }
	}
	return &Hub{cfg: cfg, started: time.Now(), links: map[api.GatewayName]*link{}, heard: map[api.GatewayName]time.Time{},
		keys: []string{line(cfg.Own)}, news: make(chan struct{}), wanted: make(chan struct{}, 1), logins: atmost.New[api.GatewayName](mostLogins, math.MaxInt)}
}

func line(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }

// Keys are the signing keys of all gateways, authorized_keys form, that of this server's own first.
func (h *Hub) Keys() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.keys)
}

// Load reads which gateways there are, so that Keys are right. It is done before anybody asks for them, and whenever that changes.
func (h *Hub) Load(ctx context.Context) error {
	var all []api.Gateway
	err := h.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		all, err = tx.Gateways().List()
		return err
	})
	if err != nil {
		return fmt.Errorf("cannot read the gateways: %w", err)
	}
	var names []api.GatewayName
	keys := []string{line(h.cfg.Own)}
	for _, g := range all {
		if g.Key != "" {
			names, keys = append(names, g.Name), append(keys, g.Key)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.names, h.keys = names, keys
	return nil
}

// Add makes a place for a gateway and the token with which it enrols. An earlier one of that name that has not enrolled is
// replaced.
func (h *Hub) Add(ctx context.Context, by access.Subject, req api.AddGateway) (none api.GatewayToken, err error) {
	if err := access.Check(by, access.Apply, access.Object{Kind: access.ObjectGateway, Name: string(req.Name)}); err != nil {
		return none, err
	}
	if err := validName(req.Name); err != nil {
		return none, err
	}
	life := cmp.Or(time.Duration(req.For), defaultLife)
	if life < time.Minute || life > maxLife {
		return none, shoal.Errorf(shoal.KindInvalid, "cannot make an enrolment token that is good for %s", req.For).
			WithHint("say a time from 1m to %s", shoal.Duration(maxLife))
	}
	var g api.Gateway
	err = h.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		all, err := tx.Gateways().List()
		if err != nil {
			return err
		}
		at := slices.IndexFunc(all, func(g api.Gateway) bool { return g.Name == req.Name })
		switch {
		case at >= 0 && all[at].Key != "":
			return shoal.Errorf(shoal.KindConflict, "gateway %s has enrolled already", req.Name).
				WithHint("if it is to begin anew, remove it first: shoal gateway remove %s", req.Name)
		case at >= 0:
			if err := tx.Gateways().Delete(req.Name); err != nil {
				return err
			}
		case len(all) >= mostGateways:
			return shoal.Errorf(shoal.KindExhausted, "there are %d gateways", len(all)).WithHint("remove those that are no more: shoal gateway list")
		}
		g, err = tx.Gateways().Insert(api.Gateway{Name: req.Name, Until: time.Now().Add(life).UTC().Truncate(time.Second)})
		event(tx, g.Name, "gatewayAdded", fmt.Sprintf("a gateway may enrol as %s until %s", g.Name, g.Until.Format("2006-01-02 15:04 MST")))
		return err
	})
	return api.GatewayToken{Token: h.enrolToken(g) + "\n" + h.cfg.CA, Until: g.Until}, err
}

const (
	defaultLife = time.Hour
	maxLife     = 7 * 24 * time.Hour
)

func validName(name api.GatewayName) error {
	ok := name != "" && len(name) <= 40
	for i, c := range []byte(name) {
		ok = ok && ('a' <= c && c <= 'z' || '0' <= c && c <= '9' || i > 0 && c == '-')
	}
	if !ok {
		return shoal.Errorf(shoal.KindInvalid, "cannot call a gateway %q", clip(string(name), 60)).
			WithHint("its name is up to 40 of a to z, 0 to 9 and -, as in edge-1")
	}
	return nil
}

func event(tx *store.Tx, name api.GatewayName, code, sentence string) {
	tx.Event(shoal.Event{Kind: access.ObjectGateway, Name: string(name), Code: code, Sentence: sentence})
}

// List tells all gateways and how they are.
func (h *Hub) List(ctx context.Context, by access.Subject) ([]api.Gateway, error) {
	if err := access.Check(by, access.View, access.Object{Kind: access.ObjectGateway}); err != nil {
		return nil, err
	}
	var all []api.Gateway
	err := h.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		all, err = tx.Gateways().List()
		return err
	})
	if err != nil {
		return nil, err
	}
	parts, err := h.cfg.Sessions.Gateways(ctx)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range all {
		g := &all[i]
		g.Connections, g.Heard = parts[string(g.Name)], h.heard[g.Name]
		switch {
		case g.Key == "":
			g.State = "awaited"
		case h.links[g.Name] != nil:
			g.State = "connected"
		default:
			g.State = "silent"
		}
	}
	return all, err
}

// Remove forgets a gateway: no machine trusts its key any more, its connections are off the record, and it is let in nowhere.
func (h *Hub) Remove(ctx context.Context, by access.Subject, name api.GatewayName) error {
	if err := access.Check(by, access.Delete, access.Object{Kind: access.ObjectGateway, Name: string(name)}); err != nil {
		return err
	}
	err := h.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		event(tx, name, "gatewayRemoved", fmt.Sprintf("gateway %s was removed: machines do not trust its key any more", name))
		return tx.Gateways().Delete(name)
	})
	if err != nil {
		return err
	}
	h.mu.Lock()
	l := h.links[name]
	h.mu.Unlock()
	if l != nil {
		l.cancel(unknown())
	}
	if err := h.Load(ctx); err != nil {
		return err
	}
	return h.cfg.Sessions.Lost(ctx, string(name))
}

// Run follows the store for gateways that are connected, and gives up those that are lost, until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	defer parts.Wait()
	parts.Go(func() { h.follow(ctx) })
	tries := retry.New(h.cfg.Log, "gateways")
	for retry.Sleep(ctx, lookEvery) == nil {
		tries.Do(ctx, "look for lost gateways", h.giveUp)
	}
	return ctx.Err()
}

// giveUp closes the parts of gateways that have not been heard of for a grace, which begins with this server.
func (h *Hub) giveUp(ctx context.Context) error {
	h.mu.Lock()
	missed := time.Since(h.started) < 2*grace // parts of who is not on record any more are seen now or never
	for _, name := range h.names {
		missed = missed || time.Since(h.heard[name]) >= grace
	}
	h.mu.Unlock()
	if !missed {
		return nil
	}
	all, err := h.cfg.Sessions.Gateways(ctx)
	if err != nil {
		return err
	}
	for name, parts := range all {
		h.mu.Lock()
		heard := h.heard[api.GatewayName(name)]
		h.mu.Unlock()
		if heard.IsZero() {
			heard = h.started
		}
		if time.Since(heard) < grace {
			continue
		}
		h.cfg.Log.Warn("a gateway is not heard of any more; its connections are taken off the record", "gateway", name, "connections", parts)
		if err := h.cfg.Sessions.Lost(ctx, name); err != nil {
			return err
		}
		if err := h.cfg.Store.Update(ctx, func(tx *store.Tx) error {
			event(tx, api.GatewayName(name), "gatewayLost", fmt.Sprintf("gateway %s has not been heard of since %s: its connections (%d) are taken off the record; they may go on",
				name, heard.UTC().Format("15:04:05 MST"), parts))
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

// Gone tells that a machine exists no more.
func (h *Hub) Gone(id shoal.MachineID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, l := range h.links {
		l.queue(api.GatewayRecord{Gone: []shoal.MachineID{id}})
	}
}

// Dialed connects to the sshd of a machine for a gateway that has a connection there.
func (h *Hub) Dialed(ctx context.Context, name api.GatewayName, id shoal.MachineID) (net.Conn, error) {
	var address string
	err := h.cfg.Store.View(ctx, func(tx *store.Tx) error {
		sessions, err := tx.LiveSessionsOn(id)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(sessions, func(s shoal.Session) bool { return holds(name, s) }) {
			return shoal.Errorf(shoal.KindDenied, "gateway %s has nobody on machine %q", name, clip(string(id), 60))
		}
		m, err := tx.Machines().Get(id)
		address = m.Address
		return err
	})
	if err != nil {
		return nil, err
	}
	if h.cfg.Dial == nil {
		return nil, shoal.Errorf(shoal.KindNotFound, "this server reaches no machines")
	}
	return h.cfg.Dial(ctx, id, address)
}

// holds reports whether a gateway has a part of a session.
func holds(name api.GatewayName, s shoal.Session) bool {
	return slices.ContainsFunc(s.Parts, func(p shoal.Part) bool { return route.GatewayOf(p.ID) == string(name) })
}

func clip(s string, limit int) string {
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
