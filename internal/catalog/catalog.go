package catalog

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/store"
)

// Checker knows what the world allows: whether a pool could work on its provider with these shares,
// and whether a user clashes with what is already there. The engine is one.
type Checker interface {
	CheckPool(ctx context.Context, pool shoal.Pool, shares []shoal.Share) error
	CheckUser(ctx context.Context, user shoal.User) error
}

// Passwords sets passwords; the built-in directory does.
type Passwords interface {
	SetPassword(ctx context.Context, name shoal.UserName, password string) error
}

// Config is what a Catalog needs.
type Config struct {
	Store     *store.DB
	Check     Checker
	Passwords Passwords
	// EndSession and CancelJob end what a user has who is disabled.
	EndSession func(context.Context, shoal.SessionID) error
	CancelJob  func(context.Context, shoal.JobID) error
	Wake       func() // wakes the engine; may be nil
	Log        *slog.Logger
}

// Catalog keeps the objects. Its methods may be called from any goroutine.
type Catalog struct{ cfg Config }

// New makes a Catalog.
func New(cfg Config) *Catalog {
	if cfg.Wake == nil {
		cfg.Wake = func() {}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Catalog{cfg: cfg}
}

// Apply creates the objects of a request that are not there and changes those that differ. All of
// it happens or nothing: mistakes are KindInvalid and listed, all at once; KindConflict, where nothing is wrong but that
// something is in another state now. With DryRun nothing happens, and the answer is the same.
//
// A user who is disabled stays disabled, whatever is applied: enabling is an act of its own.
func (c *Catalog) Apply(ctx context.Context, by access.Subject, req api.ApplyRequest) (api.ApplyResult, error) {
	if err := mayApply(by, req); err != nil {
		return api.ApplyResult{}, err
	}
	return c.apply(ctx, by, req, false)
}

func mayApply(by access.Subject, req api.ApplyRequest) error {
	for _, k := range []struct {
		kind shoal.ObjectKind
		n    int
	}{{shoal.ObjectShare, len(req.Shares)}, {shoal.ObjectGroup, len(req.Groups)}, {shoal.ObjectUser, len(req.Users)}, {shoal.ObjectPool, len(req.Pools)}} {
		if k.n == 0 {
			continue
		}
		if err := access.Check(by, access.Apply, access.Object{Kind: k.kind}); err != nil {
			return err
		}
	}
	return nil
}

func (c *Catalog) apply(ctx context.Context, by access.Subject, req api.ApplyRequest, create bool) (api.ApplyResult, error) {
	if err := complete(&req); err != nil {
		return api.ApplyResult{}, err
	}
	var p *plan
	err := c.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		p, err = makePlan(tx, req, create)
		return err
	})
	if err != nil {
		return api.ApplyResult{}, err
	}
	if err := c.askWorld(ctx, p); err != nil {
		return api.ApplyResult{}, err
	}
	if req.DryRun || !p.changes() {
		return p.result(), nil
	}
	err = c.cfg.Store.Update(ctx, func(tx *store.Tx) (err error) {
		// Made again: the world may have changed since, and only this transaction counts.
		if p, err = makePlan(tx, req, create); err != nil {
			return err
		}
		return p.carryOut(tx, by)
	})
	if err != nil {
		return api.ApplyResult{}, err
	}
	c.cfg.Wake()
	for _, name := range p.disabled {
		if err := c.endAll(ctx, name); err != nil {
			return p.result(), err
		}
	}
	return p.result(), nil
}

// askWorld asks about each object that is new or changed, and gathers what is refused.
func (c *Catalog) askWorld(ctx context.Context, p *plan) error {
	var m mistakes
	for _, u := range p.users {
		if u.action == unchanged {
			continue
		}
		if err := c.cfg.Check.CheckUser(ctx, u.now); err != nil && !m.refused(shoal.ObjectUser, string(u.now.Name), err) {
			return err
		}
	}
	shares := p.allShares()
	for _, pool := range p.touchedPools() {
		if err := c.cfg.Check.CheckPool(ctx, pool, shares); err != nil && !m.refused(shoal.ObjectPool, string(pool.Name), err) {
			return err
		}
	}
	return m.err()
}

