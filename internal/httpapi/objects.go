package httpapi

import (
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/httpapi/rest"
	"github.com/shoal-pool/shoal/internal/store"
)

func (a *API) version(*call) (api.Version, error) {
	return api.Version{Version: a.cfg.Version, Go: runtime.Version(), SSH: a.cfg.SSH()}, nil
}

func (a *API) serveOpenAPI(c *call) error {
	c.W.Header().Set("Content-Type", "application/json")
	_, err := c.W.Write(a.openapi)
	return rest.Ended(err)
}

func (a *API) whoami(c *call) (api.Whoami, error) {
	w := api.Whoami{User: c.By.User, Role: c.By.Rights(), Machine: c.By.Machine}
	if w.Machine == "" {
		return w, nil
	}
	err := a.cfg.Store.View(c.Ctx, func(tx *store.Tx) error {
		m, err := tx.Machines().Get(w.Machine)
		w.Pool = m.Pool
		return err
	})
	return w, err
}

func (a *API) apply(c *call, req api.ApplyRequest) (api.ApplyResult, error) {
	return a.cfg.Catalog.Apply(c.Ctx, c.By, req)
}

// one applies one object that the path names. rev is where its revision is, for If-Match.
func (a *API) one(c *call, name *string, rev *shoal.Rev, req func() api.ApplyRequest) (api.Change, error) {
	var none api.Change
	if *name == "" {
		*name = c.Name("name")
	}
	if *name != c.Name("name") {
		return none, shoal.Errorf(shoal.KindInvalid, "the object is named %q and the path %q", *name, c.Name("name"))
	}
	match, err := c.IfMatch()
	if err != nil {
		return none, err
	}
	*rev = match
	res, err := a.cfg.Catalog.Apply(c.Ctx, c.By, req())
	if err != nil || len(res.Changes) != 1 {
		return none, err
	}
	return res.Changes[0], nil
}

func (a *API) putPool(c *call, p shoal.Pool) (api.Change, error) {
	return a.one(c, (*string)(&p.Name), &p.Rev, func() api.ApplyRequest { return api.ApplyRequest{Pools: []shoal.Pool{p}} })
}

func (a *API) putShare(c *call, s shoal.Share) (api.Change, error) {
	return a.one(c, (*string)(&s.Name), &s.Rev, func() api.ApplyRequest { return api.ApplyRequest{Shares: []shoal.Share{s}} })
}

func (a *API) putGroup(c *call, g shoal.Group) (api.Change, error) {
	return a.one(c, (*string)(&g.Name), &g.Rev, func() api.ApplyRequest { return api.ApplyRequest{Groups: []shoal.Group{g}} })
}

func (a *API) putUser(c *call, u shoal.User) (api.Change, error) {
	return a.one(c, (*string)(&u.Name), &u.Rev, func() api.ApplyRequest { return api.ApplyRequest{Users: []shoal.User{u}} })
}

// listAll reads a whole table that everybody may see.
func listAll[V any](a *API, c *call, kind shoal.ObjectKind, list func(*store.Tx) ([]V, error)) (api.List[V], error) {
	var page api.List[V]
	if err := access.Check(c.By, access.View, access.Object{Kind: kind}); err != nil {
		return page, err
	}
	return pageOf(a, c, func(tx *store.Tx) ([]V, string, error) {
		items, err := list(tx)
		return items, "", err
	})
}

// showOne reads an object that everybody may see.
func showOne[V any](a *API, c *call, kind shoal.ObjectKind, name string, get func(*store.Tx) (V, shoal.Rev, error)) (v V, err error) {
	if err := access.Check(c.By, access.View, access.Object{Kind: kind, Name: name}); err != nil {
		return v, err
	}
	err = a.cfg.Store.View(c.Ctx, func(tx *store.Tx) error {
		var rev shoal.Rev
		v, rev, err = get(tx)
		if err == nil {
			c.Tag(rev)
		}
		return err
	})
	return v, err
}

