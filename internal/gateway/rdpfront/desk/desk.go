package desk

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base32"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/identity"
	"github.com/shoal-pool/shoal/internal/store"
)

// People check passwords; the directory does.
type People interface {
	User(ctx context.Context, name shoal.UserName) (shoal.User, bool)
	// CheckPassword slows down guessers by account and source.
	CheckPassword(ctx context.Context, name shoal.UserName, password, source string) error
}

// Config is what a Desk needs.
type Config struct {
	Store  *store.DB
	Dir    string // for the certificates of pools' desktops, readable by root only
	People People
	// Address is where an endpoint is reached, or empty with why it is not; both are empty if it is not open yet.
	Address func(pool shoal.PoolName, endpoint string) (address, why string)
	Log     *slog.Logger
}

// How long things count.
const (
	signInLife = 12 * time.Hour   // of a source from which somebody has signed in
	ticketLife = 10 * time.Minute // of a ticket that was not used
)

// The bounds of what is remembered; what is oldest goes first.
const (
	maxSignIns    = 5000
	maxTickets    = 2000
	ticketsOfUser = 5
	triesOfVisit  = 5 // wrong passwords, then it must come again
)

// Desk knows who may come to a desktop. Its methods may be called from any goroutine.
type Desk struct {
	cfg Config

	making sync.Mutex // held while a certificate is made

	mu      sync.Mutex // guards what follows; never held while waiting or in the store
	signIns map[signIn]time.Time
	changed bool // signIns, since they were stored
	tickets []ticket
	visits  map[*Visit]struct{}
}

type signIn struct {
	user   shoal.UserName
	source string
}

// ticket lets one source start a machine of a pool for a user, and lets her in once.
type ticket struct {
	signIn
	pool    shoal.PoolName
	expires time.Time
	hash    [sha256.Size]byte
	used    bool // its password
}

// New makes a Desk.
func New(cfg Config) *Desk {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Desk{cfg: cfg, signIns: map[signIn]time.Time{}, visits: map[*Visit]struct{}{}}
}

// Source is what counts as one source: an address; of IPv6 the network of a site. It is empty where there is no address.
func Source(address string) string {
	if ap, err := netip.ParseAddrPort(address); err == nil {
		address = ap.Addr().String()
	}
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return ""
	}
	ip = ip.Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	return netip.PrefixFrom(ip, 64).Masked().String()
}

// SignedIn notes that a user has proved who she is from an address.
func (d *Desk) SignedIn(user shoal.UserName, address string) {
	source := Source(address)
	if source == "" {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key, now := signIn{user, source}, time.Now()
	// What is stored may be some minutes behind: it counts for hours.
	d.changed = d.changed || now.Sub(d.signIns[key]) > ticketLife
	d.signIns[key] = now
	for len(d.signIns) > maxSignIns {
		oldest, first := signIn{}, time.Time{}
		for k, at := range d.signIns {
			if first.IsZero() || at.Before(first) {
				oldest, first = k, at
			}
		}
		delete(d.signIns, oldest)
	}
}

// Issue makes a ticket for a user who has proved who she is. Its password is told once and kept as a hash.
func (d *Desk) Issue(user shoal.UserName, pool shoal.PoolName, source string) (password string, expires time.Time) {
	raw := make([]byte, 15)
	rand.Read(raw) // never fails since Go 1.24
	password = strings.ToLower(base32.StdEncoding.EncodeToString(raw))
	now := time.Now()
	t := ticket{signIn: signIn{user, source}, pool: pool, expires: now.Add(ticketLife), hash: sha256.Sum256([]byte(password))}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweep(now)
	hers := 0
	for i := len(d.tickets) - 1; i >= 0; i-- {
		if d.tickets[i].user == user {
			if hers++; hers >= ticketsOfUser {
				d.tickets = slices.Delete(d.tickets, i, i+1)
			}
		}
	}
	if len(d.tickets) >= maxTickets {
		d.tickets = slices.Delete(d.tickets, 0, 1)
	}
	d.tickets = append(d.tickets, t)
	return password, t.expires
}

// sweep drops what counts no more. The caller holds mu.
func (d *Desk) sweep(now time.Time) {
	d.tickets = slices.DeleteFunc(d.tickets, func(t ticket) bool { return !now.Before(t.expires) })
	for k, at := range d.signIns {
		if now.Sub(at) >= signInLife {
			delete(d.signIns, k)
			d.changed = true
		}
	}
}

// Recent are the users who have lately signed in from an address, or asked to come from there, the latest first.
func (d *Desk) Recent(address string) []shoal.UserName {
	source := Source(address)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sweep(time.Now())
	return d.recent(source, "")
}

// recent is Recent with the tickets of one pool, or of all. The caller holds mu.
func (d *Desk) recent(source string, pool shoal.PoolName) []shoal.UserName {
	latest := map[shoal.UserName]time.Time{}
	for k, at := range d.signIns {
		if k.source == source {
			latest[k.user] = at
		}
	}
	for _, t := range d.tickets {
		at := t.expires.Add(-ticketLife)
		if t.source == source && (pool == "" || t.pool == pool) && at.After(latest[t.user]) {
			latest[t.user] = at
		}
	}
	var users []shoal.UserName
	for u := range latest {
		users = append(users, u)
	}
	slices.SortFunc(users, func(a, b shoal.UserName) int {
		if c := latest[b].Compare(latest[a]); c != 0 {
			return c
		}
		return strings.Compare(string(a), string(b))
	})
	return users
}

// Visit is one connection that is led to a machine.
type Visit struct {
	User    shoal.UserName
	Pool    shoal.PoolName
	Machine shoal.MachineID
	Source  string // the client's address
	// Active tells when the client said something last. Wrong is called when a password was wrong. Both must return at once.
	Active func() time.Time
	Wrong  func()

	proved chan struct{}
	wrong  int
	isIn   bool
}

// Attend makes a visit known until it leaves. Proved is closed once the user has shown her password.
func (d *Desk) Attend(v *Visit) (proved <-chan struct{}, leave func()) {
	v.proved = make(chan struct{})
	d.mu.Lock()
	defer d.mu.Unlock()
	d.visits[v] = struct{}{}
	return v.proved, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.visits, v)
	}
}

