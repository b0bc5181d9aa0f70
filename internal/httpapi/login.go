package httpapi

import (
	"net/netip"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/identity"
)

// tokenLife is how long a login lasts.
const tokenLife = 30 * 24 * time.Hour

func (a *API) login(c *call, req api.LoginRequest) (api.LoginResponse, error) {
	var resp api.LoginResponse
	from := source(c.req)
	if c.by.Machine != "" {
		from = "machine " + string(c.by.Machine)
	}
	if wait := a.guesses.wait(from, time.Now()); wait > 0 {
		return resp, identity.TooMany(wait)
	}
	err := a.prove(c, req, from, &resp)
	if shoal.KindOf(err) == shoal.KindUnauthenticated {
		a.guesses.wrong(from, time.Now())
	}
	if err != nil || resp.Challenge != "" {
		return resp, err
	}
	resp.Token, resp.Expires, err = a.cfg.People.IssueToken(c.ctx, req.User, tokenLife)
	return resp, err
}

// prove returns nil if the caller has proved to be the user, or has been given a challenge to do so.
func (a *API) prove(c *call, req api.LoginRequest, from string, resp *api.LoginResponse) error {
	switch {
	case req.User == "":
		return shoal.Errorf(shoal.KindInvalid, "cannot sign in: the request names no user")
	case req.Password != "" && (req.Key != "" || req.Signature != ""):
		return shoal.Errorf(shoal.KindInvalid, "cannot sign in with a password and a key at once")
	case req.Password != "":
		return a.cfg.People.CheckPassword(c.ctx, req.User, req.Password, from)
	case req.Signature != "":
		return a.cfg.People.VerifySignature(c.ctx, req.User, req.Challenge, req.Signature)
	case req.Key != "":
		// Whether it is a key of hers is not told before she has signed.
		resp.Challenge = a.cfg.People.Challenge(c.ctx, req.User)
		return nil
	}
	return shoal.Errorf(shoal.KindInvalid, "cannot sign in without a password or a key").
		WithHint("send a password, or the public key of one to be challenged")
}

// guesses slows down sources that prove to be nobody, whatever they try. It is coarser than the brake of the
// directory, which knows accounts: so many failures in a quarter of an hour, then a pause.
type guesses struct {
	mu   sync.Mutex
	from map[string]*failures
}

type failures struct {
	n     int
	since time.Time
	until time.Time
}

const (
	maxFailures = 20
	failureSpan = 15 * time.Minute
	failureRest = 30 * time.Second
	maxSources  = 10_000
)

func newGuesses() *guesses { return &guesses{from: map[string]*failures{}} }

// host is a source without its port; of IPv6 the network that one subscriber has.
func host(source string) string {
	ap, err := netip.ParseAddrPort(source)
	if err != nil {
		return source
	}
	addr := ap.Addr().Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	return netip.PrefixFrom(addr, 64).Masked().String()
}

func (g *guesses) wait(source string, now time.Time) time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	f := g.from[host(source)]
	if f == nil {
		return 0
	}
	return max(f.until.Sub(now), 0)
}

func (g *guesses) wrong(source string, now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := host(source)
	f := g.from[key]
	if f == nil || now.Sub(f.since) > failureSpan {
		f = &failures{since: now}
		g.from[key] = f
	}
	if f.n++; f.n >= maxFailures {
		f.until = now.Add(failureRest)
	}
	for k, old := range g.from { // in random order
		if len(g.from) <= maxSources {
			break
		}
		if old != f {
			delete(g.from, k)
		}
	}
}