func (a *API) pools(c *call) (api.List[shoal.Pool], error) {
	return listAll(a, c, shoal.ObjectPool, func(tx *store.Tx) ([]shoal.Pool, error) { return tx.Pools().List() })
}

func (a *API) pool(c *call) (shoal.Pool, error) {
	return showOne(a, c, shoal.ObjectPool, c.Name("name"), func(tx *store.Tx) (shoal.Pool, shoal.Rev, error) {
		p, err := tx.Pools().Get(shoal.PoolName(c.Name("name")))
		return p, p.Rev, err
	})
}

func (a *API) scalePool(c *call, req api.ScaleRequest) (shoal.Pool, error) {
	return a.cfg.Engine.ScalePool(c.Ctx, c.By, shoal.PoolName(c.Name("name")), req)
}

func (a *API) rehearse(c *call, req api.RehearsalRequest) (api.Rehearsal, error) {
	return a.cfg.Engine.Rehearse(c.Ctx, c.By, shoal.PoolName(c.Name("name")), req)
}

func (a *API) rollout(c *call) (api.RolloutStatus, error) {
	return a.cfg.Rollouts.Rollout(c.Ctx, c.By, shoal.PoolName(c.Name("name")))
}

func (a *API) steerRollout(c *call, req api.RolloutRequest) (api.RolloutStatus, error) {
	return a.cfg.Rollouts.SteerRollout(c.Ctx, c.By, shoal.PoolName(c.Name("name")), req)
}

func (a *API) deletePool(c *call) error {
	return a.cfg.Engine.DeletePool(c.Ctx, c.By, shoal.PoolName(c.Name("name")))
}

func (a *API) shares(c *call) (api.List[shoal.Share], error) {
	return listAll(a, c, shoal.ObjectShare, func(tx *store.Tx) ([]shoal.Share, error) { return tx.Shares().List() })
}

func (a *API) share(c *call) (shoal.Share, error) {
	return showOne(a, c, shoal.ObjectShare, c.Name("name"), func(tx *store.Tx) (shoal.Share, shoal.Rev, error) {
		s, err := tx.Shares().Get(shoal.ShareName(c.Name("name")))
		return s, s.Rev, err
	})
}

func (a *API) deleteShare(c *call) error {
	return a.cfg.Catalog.DeleteShare(c.Ctx, c.By, shoal.ShareName(c.Name("name")))
}

func (a *API) groups(c *call) (api.List[shoal.Group], error) {
	return listAll(a, c, shoal.ObjectGroup, func(tx *store.Tx) ([]shoal.Group, error) { return tx.Groups().List() })
}

func (a *API) group(c *call) (shoal.Group, error) {
	return showOne(a, c, shoal.ObjectGroup, c.Name("name"), func(tx *store.Tx) (shoal.Group, shoal.Rev, error) {
		g, err := tx.Groups().Get(shoal.GroupName(c.Name("name")))
		return g, g.Rev, err
	})
}

func (a *API) deleteGroup(c *call) error {
	return a.cfg.Catalog.DeleteGroup(c.Ctx, c.By, shoal.GroupName(c.Name("name")))
}

func (a *API) machines(c *call) (api.List[shoal.Machine], error) {
	var page api.List[shoal.Machine]
	if err := access.Check(c.By, access.View, access.Object{Kind: shoal.ObjectMachine}); err != nil {
		return page, err
	}
	gone, err := c.Flag("gone", false)
	if err != nil {
		return page, err
	}
	cursor, limit, err := c.Page()
	if err != nil {
		return page, err
	}
	f := store.MachineFilter{Pool: shoal.PoolName(c.Query("pool")), State: shoal.MachineState(c.Query("state")), Gone: gone}
	page, err = pageOf(a, c, func(tx *store.Tx) ([]shoal.Machine, string, error) { return tx.MachinesPage(f, cursor, limit) })
	for i := range page.Items {
		a.heard(&page.Items[i])
	}
	return page, err
}

