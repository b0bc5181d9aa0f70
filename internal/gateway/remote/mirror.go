package remote

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/identity/local"
	"github.com/shoal-pool/shoal/internal/retry"
	"github.com/shoal-pool/shoal/internal/whole"
)

// mirror is what the control plane has said: who may come in, and where people are.
type mirror struct {
	AsOf   time.Time                            `json:"asOf"` // when the control plane was heard last
	Users  map[shoal.UserName]api.GatewayUser   `json:"users"`
	Pools  []api.GatewayPool                    `json:"pools"`
	Routes map[shoal.SessionID]api.GatewayRoute `json:"routes"`
}

func newMirror() *mirror {
	return &mirror{Users: map[shoal.UserName]api.GatewayUser{}, Routes: map[shoal.SessionID]api.GatewayRoute{}}
}

// apply takes what a record says. It returns who is not as she was.
func (m *mirror) apply(r api.GatewayRecord) (changed []shoal.UserName) {
	for _, u := range r.Users {
		if _, known := m.Users[u.Name]; known {
			changed = append(changed, u.Name)
		}
		m.Users[u.Name] = u
	}
	for _, name := range r.NoUsers {
		delete(m.Users, name)
		changed = append(changed, name)
	}
	if r.Pools != nil {
		m.Pools = r.Pools
	}
	for _, route := range r.Routes {
		m.Routes[route.Session] = route
	}
	for _, id := range r.NoRoutes {
		delete(m.Routes, id)
	}
	return changed
}

// pool is what is known of a pool; false: nothing.
func (m *mirror) pool(name shoal.PoolName) (api.GatewayPool, bool) {
	for _, p := range m.Pools {
		if p.Name == name {
			return p, true
		}
	}
	return api.GatewayPool{}, false
}

// fresh says why the mirror cannot be gone by; nil: it can. The caller holds mu.
func (g *Gateway) fresh() error {
	switch age := time.Since(g.mirror.AsOf); {
	case g.barred != nil:
		return g.barred
	case age > g.cfg.OfflineFor:
		return fmt.Errorf("it has not answered for longer than %s", shoal.Duration(g.cfg.OfflineFor))
	}
	return nil
}

// people is the mirror as the built-in directory reads it.
type people struct{ g *Gateway }

var _ local.Store = people{}

// User returns a user who may come in.
func (p people) User(_ context.Context, name shoal.UserName) (shoal.User, error) {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	u, known := p.g.mirror.Users[name]
	if !known {
		return shoal.User{}, shoal.Errorf(shoal.KindNotFound, "no user %q", name)
	}
	return shoal.User{Name: u.Name, UID: u.UID, Shell: u.Shell, Groups: u.Groups, Keys: u.Keys}, nil
}

// Member is User, who has all her groups.
func (p people) Member(ctx context.Context, name shoal.UserName) (shoal.User, error) {
	return p.User(ctx, name)
}

var errElsewhere = errors.New("only the control plane has that")

// PasswordHash and what follows are not a gateway's to know.
func (people) PasswordHash(context.Context, shoal.UserName) (string, error) { return "", errElsewhere }

// SetPasswordHash is not.
func (people) SetPasswordHash(context.Context, shoal.UserName, string) error { return errElsewhere }

// PutToken is not.
func (people) PutToken(context.Context, string, string, shoal.UserName, time.Time) error {
	return errElsewhere
}

// TokenUser is not.
func (people) TokenUser(context.Context, string, string) (shoal.User, error) {
	return shoal.User{}, errElsewhere
}

// DropToken is not.
func (people) DropToken(context.Context, string) error { return errElsewhere }

// DropTokens is not.
func (people) DropTokens(context.Context, shoal.UserName, string) error { return errElsewhere }

const (
	mirrorFile = "mirror"
	// keepEvery is how often a mirror that has changed is kept, and renewEvery one that has not: its age counts.
	keepEvery  = 5 * time.Second
	renewEvery = 30 * time.Second
	maxMirror  = 256 << 20
)

// keep keeps the mirror on disk until ctx ends, so that the gateway can be started while the control plane is away.
func (g *Gateway) keep(ctx context.Context) {
	tries := retry.New(g.log, "gateway")
	var kept time.Time
	for {
		over := retry.Sleep(ctx, keepEvery) != nil
		g.mu.Lock()
		due := !g.mirror.AsOf.Equal(kept) && (g.unsaved || over || g.mirror.AsOf.Sub(kept) > renewEvery)
		var text []byte
		var err error
		if due {
			g.unsaved, kept = false, g.mirror.AsOf
			text, err = json.Marshal(g.mirror)
		}
		g.mu.Unlock()
		if due {
			if err == nil {
				err = g.save(text)
			}
			tries.Done(context.WithoutCancel(ctx), "keep what it knows", err)
		}
		if over {
			return
		}
	}
}

func (g *Gateway) save(text []byte) error {
	sealed, err := seal(g.cfg.Seal, text)
	if err != nil {
		return err
	}
	return whole.Write(filepath.Join(g.cfg.Dir, mirrorFile), sealed, 0o600)
}

// load takes the mirror of a former process, if there is one that can be gone by.
func (g *Gateway) load() {
	m, err := readMirror(filepath.Join(g.cfg.Dir, mirrorFile), g.cfg.Seal)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		g.log.Warn("what the gateway knew cannot be read; it waits for the control plane", "err", err)
	case m.AsOf.Before(time.Now()): // a clock that was put back would make it good for ever
		g.mirror = m
	}
}

func readMirror(path string, key []byte) (*mirror, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxMirror {
		return nil, fmt.Errorf("it is longer than %d bytes", maxMirror)
	}
	sealed, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	text, err := unseal(key, sealed)
	if err != nil {
		return nil, err
	}
	m := newMirror()
	return m, json.Unmarshal(text, m)
}

// purpose keeps what is sealed here from being taken for something else that is sealed with the same key.
const purpose = "shoal gateway mirror 1"

func seal(key, text []byte) ([]byte, error) {
	aead, err := aeadOf(key)
	if err != nil {
		return nil, err
	}
	return aead.Seal(nil, nil, text, []byte(purpose)), nil
}

func unseal(key, sealed []byte) ([]byte, error) {
	aead, err := aeadOf(key)
	if err != nil {
		return nil, err
	}
	return aead.Open(nil, nil, sealed, []byte(purpose))
}

func aeadOf(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
