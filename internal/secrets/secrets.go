// Package secrets keeps values that nobody is to see but what uses them: passwords, tokens, keys of accounts.
//
// They lie in the store encrypted (age, X25519) with a key that lies in a file beside it, so a copy of the
// database alone tells nothing. Each belongs to the user who set it, who may share its use with groups; those that
// the host set are the site's own, for shares. A value leaves in four ways: to a task that names it, as
// environment and file; likewise to the sessions of a pool that names it; to its user, by `shoal secret get`; and to what
// mounts a share. Each time is on record as an event, without the value.
package secrets

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/spec"
	"github.com/shoal-pool/shoal/internal/store"
)

// MaxSize bounds a value, in bytes.
const MaxSize = 64 << 10

// maxSecrets bounds how many one user keeps.
const maxSecrets = 1000

// Keeper keeps the secrets of a store. Its methods may be called from any goroutine.
type Keeper struct {
	db  *store.DB
	key *age.X25519Identity
}

// New makes a keeper. The key is an age identity in its text form, AGE-SECRET-KEY-1…
func New(db *store.DB, key string) (*Keeper, error) {
	id, err := age.ParseX25519Identity(strings.TrimSpace(key))
	if err != nil {
		return nil, fmt.Errorf("cannot use the key of the secrets: %w", err)
	}
	return &Keeper{db: db, key: id}, nil
}

// NewKey makes a key.
func NewKey() (string, error) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		return "", err
	}
	return id.String() + "\n", nil
}

func (k *Keeper) seal(value []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, k.key.Recipient())
	if err != nil {
		return nil, err
	}
	if _, err = w.Write(value); err == nil {
		err = w.Close()
	}
	return b.Bytes(), err
}

func (k *Keeper) open(s shoal.Secret, sealed []byte) ([]byte, error) {
	r, err := age.Decrypt(bytes.NewReader(sealed), k.key)
	if err == nil {
		var value []byte
		if value, err = io.ReadAll(io.LimitReader(r, MaxSize)); err == nil {
			return value, nil
		}
	}
	return nil, shoal.Errorf(shoal.KindInvalid, "cannot read secret %q: %w", s.Name, err).
		WithHint("it was encrypted with another key than keys/secrets of the data directory: restore that, or set the secret again")
}

// object is a secret as the access rules see it.
func object(s shoal.Secret) access.Object {
	return access.Object{Kind: shoal.ObjectSecret, Name: string(s.Name), Owner: s.Owner, Fellows: s.Groups}
}

// Set stores a secret of the caller's with its value, in place of the one of that name.
func (k *Keeper) Set(ctx context.Context, by access.Subject, name shoal.SecretName, req api.SetSecret) (shoal.Secret, error) {
	s := shoal.Secret{Name: name, Owner: by.User, Groups: slices.Clone(req.Groups), Size: len(req.Value)}
	if err := access.Check(by, access.Apply, object(s)); err != nil {
		return s, err
	}
	switch {
	case !spec.IsName(string(name)):
		return s, shoal.Errorf(shoal.KindInvalid, "%q cannot be the name of a secret", name).
			WithHint("use lower-case letters, digits and hyphens, beginning with a letter")
	case len(req.Value) == 0:
		return s, shoal.Errorf(shoal.KindInvalid, "secret %q has no value", name).WithHint("give it on standard input or with --from-file")
	case len(req.Value) > MaxSize:
		return s, shoal.Errorf(shoal.KindInvalid, "the value of secret %q has %d bytes, more than %d", name, len(req.Value), MaxSize)
	}
	slices.Sort(s.Groups)
	s.Groups = slices.Compact(s.Groups)
	sealed, err := k.seal(req.Value)
	if err != nil {
		return s, err
	}
	err = k.db.Update(ctx, func(tx *store.Tx) error {
		all, err := tx.Secrets()
		if err != nil {
			return err
		}
		if err := groups(tx, by, s.Groups); err != nil {
			return err
		}
		now := time.Now().UTC().Truncate(time.Second)
		s.Created, s.Updated = now, now
		mine := 0
		for _, old := range all {
			if old.Owner != s.Owner {
				continue
			}
			if mine++; old.Name == s.Name {
				s.Created = old.Created
			}
		}
		if mine >= maxSecrets && s.Created == now {
			return shoal.Errorf(shoal.KindExhausted, "cannot keep another secret: %d are kept, as many as one user may", mine)
		}
		k.event(tx, s, "secretSet", "%s set secret %s", by, s.Name)
		return tx.PutSecret(s, sealed)
	})
	return s, err
}