// Check returns nil if a password is the user's, asked by the machine that she was led to. It is KindUnauthenticated
// if it is not, or nobody was led there, and KindExhausted if too many were wrong.
func (d *Desk) Check(ctx context.Context, machine shoal.MachineID, user shoal.UserName, password string) error {
	v := d.pending(machine, user)
	if v == nil {
		d.cfg.Log.Warn("a machine asks for a password of somebody who was not led there, or has guessed too often", "machine", machine, "user", clip(string(user)))
		return identity.Denied()
	}
	if u, ok := d.cfg.People.User(ctx, user); !ok || u.Disabled {
		return identity.Denied()
	}
	if !d.redeem(v, password) {
		if err := d.cfg.People.CheckPassword(ctx, user, password, v.Source); err != nil {
			if shoal.KindOf(err) == shoal.KindUnauthenticated {
				d.mu.Lock()
				v.wrong++
				d.mu.Unlock()
				v.Wrong()
			}
			d.cfg.Log.Info("a password for a desktop was not taken", "user", user, "machine", machine, "source", v.Source, "error", err)
			return err
		}
	}
	v, sure := d.shown(v)
	if sure {
		d.SignedIn(user, v.Source)
	}
	return nil
}

// shown lets the visit in by which a user has shown her password. The machine does not say which one that is: it is the one in which
// something was typed last, but a stranger who says her name may type all the time. Where others come from elsewhere it is one from where
// she is known to come; sure is false if there is none such.
func (d *Desk) shown(typed *Visit) (v *Visit, sure bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, sure = typed, true
	known := d.knows(typed)
	for other := range d.visits {
		if other == typed || other.Machine != typed.Machine || other.User != typed.User || other.isIn || Source(other.Source) == Source(typed.Source) {
			continue
		}
		if sure = known; !known && d.knows(other) {
			v, known, sure = other, true, true
		}
	}
	if !v.isIn {
		v.isIn = true
		close(v.proved)
	}
	return v, sure
}

// knows reports whether a visit comes from where its user has shown who she is. The caller holds mu.
func (d *Desk) knows(v *Visit) bool {
	return slices.Contains(d.recent(Source(v.Source), v.Pool), v.User)
}

// pending finds the visit for which a password is asked: of several, that in which something was typed last.
func (d *Desk) pending(machine shoal.MachineID, user shoal.UserName) *Visit {
	d.mu.Lock()
	defer d.mu.Unlock()
	var found *Visit
	for v := range d.visits {
		if v.Machine == machine && v.User == user && !v.isIn && v.wrong < triesOfVisit &&
			(found == nil || v.Active().After(found.Active())) {
			found = v
		}
	}
	return found
}

// redeem takes a ticket's password, once.
func (d *Desk) redeem(v *Visit, password string) bool {
	hash := sha256.Sum256([]byte(password))
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	good := -1
	for i, t := range d.tickets {
		if t.user == v.User && t.pool == v.Pool && !t.used && now.Before(t.expires) && subtle.ConstantTimeCompare(t.hash[:], hash[:]) == 1 {
			good = i
		}
	}
	if good < 0 {
		return false
	}
	d.tickets[good].used = true
	return true
}

func clip(s string) string {
	const longest = 64
	if len(s) > longest {
		s = s[:longest] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}
