package httpapi

import (
	"slices"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/store"
)

// userObject is a user as access sees her.
func userObject(name string) access.Object {
	return access.Object{Kind: shoal.ObjectUser, Name: name, Owner: shoal.UserName(name)}
}

func (a *API) users(c *call) (api.List[shoal.User], error) {
	return pageOf(a, c, func(tx *store.Tx) ([]shoal.User, string, error) {
		all, err := tx.Users().List()
		return slices.DeleteFunc(all, func(u shoal.User) bool {
			return !access.Decide(c.By, access.View, userObject(string(u.Name))).Allowed
		}), "", err
	})
}

func (a *API) user(c *call) (u shoal.User, err error) {
	name := c.Name("name")
	if err := access.Check(c.By, access.View, userObject(name)); err != nil {
		return u, err
	}
	err = a.cfg.Store.View(c.Ctx, func(tx *store.Tx) error {
		u, err = tx.Users().Get(shoal.UserName(name))
		return err
	})
	if err == nil {
		c.Tag(u.Rev)
	}
	return u, err
}

func (a *API) addUser(c *call, u api.NewUser) (shoal.User, error) {
	return a.cfg.Catalog.AddUser(c.Ctx, c.By, u.User, u.Password)
}

func (a *API) removeUser(c *call) (api.Change, error) {
	return a.cfg.Catalog.RemoveUser(c.Ctx, c.By, shoal.UserName(c.Name("name")))
}

func (a *API) disableUser(c *call) (shoal.User, error) {
	return a.cfg.Catalog.DisableUser(c.Ctx, c.By, shoal.UserName(c.Name("name")))
}

func (a *API) enableUser(c *call) (shoal.User, error) {
	return a.cfg.Catalog.EnableUser(c.Ctx, c.By, shoal.UserName(c.Name("name")))
}

func (a *API) setPassword(c *call, req api.PasswordRequest) (api.Change, error) {
	name := c.Name("name")
	done := api.Change{Kind: shoal.ObjectUser, Name: name, Action: "changed"}
	if err := access.Check(c.By, access.SetPassword, userObject(name)); err != nil {
		return done, err
	}
	if a.cfg.Web != nil {
		defer a.cfg.Web.Forget(shoal.UserName(name))
	}
	if req.Password == "" {
		return done, a.cfg.People.RemovePassword(c.Ctx, shoal.UserName(name))
	}
	return done, a.cfg.People.SetPassword(c.Ctx, shoal.UserName(name), req.Password)
}

func (a *API) sessions(c *call) (api.List[shoal.Session], error) {
	var page api.List[shoal.Session]
	withEnded, err := c.Flag("ended", false)
	if err != nil {
		return page, err
	}
	cursor, limit, err := c.Page()
	if err != nil {
		return page, err
	}
	f := store.SessionFilter{User: shoal.UserName(c.Query("user")), Pool: shoal.PoolName(c.Query("pool")),
		Machine: shoal.MachineID(c.Query("machine")), State: shoal.SessionState(c.Query("state")), Ended: withEnded}
	if !access.Everybody(c.By, shoal.ObjectSession) {
		if f.User != "" && f.User != c.By.User {
			return listed[shoal.Session](nil, "", a.cfg.Store.Rev()), nil
		}
		f.User = c.By.User
	}
	return pageOf(a, c, func(tx *store.Tx) ([]shoal.Session, string, error) { return tx.SessionsPage(f, cursor, limit) })
}

// sessionFor returns a session to which the caller may do something. One she may not see is not there.
func (a *API) sessionFor(c *call, do access.Action, id string) (s shoal.Session, err error) {
	err = a.cfg.Store.View(c.Ctx, func(tx *store.Tx) error {
		s, err = tx.Sessions().Get(shoal.SessionID(id))
		return err
	})
	if err != nil {
		return s, err
	}
	if err := access.Check(c.By, do, access.Object{Kind: shoal.ObjectSession, Name: id, Owner: s.User}); err != nil {
		return shoal.Session{}, err
	}
	return s, nil
}

func (a *API) session(c *call) (shoal.Session, error) {
	s, err := a.sessionFor(c, access.View, c.Name("id"))
	if err == nil {
		c.Tag(s.Rev)
	}
	return s, err
}

func (a *API) endSession(c *call) error {
	s, err := a.sessionFor(c, access.End, c.Name("id"))
	if err != nil {
		return err
	}
	return a.cfg.Broker.End(c.Ctx, s.ID)
}

func (a *API) keepAwake(c *call, req api.KeepAwakeRequest) (shoal.Session, error) {
	s, err := a.sessionFor(c, access.KeepAwake, c.Name("id"))
	if err != nil {
		return s, err
	}
	return a.cfg.Broker.KeepAwake(c.Ctx, s.ID, time.Duration(req.For))
}
