package local

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/identity"
)

// Store is what the directory needs of the store; store.Credentials is it.
type Store interface {
	User(ctx context.Context, name shoal.UserName) (shoal.User, error)   // KindNotFound
	Member(ctx context.Context, name shoal.UserName) (shoal.User, error) // the same with all her groups
	PasswordHash(ctx context.Context, name shoal.UserName) (string, error)
	SetPasswordHash(ctx context.Context, name shoal.UserName, hash string) error
	PutToken(ctx context.Context, hash, kind string, user shoal.UserName, expires time.Time) error
	TokenUser(ctx context.Context, hash, kind string) (shoal.User, error) // KindNotFound
	DropToken(ctx context.Context, hash string) error
	DropTokens(ctx context.Context, user shoal.UserName, kind string) error // empty: of all kinds
}

// Directory is the built-in directory.
type Directory struct {
	store   Store
	hasher  *hasher
	brake   *brake
	secret  [32]byte // signs challenges; of this process alone
	answers *onceSet // challenges that were answered
	decoy   string   // hash of a password nobody knows, for users without one
}

var _ identity.Directory = (*Directory)(nil)

// New makes the directory.
func New(store Store) *Directory {
	d := &Directory{store: store, hasher: newHasher(current()), brake: newBrake(), answers: newOnceSet()}
	rand.Read(d.secret[:])
	d.decoy = current().decoy()
	return d
}

// User returns a user with all her groups; false if there is none of that name, or the store does
// not answer.
func (d *Directory) User(ctx context.Context, name shoal.UserName) (shoal.User, bool) {
	u, err := d.store.Member(ctx, name)
	return u, err == nil
}

// decoyKey is compared with when there is no user: the work is the same. Nobody has its private half.
const decoyKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// CheckKey reports whether a key is one of the user's.
func (d *Directory) CheckKey(ctx context.Context, name shoal.UserName, key ssh.PublicKey) bool {
	u, err := d.store.User(ctx, name)
	usable := err == nil && !u.Disabled
	lines := u.Keys
	if len(lines) == 0 {
		lines, usable = []string{decoyKey}, false
	}
	return holds(lines, key) && usable
}

// holds looks for a key among authorized_keys lines, through to the end. A line with options is
// passed over: what it restricts could not be kept.
func holds(lines []string, key ssh.PublicKey) bool {
	wire := key.Marshal()
	found := 0
	for _, line := range lines {
		k, err := ParseKey(line)
		if err != nil {
			continue
		}
		found |= subtle.ConstantTimeCompare(k.Marshal(), wire)
	}
	return found == 1
}

// ParseKey reads one authorized_keys line: a plain key and perhaps a comment. Options,
// certificates and further lines are KindInvalid.
func ParseKey(line string) (ssh.PublicKey, error) {
	const maxLine = 16 << 10 // an RSA key of 16384 bits takes 3 KiB
	if len(line) > maxLine {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot read an SSH key: it is longer than %d bytes", maxLine)
	}
	key, _, options, rest, err := ssh.ParseAuthorizedKey([]byte(line))
	switch {
	case err != nil:
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot read an SSH key: the line holds none").WithHint("give the line of a .pub file, such as `ssh-ed25519 AAAA… alice@laptop`")
	case len(options) > 0:
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot take an SSH key with options").WithHint("leave out what stands before the key type")
	case len(rest) > 0:
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot read an SSH key: there is more than one line")
	}
	if _, ok := key.(*ssh.Certificate); ok {
		return nil, shoal.Errorf(shoal.KindInvalid, "cannot take a certificate as an SSH key")
	}
	return key, nil
}

// CheckPassword checks a password; see identity.Directory.
func (d *Directory) CheckPassword(ctx context.Context, name shoal.UserName, password, source string) error {
	source = normalSource(source)
	if wait := d.brake.wait(name, source, time.Now()); wait > 0 {
		return identity.TooMany(wait)
	}
	if len(password) > maxPassword {
		d.brake.wrong(name, source, time.Now())
		return identity.Denied()
	}
	u, err := d.store.User(ctx, name)
	if err != nil && shoal.KindOf(err) != shoal.KindNotFound {
		return err
	}
	usable := err == nil && !u.Disabled
	stored, err := d.store.PasswordHash(ctx, name)
	if err != nil {
		return err
	}
	if stored == "" || !usable {
		stored, usable = d.decoy, false
	}
	right, outdated, err := d.hasher.check(ctx, stored, password)
	switch {
	case errors.Is(err, errBusy):
		return identity.TooMany(0)
	case err != nil:
		return err
	case !right || !usable:
		d.brake.wrong(name, source, time.Now())
		return identity.Denied()
	}
	d.brake.right(name, source, time.Now())
	if outdated {
		// Made with older parameters. If this fails the old hash stays good.
		if hash, err := d.hasher.hash(ctx, password); err == nil {
			_ = d.store.SetPasswordHash(ctx, name, hash)
		}
	}
	return nil
}

