package store

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/store/pack"
)

// SetPasswordHash stores a user's password hash; an empty one removes it. User.HasPassword is not
// touched; see Credentials.
func (tx *Tx) SetPasswordHash(user shoal.UserName, hash string) error {
	var err error
	if hash == "" {
		_, err = tx.change("DELETE FROM passwords WHERE user = ?", string(user))
	} else {
		err = tx.put("INSERT INTO passwords (user, hash) VALUES (?, ?) ON CONFLICT (user) DO UPDATE SET hash = excluded.hash", string(user), hash)
	}
	return err
}

// PasswordHash returns a user's password hash, empty if there is none.
func (tx *Tx) PasswordHash(user shoal.UserName) (string, error) {
	var hash string
	err := tx.query(func(rows Rows) error { return rows.Scan(&hash) }, "SELECT hash FROM passwords WHERE user = ?", string(user))
	return hash, err
}

// TokenRow is what is known of a token. The token itself is not stored, only its hash.
type TokenRow struct {
	Subject string // a user or a machine
	Kind    string // what it is good for: "api", "join", "machine"
	Created time.Time
	Expires time.Time // zero: never
}

// PutToken stores a token by its hash. Created is filled in if it is zero.
func (tx *Tx) PutToken(hash string, t TokenRow) error {
	if hash == "" || t.Subject == "" {
		return shoal.Errorf(shoal.KindInvalid, "cannot store a token without a hash and a subject")
	}
	if t.Created.IsZero() {
		t.Created = now()
	}
	const put = `INSERT INTO tokens (hash, subject, kind, created, expires) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (hash) DO UPDATE SET subject = excluded.subject, kind = excluded.kind, created = excluded.created, expires = excluded.expires`
	return tx.changeTokens(put, hash, t.Subject, t.Kind, pack.Nanos(t.Created), pack.Nanos(t.Expires))
}

// Token returns a token that has not expired, or KindNotFound.
func (tx *Tx) Token(hash string) (TokenRow, error) {
	var t TokenRow
	found := false
	err := tx.query(func(rows Rows) error {
		found = true
		var created, expires int64
		if err := rows.Scan(&t.Subject, &t.Kind, &created, &expires); err != nil {
			return err
		}
		t.Created, t.Expires = pack.Time(created), pack.Time(expires)
		return nil
	}, "SELECT subject, kind, created, expires FROM tokens WHERE hash = ?", hash)
	if err != nil {
		return TokenRow{}, err
	}
	if !found || t.expired() {
		return TokenRow{}, noToken()
	}
	return t, nil
}

func (t TokenRow) expired() bool { return !t.Expires.IsZero() && !now().Before(t.Expires) }

func noToken() error { return shoal.Errorf(shoal.KindNotFound, "no such token, or it has expired") }

// changeTokens is change for statements about tokens: others must not take them for what they were.
func (tx *Tx) changeTokens(query string, args ...any) error {
	n, err := tx.change(query, args...)
	if n > 0 {
		tx.db.Catalog = tx.db.All
	}
	return err
}

// DeleteToken removes one token; it need not exist.
func (tx *Tx) DeleteToken(hash string) error {
	return tx.changeTokens("DELETE FROM tokens WHERE hash = ?", hash)
}

// DeleteTokens removes all tokens of a subject. Users and machines have distinct names: a machine's starts "m-".
func (tx *Tx) DeleteTokens(subject string) error {
	return tx.changeTokens("DELETE FROM tokens WHERE subject = ?", subject)
}

// TrimTokens removes the tokens that have expired.
func (tx *Tx) TrimTokens() error {
	_, err := tx.change("DELETE FROM tokens WHERE expires > 0 AND expires <= ?", pack.Nanos(now()))
	return err
}

// Setting returns a stored value, empty if there is none.
func (tx *Tx) Setting(key string) (string, error) {
	var value string
	err := tx.query(func(rows Rows) error { return rows.Scan(&value) }, "SELECT value FROM settings WHERE key = ?", key)
	return value, err
}

// SetSetting stores a value; an empty one removes it.
func (tx *Tx) SetSetting(key, value string) error {
	var err error
	if value == "" {
		_, err = tx.change("DELETE FROM settings WHERE key = ?", key)
	} else {
		err = tx.put("INSERT INTO settings (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", key, value)
	}
	return err
}

// DurationSetting returns a stored duration, zero if there is none.
func (tx *Tx) DurationSetting(key string) (d time.Duration, err error) {
	text, err := tx.Setting(key)
	if err == nil && text != "" {
		d, err = time.ParseDuration(text)
	}
	return d, err
}

// SetDurationSetting stores a duration.
func (tx *Tx) SetDurationSetting(key string, d time.Duration) error {
	return tx.SetSetting(key, d.String())
}

// Credentials is the store as a directory of users sees it: users, their password hashes and API
// tokens, each call a transaction of its own.
type Credentials struct{ DB *DB }

