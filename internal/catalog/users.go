package catalog

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/store"
)

// AddUser creates a user, with a password unless it is empty. KindInvalid lists what is wrong.
func (c *Catalog) AddUser(ctx context.Context, by access.Subject, u shoal.User, password string) (shoal.User, error) {
	if err := access.Check(by, access.Apply, access.Object{Kind: shoal.ObjectUser}); err != nil {
		return shoal.User{}, err
	}
	if _, err := c.user(ctx, u.Name); err == nil {
		return shoal.User{}, shoal.Errorf(shoal.KindConflict, "cannot add user %s: there is one of that name", u.Name).
			WithHint("`shoal apply` and `shoal user passwd` change users")
	}
	u.Meta = shoal.Meta{}
	if _, err := c.apply(ctx, by, api.ApplyRequest{Users: []shoal.User{u}}, true); err != nil {
		return shoal.User{}, err
	}
	if password != "" {
		if err := c.cfg.Passwords.SetPassword(ctx, u.Name, password); err != nil {
			_, undo := c.RemoveUser(ctx, by, u.Name)
			return shoal.User{}, errors.Join(err, undo)
		}
	}
	return c.user(ctx, u.Name)
}

func (c *Catalog) user(ctx context.Context, name shoal.UserName) (u shoal.User, err error) {
	err = c.cfg.Store.View(ctx, func(tx *store.Tx) error {
		u, err = tx.Users().Get(name)
		return err
	})
	return u, err
}

// DisableUser keeps a user from signing in, takes her tokens away and ends her sessions and jobs.
// Her files and her uid stay. Doing it again ends what has come up since.
func (c *Catalog) DisableUser(ctx context.Context, by access.Subject, name shoal.UserName) (shoal.User, error) {
	u, err := c.setDisabled(ctx, by, name, true)
	if err != nil {
		return u, err
	}
	return u, c.endAll(ctx, name)
}

// EnableUser lets a disabled user sign in again.
func (c *Catalog) EnableUser(ctx context.Context, by access.Subject, name shoal.UserName) (shoal.User, error) {
	return c.setDisabled(ctx, by, name, false)
}

func (c *Catalog) setDisabled(ctx context.Context, by access.Subject, name shoal.UserName, disabled bool) (u shoal.User, err error) {
	if err := access.Check(by, access.Apply, access.Object{Kind: shoal.ObjectUser, Name: string(name), Owner: name}); err != nil {
		return u, err
	}
	err = c.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if u, err = tx.Users().Get(name); err != nil {
			return err
		}
		if disabled {
			if err := tx.DeleteTokens(string(name)); err != nil {
				return err
			}
		}
		if u.Disabled == disabled {
			return nil
		}
		u.Disabled = disabled
		if u, err = tx.Users().Put(u); err != nil {
			return err
		}
		word := "enabled"
		if disabled {
			word = "disabled"
		}
		event(tx, shoal.ObjectUser, string(name), name, word, fmt.Sprintf("user %s was %s by %s", name, word, by))
		return nil
	})
	return u, err
}

func event(tx *store.Tx, kind shoal.ObjectKind, name string, user shoal.UserName, what, sentence string) {
	code := strings.ToLower(string(kind)) + strings.ToUpper(what[:1]) + what[1:]
	tx.Event(shoal.Event{Kind: kind, Name: name, User: user, Code: code, Sentence: sentence})
}

// live returns a user's sessions and jobs that have not ended.
func live(tx *store.Tx, name shoal.UserName) (sessions []shoal.Session, jobs []shoal.Job, err error) {
	if sessions, err = tx.LiveSessions(); err != nil {
		return nil, nil, err
	}
	sessions = slices.DeleteFunc(sessions, func(s shoal.Session) bool { return s.User != name })
	err = tx.EachActiveJob(func(j shoal.Job) error {
		if j.User == name {
			jobs = append(jobs, j)
		}
		return nil
	})
	return sessions, jobs, err
}

// endAll ends a disabled user's sessions and jobs. One that ended by itself meanwhile is no error.
func (c *Catalog) endAll(ctx context.Context, name shoal.UserName) error {
	var sessions []shoal.Session
	var jobs []shoal.Job
	err := c.cfg.Store.View(ctx, func(tx *store.Tx) (err error) {
		sessions, jobs, err = live(tx, name)
		return err
	})
	if err != nil {
		return err
	}
	var all []error
	for _, j := range jobs {
		all = append(all, c.cfg.CancelJob(ctx, j.ID))
	}
	for _, s := range sessions {
		all = append(all, c.cfg.EndSession(ctx, s.ID))
	}
	all = slices.DeleteFunc(all, func(err error) bool {
		kind := shoal.KindOf(err)
		return err == nil || kind == shoal.KindNotFound || kind == shoal.KindConflict
	})
	if len(all) > 0 {
		return fmt.Errorf("user %s is disabled, but not everything of hers could be ended: %w", name, errors.Join(all...))
	}
	return nil
}