// The bounds of a password, in bytes.
const (
	minPassword = 8
	maxPassword = 1024
)

// SetPassword gives a user a password, or KindInvalid, KindNotFound. Her API tokens end: whoever got one by the
// former password, which others may have known, must sign in anew.
func (d *Directory) SetPassword(ctx context.Context, name shoal.UserName, password string) error {
	if len(password) < minPassword || len(password) > maxPassword {
		return shoal.Errorf(shoal.KindInvalid, "cannot set the password of user %s: it must have %d to %d bytes", name, minPassword, maxPassword)
	}
	if _, err := d.store.User(ctx, name); err != nil {
		return err
	}
	hash, err := d.hasher.hash(ctx, password)
	if errors.Is(err, errBusy) {
		return identity.TooMany(0)
	}
	if err != nil {
		return err
	}
	if err := d.store.SetPasswordHash(ctx, name, hash); err != nil {
		return err
	}
	return d.store.DropTokens(ctx, name, "")
}

// RemovePassword takes a user's password away, and her API tokens; keys go on working.
func (d *Directory) RemovePassword(ctx context.Context, name shoal.UserName) error {
	if err := d.store.SetPasswordHash(ctx, name, ""); err != nil {
		return err
	}
	return d.store.DropTokens(ctx, name, "")
}

// The kinds of tokens in the store.
const (
	apiKind     = "api"
	browserKind = "web" // in a browser's cookie
)

// IssueToken makes an API token for a user. A ttl of 0 makes one that does not expire.
func (d *Directory) IssueToken(ctx context.Context, name shoal.UserName, ttl time.Duration) (token string, expires time.Time, err error) {
	return d.issue(ctx, apiKind, name, ttl)
}

// TokenUser returns the user of an API token, or KindUnauthenticated.
func (d *Directory) TokenUser(ctx context.Context, token string) (shoal.User, error) {
	return d.bearer(ctx, apiKind, token)
}

// OpenBrowser makes a secret for the cookie of a browser in which a user has signed in. It is no API token, and
// ends where her API tokens do.
func (d *Directory) OpenBrowser(ctx context.Context, name shoal.UserName, ttl time.Duration) (secret string, expires time.Time, err error) {
	return d.issue(ctx, browserKind, name, ttl)
}

// BrowserUser returns the user of a cookie's secret, or KindUnauthenticated.
func (d *Directory) BrowserUser(ctx context.Context, secret string) (shoal.User, error) {
	return d.bearer(ctx, browserKind, secret)
}

// Means is a digest of what a user signs in by. Who gives her something for a proof, and finds another digest once it is
// on record than before the proof, must take it back: what ends with the former means may have ended just before.
func (d *Directory) Means(ctx context.Context, name shoal.UserName) (string, error) {
	u, err := d.store.User(ctx, name)
	unknown := shoal.KindOf(err) == shoal.KindNotFound
	if err != nil && !unknown {
		return "", err
	}
	hash, err := d.store.PasswordHash(ctx, name) // also of nobody: it costs the same
	digest := TokenHash(fmt.Sprintf("%q %q %v", hash, u.Keys, u.Disabled))
	if unknown {
		digest = ""
	}
	return digest, err
}

// CloseBrowser makes a cookie's secret worth nothing. It need not be known.
func (d *Directory) CloseBrowser(ctx context.Context, secret string) error {
	return d.store.DropToken(ctx, TokenHash(secret))
}

// CloseBrowsers makes the secrets in all browsers of a user worth nothing.
func (d *Directory) CloseBrowsers(ctx context.Context, name shoal.UserName) error {
	return d.store.DropTokens(ctx, name, browserKind)
}

func (d *Directory) issue(ctx context.Context, kind string, name shoal.UserName, ttl time.Duration) (token string, expires time.Time, err error) {
	u, err := d.store.User(ctx, name)
	if err != nil {
		return "", expires, err
	}
	if u.Disabled {
		return "", expires, shoal.Errorf(shoal.KindDenied, "cannot give user %s a token: the user is disabled", name)
	}
	if ttl > 0 {
		expires = time.Now().Add(ttl).UTC().Truncate(time.Second)
	}
	token = shoal.NewToken()
	if err := d.store.PutToken(ctx, TokenHash(token), kind, name, expires); err != nil {
		return "", time.Time{}, err
	}
	return token, expires, nil
}

func (d *Directory) bearer(ctx context.Context, kind, token string) (shoal.User, error) {
	u, err := d.store.TokenUser(ctx, TokenHash(token), kind)
	if shoal.KindOf(err) == shoal.KindNotFound || (err == nil && u.Disabled) {
		return shoal.User{}, shoal.Errorf(shoal.KindUnauthenticated, "the token is not valid, or it has expired").
			WithHint("`shoal login` gets a new one")
	}
	return u, err
}

// TokenHash is what is stored of a token. Tokens have too many random bits to be guessed from it.
func TokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}