// User returns a user, or KindNotFound.
func (c Credentials) User(ctx context.Context, name shoal.UserName) (u shoal.User, err error) {
	err = c.DB.View(ctx, func(tx *Tx) error {
		u, err = tx.Users().Get(name)
		return err
	})
	return u, err
}

// Member returns a user with all her groups, whichever side names them, or KindNotFound.
func (c Credentials) Member(ctx context.Context, name shoal.UserName) (u shoal.User, err error) {
	err = c.DB.View(ctx, func(tx *Tx) error {
		u, err = tx.member(name)
		return err
	})
	return u, err
}

func (tx *Tx) member(name shoal.UserName) (u shoal.User, err error) {
	if u, err = tx.Users().Get(name); err != nil {
		return u, err
	}
	groups, err := tx.Groups().List()
	u.Groups = u.Memberships(groups)
	return u, err
}

// PasswordHash returns a user's password hash, empty if there is none.
func (c Credentials) PasswordHash(ctx context.Context, name shoal.UserName) (hash string, err error) {
	err = c.DB.View(ctx, func(tx *Tx) error {
		hash, err = tx.PasswordHash(name)
		return err
	})
	return hash, err
}

// SetPasswordHash stores a password hash (empty: removes it) and marks the user accordingly.
// KindNotFound if there is no such user.
func (c Credentials) SetPasswordHash(ctx context.Context, name shoal.UserName, hash string) error {
	return c.DB.Update(ctx, func(tx *Tx) error {
		u, err := tx.Users().Get(name)
		if err != nil {
			return err
		}
		u.HasPassword = hash != ""
		if _, err := tx.Users().Put(u); err != nil {
			return err
		}
		return tx.SetPasswordHash(name, hash)
	})
}

// maxTokens is how many tokens of a kind a user has; the oldest make room for more.
const maxTokens = 1000

// PutToken stores the hash of a user's token.
func (c Credentials) PutToken(ctx context.Context, hash, kind string, user shoal.UserName, expires time.Time) error {
	return c.DB.Update(ctx, func(tx *Tx) error {
		if err := tx.TrimTokens(); err != nil {
			return err
		}
		if err := tx.changeTokens("DELETE FROM tokens WHERE hash IN (SELECT hash FROM tokens WHERE subject = ? AND kind = ? ORDER BY created DESC LIMIT ? OFFSET ?)",
			string(user), kind, math.MaxInt, maxTokens-1); err != nil {
			return err
		}
		return tx.PutToken(hash, TokenRow{Subject: string(user), Kind: kind, Expires: expires})
	})
}

// DropToken removes a token; it need not exist.
func (c Credentials) DropToken(ctx context.Context, hash string) error {
	return c.DB.Update(ctx, func(tx *Tx) error { return tx.DeleteToken(hash) })
}

// DropTokens removes a user's tokens of a kind; empty: of all.
func (c Credentials) DropTokens(ctx context.Context, user shoal.UserName, kind string) error {
	return c.DB.Update(ctx, func(tx *Tx) error {
		if kind == "" {
			return tx.DeleteTokens(string(user))
		}
		return tx.changeTokens("DELETE FROM tokens WHERE subject = ? AND kind = ?", string(user), kind)
	})
}

// TokenUser returns the user a token of a kind was given to with all her groups, or KindNotFound. It is asked for each
// request; while nothing of the catalog changes, the store is not.
func (c Credentials) TokenUser(ctx context.Context, hash, kind string) (shoal.User, error) {
	rev := c.DB.CatalogRev() // before it is read
	b, known := c.DB.bearer.find(rev, hash)
	if !known {
		err := c.DB.View(ctx, func(tx *Tx) (err error) {
			if b.TokenRow, err = tx.Token(hash); err == nil {
				b.user, err = tx.member(shoal.UserName(b.Subject))
			}
			return err
		})
		if err != nil {
			return shoal.User{}, err
		}
		c.DB.bearer.keep(rev, hash, b)
	}
	if b.Kind != kind || b.expired() {
		return shoal.User{}, noToken()
	}
	b.user.Groups = slices.Clone(b.user.Groups)
	return b.user, nil
}

// bearer is whose a token is.
type bearer struct {
	TokenRow
	user shoal.User
}

// bearers are those of the tokens that were asked for last, as they are at a revision of the catalog.
type bearers struct {
	mu  sync.Mutex
	rev shoal.Rev
	of  map[string]bearer // by hash
}

// maxBearers bounds them.
const maxBearers = 10_000

func (b *bearers) find(rev shoal.Rev, hash string) (found bearer, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rev == rev {
		found, ok = b.of[hash]
	}
	return found, ok
}

func (b *bearers) keep(rev shoal.Rev, hash string, one bearer) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if rev < b.rev {
		return
	}
	if rev > b.rev || len(b.of) >= maxBearers {
		b.rev, b.of = rev, map[string]bearer{}
	}
	b.of[hash] = one
}