// groups finds out whether the caller may share with some groups: those that she is in.
func groups(tx *store.Tx, by access.Subject, names []shoal.GroupName) error {
	for _, g := range names {
		if _, err := tx.Groups().Get(g); err != nil {
			return err
		}
		if !by.Host && !slices.Contains(by.Groups, g) {
			return shoal.Errorf(shoal.KindDenied, "%s may not share a secret with group %s, being no member", by, g)
		}
	}
	return nil
}

// List lists the secrets whose existence the caller may know of.
func (k *Keeper) List(ctx context.Context, by access.Subject) (all []shoal.Secret, err error) {
	err = k.db.View(ctx, func(tx *store.Tx) (err error) {
		all, err = tx.Secrets()
		return err
	})
	return slices.DeleteFunc(all, func(s shoal.Secret) bool { return access.Check(by, access.View, object(s)) != nil }), err
}

// Remove removes a secret of the caller's.
func (k *Keeper) Remove(ctx context.Context, by access.Subject, name shoal.SecretName) error {
	s := shoal.Secret{Name: name, Owner: by.User}
	if err := access.Check(by, access.Delete, object(s)); err != nil {
		return err
	}
	return k.db.Update(ctx, func(tx *store.Tx) error {
		there, err := tx.DeleteSecret(s.Owner, s.Name)
		if err == nil && !there {
			err = access.Missing(object(s))
		}
		if err == nil {
			k.event(tx, s, "secretRemoved", "%s removed secret %s", by, s.Name)
		}
		return err
	})
}

// Value returns the value of a secret that the caller may use.
func (k *Keeper) Value(ctx context.Context, by access.Subject, name shoal.SecretName) (value []byte, err error) {
	err = k.db.Update(ctx, func(tx *store.Tx) error {
		var s shoal.Secret
		if s, value, err = k.one(tx, by, name); err == nil {
			k.event(tx, s, "secretRead", "%s read secret %s", by, s.Name)
		}
		return err
	})
	return value, err
}

// ForShare returns the value of a secret of the site's own, with which a share is to be mounted, and puts that on record.
func (k *Keeper) ForShare(ctx context.Context, share shoal.ShareName, name shoal.SecretName) (value []byte, err error) {
	err = k.db.Update(ctx, func(tx *store.Tx) error {
		s, err := find(tx, "", nil, name)
		if shoal.KindOf(err) == shoal.KindNotFound {
			return shoal.Errorf(shoal.KindNotFound, "the host has no secret %q", name).WithHint("set it as root on the server's host: shoal secret set %s", name)
		}
		if err != nil {
			return err
		}
		k.event(tx, s, "secretRead", "share %s is mounted with secret %s", share, s.Name)
		value, err = k.valueOf(tx, s)
		return err
	})
	return value, err
}

// Known says what is wrong with the secrets that a job of a user's names; nil: it may use them all.
func (k *Keeper) Known(tx *store.Tx, user shoal.User, j shoal.JobSpec) error {
	return k.each(tx, shoal.Job{User: user.Name, Spec: j}, func(string, shoal.Secret) error { return nil })
}