// RemoveUser removes a user who has no sessions and jobs; KindConflict otherwise. Her files on
// shares stay, and the answer says where; her uid stays hers, should she come back.
func (c *Catalog) RemoveUser(ctx context.Context, by access.Subject, name shoal.UserName) (api.Change, error) {
	done := api.Change{Kind: shoal.ObjectUser, Name: string(name), Action: "removed"}
	if err := access.Check(by, access.Delete, access.Object{Kind: shoal.ObjectUser, Name: string(name), Owner: name}); err != nil {
		return done, err
	}
	err := c.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		u, err := tx.Users().Get(name)
		if err != nil {
			return err
		}
		sessions, jobs, err := live(tx, name)
		if err != nil {
			return err
		}
		if len(sessions)+len(jobs) > 0 {
			return shoal.Errorf(shoal.KindConflict, "cannot remove user %s: sessions or jobs of hers have not ended (%d and %d)", name, len(sessions), len(jobs)).
				WithHint("`shoal user disable %s` ends them", name)
		}
		if err := forget(tx, name); err != nil {
			return err
		}
		if done.Diff, err = kept(tx, u); err != nil {
			return err
		}
		event(tx, shoal.ObjectUser, string(name), "", "removed", fmt.Sprintf("user %s was removed by %s; files stay", name, by))
		return nil
	})
	return done, err
}

// forget removes a user with all that only she needs.
func forget(tx *store.Tx, name shoal.UserName) error {
	groups, err := tx.Groups().List()
	if err != nil {
		return err
	}
	for _, g := range groups {
		if i := slices.Index(g.Members, name); i >= 0 {
			g.Members = slices.Delete(g.Members, i, i+1)
			if _, err := tx.Groups().Put(g); err != nil {
				return err
			}
		}
	}
	secrets, err := tx.Secrets()
	if err != nil {
		return err
	}
	for _, s := range secrets {
		if s.Owner == name {
			if _, err := tx.DeleteSecret(name, s.Name); err != nil {
				return err
			}
		}
	}
	if err := tx.DeleteTokens(string(name)); err != nil {
		return err
	}
	if err := tx.SetPasswordHash(name, ""); err != nil {
		return err
	}
	return tx.Users().Delete(name)
}

// kept says where a user's homes are.
func kept(tx *store.Tx, u shoal.User) ([]string, error) {
	pools, err := tx.Pools().List()
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, p := range pools {
		if p.Home.Share == "" {
			continue
		}
		s, err := tx.Shares().Get(p.Home.Share)
		if err != nil {
			return nil, err
		}
		source := strings.TrimSuffix(s.Source, "/")
		home := source + "/" + path.Clean(p.HomeSub(u.Name))
		line := fmt.Sprintf("files in %s stay; they belong to uid %d", home, u.UID)
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return lines, nil
}

// DeleteGroup removes a group; its members are members no more. Files of the group keep its gid,
// which is given to no other.
func (c *Catalog) DeleteGroup(ctx context.Context, by access.Subject, name shoal.GroupName) error {
	if err := access.Check(by, access.Delete, access.Object{Kind: shoal.ObjectGroup, Name: string(name)}); err != nil {
		return err
	}
	return c.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.Groups().Delete(name); err != nil {
			return err
		}
		users, err := tx.Users().List()
		if err != nil {
			return err
		}
		for _, u := range users {
			if i := slices.Index(u.Groups, name); i >= 0 {
				u.Groups = slices.Delete(u.Groups, i, i+1)
				if _, err := tx.Users().Put(u); err != nil {
					return err
				}
			}
		}
		event(tx, shoal.ObjectGroup, string(name), "", "removed", fmt.Sprintf("group %s was removed by %s", name, by))
		return nil
	})
}

// DeleteShare removes a share that no pool mounts; KindConflict otherwise. What it holds stays.
func (c *Catalog) DeleteShare(ctx context.Context, by access.Subject, name shoal.ShareName) error {
	if err := access.Check(by, access.Delete, access.Object{Kind: shoal.ObjectShare, Name: string(name)}); err != nil {
		return err
	}
	return c.cfg.Store.Update(ctx, func(tx *store.Tx) error {
		pools, err := tx.Pools().List()
		if err != nil {
			return err
		}
		for _, p := range pools {
			if slices.ContainsFunc(p.Mounts, func(m shoal.Mount) bool { return m.Share == name }) {
				return shoal.Errorf(shoal.KindConflict, "cannot delete share %s: pool %s mounts it", name, p.Name).
					WithHint("take it out of the pool's mounts first")
			}
		}
		if err := tx.Shares().Delete(name); err != nil {
			return err
		}
		event(tx, shoal.ObjectShare, string(name), "", "removed", fmt.Sprintf("share %s was removed by %s; what it holds stays", name, by))
		return nil
	})
}
