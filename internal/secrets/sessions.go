package secrets

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/store"
)

// ForLogin returns the values of the secrets that a pool gives a user's sessions: those that she may use under the names
// that it says. What she gets is put on record. What she does not get is no error, and keeps nobody from logging in.
func (k *Keeper) ForLogin(ctx context.Context, pool shoal.PoolName, user shoal.UserName) (api.SessionSecrets, error) {
	return k.session(ctx, pool, user, "")
}

// OnMachine is ForLogin for a machine, which keeps the values as files while the user is there.
func (k *Keeper) OnMachine(ctx context.Context, machine shoal.MachineID, user shoal.UserName) (out api.SessionSecrets, err error) {
	var m shoal.Machine
	err = k.db.View(ctx, func(tx *store.Tx) (err error) {
		m, err = tx.Machines().Get(machine)
		return err
	})
	if err != nil {
		return out, err
	}
	return k.session(ctx, m.Pool, user, machine)
}

func (k *Keeper) session(ctx context.Context, pool shoal.PoolName, user shoal.UserName, machine shoal.MachineID) (out api.SessionSecrets, err error) {
	var names map[string]string
	err = k.db.View(ctx, func(tx *store.Tx) error {
		p, err := tx.Pools().Get(pool)
		names = p.Secrets
		return err
	})
	if err != nil || len(names) == 0 { // nothing is to be put on record
		return out, err
	}
	err = k.db.Update(ctx, func(tx *store.Tx) error {
		out = api.SessionSecrets{Values: map[string][]byte{}}
		u, err := tx.Users().Get(user)
		if err != nil {
			return err
		}
		in, err := memberships(tx, u)
		if err != nil {
			return err
		}
		by := access.Subject{User: user, Groups: in, Machine: machine}
		for _, variable := range slices.Sorted(maps.Keys(names)) {
			s, value, err := k.one(tx, by, shoal.SecretName(names[variable]))
			switch shoal.KindOf(err) {
			case shoal.KindNotFound, shoal.KindConflict, shoal.KindInvalid, shoal.KindDenied:
				out.Missing = append(out.Missing, missing(pool, variable, err))
				continue
			}
			if err != nil {
				return err
			}
			out.Values[variable] = value
			if machine == "" {
				k.event(tx, s, "secretRead", "the login of %s to pool %s gets secret %s as %s", user, pool, s.Name, variable)
			} else {
				k.event(tx, s, "secretRead", "%s gets secret %s as %s", by, s.Name, variable)
			}
		}
		return nil
	})
	return out, err
}

// Missing says which secrets a pool names and a user does not get, and why. It reads no value, and nothing is put on record.
func (k *Keeper) Missing(ctx context.Context, pool shoal.PoolName, user shoal.UserName) (all []string, err error) {
	err = k.db.View(ctx, func(tx *store.Tx) error {
		p, err := tx.Pools().Get(pool)
		if err != nil || len(p.Secrets) == 0 {
			return err
		}
		u, err := tx.Users().Get(user)
		if err != nil {
			return err
		}
		in, err := memberships(tx, u)
		if err != nil {
			return err
		}
		by := access.Subject{User: user, Groups: in}
		for _, variable := range slices.Sorted(maps.Keys(p.Secrets)) {
			s, err := find(tx, user, in, shoal.SecretName(p.Secrets[variable]))
			if err == nil {
				err = access.Check(by, access.Reveal, object(s))
			}
			if err != nil {
				all = append(all, missing(pool, variable, err))
			}
		}
		return nil
	})
	return all, err
}

// one finds a secret that somebody may use, with its value.
func (k *Keeper) one(tx *store.Tx, by access.Subject, name shoal.SecretName) (shoal.Secret, []byte, error) {
	s, err := find(tx, by.User, by.Groups, name)
	if err == nil {
		err = access.Check(by, access.Reveal, object(s))
	}
	if err != nil {
		return s, nil, err
	}
	value, err := k.valueOf(tx, s)
	return s, value, err
}

// missing says why a variable is not there, and what is to be done.
func missing(pool shoal.PoolName, variable string, err error) string {
	text := fmt.Sprintf("pool %s gives you %s, but %v", pool, variable, err)
	if hint := shoal.HintOf(err); hint != "" {
		text += "; " + hint
	}
	return text
}