// heard says when a machine that is up was heard last: what is on record of it is older. Nothing is said of one that this server
// has not heard yet.
func (a *API) heard(m *shoal.Machine) {
	if m.State != shoal.MachineReady || m.Health != shoal.HealthUp {
		return
	}
	m.LastSeen = time.Time{}
	if at := a.cfg.Hub.Answered(m.ID); !at.IsZero() {
		m.LastSeen = time.Now().Add(-time.Since(at)).UTC().Round(0) // the wall clock may have been set meanwhile
	}
}

func (a *API) machine(c *call) (shoal.Machine, error) {
	return showOne(a, c, shoal.ObjectMachine, c.Name("id"), func(tx *store.Tx) (shoal.Machine, shoal.Rev, error) {
		m, err := tx.Machines().Get(shoal.MachineID(c.Name("id")))
		if a.cfg.Reach != nil {
			m.Reached, _ = a.cfg.Reach.Of(m.ID)
		}
		a.heard(&m)
		return m, m.Rev, err
	})
}

func (a *API) deleteMachine(c *call) error {
	force, err := c.Flag("force", false)
	if err != nil {
		return err
	}
	return a.cfg.Engine.DeleteMachine(c.Ctx, c.By, shoal.MachineID(c.Name("id")), force)
}

func (a *API) drain(c *call, req api.DrainRequest) (shoal.Machine, error) {
	return a.cfg.Engine.Drain(c.Ctx, c.By, shoal.MachineID(c.Name("id")), req)
}

func (a *API) undrain(c *call) (shoal.Machine, error) {
	return a.cfg.Engine.Undrain(c.Ctx, c.By, shoal.MachineID(c.Name("id")))
}

// keeper returns who keeps images, for a subject that may do something to one.
func (a *API) keeper(c *call, do access.Action, name string) (Images, error) {
	if err := access.Check(c.By, do, access.Object{Kind: access.ObjectImage, Name: name}); err != nil {
		return nil, err
	}
	if a.cfg.Images == nil {
		return nil, shoal.Errorf(shoal.KindConflict, "this server keeps no images").WithHint("only the provider local does")
	}
	return a.cfg.Images, nil
}

func (a *API) images(c *call) (api.List[api.Image], error) {
	k, err := a.keeper(c, access.View, "")
	if err != nil {
		return api.List[api.Image]{}, err
	}
	items, err := k.Images(c.Ctx)
	return listed(items, "", a.cfg.Store.Rev()), err
}

func (a *API) snapshot(c *call, req api.SnapshotRequest) (api.Image, error) {
	k, err := a.keeper(c, access.Apply, req.Name)
	if err != nil {
		return api.Image{}, err
	}
	return k.Snapshot(c.Ctx, req.Name)
}

func (a *API) removeImage(c *call) error {
	name := c.Name("name")
	k, err := a.keeper(c, access.Delete, name)
	if err != nil {
		return err
	}
	err = a.cfg.Store.View(c.Ctx, func(tx *store.Tx) error {
		pools, err := tx.Pools().List()
		if err != nil {
			return err
		}
		machines, err := tx.LiveMachines()
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(pools, func(p shoal.Pool) bool { return p.Image == name }); i >= 0 {
			return shoal.Errorf(shoal.KindConflict, "cannot remove image %s: pool %s uses it", name, pools[i].Name)
		}
		if i := slices.IndexFunc(machines, func(m shoal.Machine) bool { return m.Image == name }); i >= 0 {
			return shoal.Errorf(shoal.KindConflict, "cannot remove image %s: machine %s uses it", name, machines[i].ID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return k.RemoveImage(c.Ctx, name)
}

// source is where a request comes from, as far as that can be known.
func source(r *http.Request) string {
	if r.RemoteAddr == "" || strings.HasPrefix(r.RemoteAddr, "@") || strings.HasPrefix(r.RemoteAddr, "/") {
		return "local"
	}
	return r.RemoteAddr
}