// mistakes gathers what is wrong with a request. The path of each begins with its object.
type mistakes struct {
	all    []shoal.Mistake
	states int // how many of them are about the state that something is in, and not about what was written
}

func (m *mistakes) wrong(kind shoal.ObjectKind, name, path, hint, format string, args ...any) {
	m.all = append(m.all, shoal.Mistake{Path: pathOf(kind, name, path), Msg: fmt.Sprintf(format, args...), Hint: hint})
}

// conflict is like wrong, of something that is in another state than it would have to be.
func (m *mistakes) conflict(kind shoal.ObjectKind, name, path, hint, format string, args ...any) {
	m.states++
	m.wrong(kind, name, path, hint, format, args...)
}

func pathOf(kind shoal.ObjectKind, name, path string) string {
	s := strings.ToLower(string(kind)) + " " + name
	if path != "" {
		s += ": " + path
	}
	return s
}

// refused takes an error that means that the object cannot be; others are not about the object.
func (m *mistakes) refused(kind shoal.ObjectKind, name string, err error) bool {
	switch shoal.KindOf(err) {
	case shoal.KindInvalid, shoal.KindConflict, shoal.KindNotFound, shoal.KindDenied:
		said := strings.TrimPrefix(err.Error(), pathOf(kind, name, "")+" ") // the path says it
		add := m.wrong
		if shoal.KindOf(err) == shoal.KindConflict {
			add = m.conflict
		}
		add(kind, name, "", shoal.HintOf(err), "%s", said)
		return true
	}
	return false
}

func (m *mistakes) err() error {
	switch len(m.all) {
	case 0:
		return nil
	case m.states:
		err := shoal.Errorf(shoal.KindConflict, "cannot apply this as things are now")
		err.Mistakes = m.all
		return err
	}
	return spec.Invalid(m.all)
}

// complete fills in defaults and checks each object by itself: they may have come by the API, not
// from a file that was checked.
func complete(req *api.ApplyRequest) error {
	var m mistakes
	req.Shares = slices.Clone(req.Shares)
	seen := map[string]bool{}
	for i := range req.Shares {
		spec.DefaultShare(&req.Shares[i])
		m.own(seen, shoal.ObjectShare, string(req.Shares[i].Name), spec.CheckShare(req.Shares[i]))
	}
	for _, g := range req.Groups {
		m.own(seen, shoal.ObjectGroup, string(g.Name), spec.CheckGroup(g))
	}
	req.Users = slices.Clone(req.Users)
	for i := range req.Users {
		u := &req.Users[i]
		spec.DefaultUser(u)
		m.own(seen, shoal.ObjectUser, string(u.Name), spec.CheckUser(*u))
		for k, line := range u.Keys {
			if err := checkKey(line); err != nil {
				m.wrong(shoal.ObjectUser, string(u.Name), fmt.Sprintf("keys[%d]", k), shoal.HintOf(err), "%s", err)
			}
		}
	}
	req.Pools = slices.Clone(req.Pools)
	for i := range req.Pools {
		spec.DefaultPool(&req.Pools[i])
		m.own(seen, shoal.ObjectPool, string(req.Pools[i].Name), spec.CheckPool(req.Pools[i]))
	}
	return m.err()
}

// own takes the mistakes of one object, and refuses a second one of its kind and name.
func (m *mistakes) own(seen map[string]bool, kind shoal.ObjectKind, name string, found []shoal.Mistake) {
	for _, f := range found {
		f.Path = pathOf(kind, name, f.Path)
		m.all = append(m.all, f)
	}
	key := string(kind) + " " + name
	if seen[key] {
		m.wrong(kind, name, "", "", "it is there twice")
	}
	seen[key] = true
}
