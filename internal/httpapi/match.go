package httpapi

import (
	"net/http"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/store"
)

// matched holds a change that assumes a revision against the object it is about: deleting it, or
// doing something with it. To PUT a whole object is compared where it is stored, in the same
// transaction; here another change may slip in between, which is as if it had come right after.
func (a *API) matched(c *call, e endpoint) error {
	if e.method == http.MethodGet || putsObject(e) {
		return nil
	}
	match, err := c.IfMatch()
	if err != nil || match == 0 {
		return err
	}
	kind, _, _ := strings.Cut(strings.TrimPrefix(e.path, "/"), "/")
	name := c.Name("name") + c.Name("id")
	var rev shoal.Rev
	o := access.Object{Name: name}
	err = a.cfg.Store.View(c.Ctx, func(tx *store.Tx) (err error) {
		o.Kind, o.Owner, rev, err = revision(tx, kind, name)
		return err
	})
	switch {
	case err != nil && shoal.KindOf(err) != shoal.KindNotFound:
		return err
	case err != nil || !access.Decide(c.By, access.View, o).Allowed:
		return nil // what is not there, or not for the caller's eyes, the action refuses itself
	case rev == 0:
		return shoal.Errorf(shoal.KindInvalid, "cannot take If-Match here: nothing in %s has a revision", e.path).WithHint("leave it out")
	case rev != match:
		return shoal.Errorf(shoal.KindConflict, "%s %s was changed meanwhile: its rev is %d, and If-Match assumes %d", strings.ToLower(string(o.Kind)), name, rev, match).
			WithHint("look at it again, and send the ETag it has now")
	}
	return nil
}

// putsObject reports whether an endpoint writes a whole object.
func putsObject(e endpoint) bool {
	return e.method == http.MethodPut && strings.Count(e.path, "/") == 2
}

// revision is whose the object is that a path names, and its revision; 0 where there is none.
func revision(tx *store.Tx, kind, name string) (shoal.ObjectKind, shoal.UserName, shoal.Rev, error) {
	switch kind {
	case "pools":
		p, err := tx.Pools().Get(shoal.PoolName(name))
		return shoal.ObjectPool, "", p.Rev, err
	case "shares":
		s, err := tx.Shares().Get(shoal.ShareName(name))
		return shoal.ObjectShare, "", s.Rev, err
	case "groups":
		g, err := tx.Groups().Get(shoal.GroupName(name))
		return shoal.ObjectGroup, "", g.Rev, err
	case "users":
		u, err := tx.Users().Get(shoal.UserName(name))
		return shoal.ObjectUser, u.Name, u.Rev, err
	case "machines":
		m, err := tx.Machines().Get(shoal.MachineID(name))
		return shoal.ObjectMachine, "", m.Rev, err
	case "sessions":
		s, err := tx.Sessions().Get(shoal.SessionID(name))
		return shoal.ObjectSession, s.User, s.Rev, err
	case "jobs":
		j, err := tx.Jobs().Get(shoal.JobID(name))
		return shoal.ObjectJob, j.User, j.Rev, err
	}
	return shoal.ObjectPool, "", 0, nil
}