// ForTask returns the values of the secrets that a job names, by its own names for them; why is set if one of them
// is not to be had, and the job's tasks cannot start.
func (k *Keeper) ForTask(tx *store.Tx, j shoal.Job) (values map[string]string, why string, err error) {
	err = k.each(tx, j, func(variable string, s shoal.Secret) error {
		value, err := k.valueOf(tx, s)
		if values == nil {
			values = map[string]string{}
		}
		values[variable] = string(value)
		return err
	})
	switch shoal.KindOf(err) {
	case shoal.KindNotFound, shoal.KindConflict, shoal.KindInvalid:
		return nil, err.Error(), nil
	}
	return values, "", err
}

// Given puts on record that an attempt gets the secrets that its job names.
func (k *Keeper) Given(tx *store.Tx, j shoal.Job, ref shoal.AttemptRef) error {
	task := "job " + string(j.ID)
	if j.Counts.Total() > 1 {
		task = "task " + ref.TaskRef.String()
	}
	err := k.each(tx, j, func(_ string, s shoal.Secret) error {
		k.event(tx, s, "secretRead", "%s of %s gets secret %s", task, j.User, s.Name)
		return nil
	})
	if shoal.KindOf(err) == shoal.KindNotFound || shoal.KindOf(err) == shoal.KindConflict {
		return nil // nothing is given
	}
	return err
}

// each goes through the secrets that a job names, as its user may use them.
func (k *Keeper) each(tx *store.Tx, j shoal.Job, do func(variable string, s shoal.Secret) error) error {
	if len(j.Spec.Secrets) == 0 {
		return nil
	}
	user, err := tx.Users().Get(j.User)
	if err != nil {
		return err
	}
	in, err := memberships(tx, user)
	if err != nil {
		return err
	}
	for _, variable := range slices.Sorted(maps.Keys(j.Spec.Secrets)) {
		s, err := find(tx, j.User, in, shoal.SecretName(j.Spec.Secrets[variable]))
		if err != nil {
			return err
		}
		if err := do(variable, s); err != nil {
			return err
		}
	}
	return nil
}

// valueOf decrypts a secret that is there.
func (k *Keeper) valueOf(tx *store.Tx, s shoal.Secret) ([]byte, error) {
	sealed, err := tx.SealedSecret(s.Owner, s.Name)
	if err != nil {
		return nil, err
	}
	return k.open(s, sealed)
}

// find finds the secret that a user means by a name: her own, or else one that is shared with a group of hers.
func find(tx *store.Tx, user shoal.UserName, in []shoal.GroupName, name shoal.SecretName) (shoal.Secret, error) {
	all, err := tx.Secrets()
	if err != nil {
		return shoal.Secret{}, err
	}
	var found []shoal.Secret
	for _, s := range all {
		if s.Name != name {
			continue
		}
		if s.Owner == user {
			return s, nil
		}
		if slices.ContainsFunc(s.Groups, func(g shoal.GroupName) bool { return slices.Contains(in, g) }) {
			found = append(found, s)
		}
	}
	switch len(found) {
	case 0:
		return shoal.Secret{}, shoal.Errorf(shoal.KindNotFound, "there is no secret %q that %s may use", name, user).
			WithHint("`shoal secret set %s` keeps one; `shoal secret list` shows those there are", name)
	case 1:
		return found[0], nil
	}
	return shoal.Secret{}, shoal.Errorf(shoal.KindConflict, "%d secrets named %q are shared with %s: those of %s and %s", len(found), name, user, found[0].Owner, found[1].Owner).
		WithHint("keep one of your own, which goes first, or have one of them renamed")
}

func memberships(tx *store.Tx, user shoal.User) ([]shoal.GroupName, error) {
	all, err := tx.Groups().List()
	return user.Memberships(all), err
}

func (k *Keeper) event(tx *store.Tx, s shoal.Secret, code, format string, args ...any) {
	tx.Event(shoal.Event{Kind: shoal.ObjectSecret, Name: string(s.Name), User: s.Owner, Code: code, Sentence: fmt.Sprintf(format, args...)})
}
