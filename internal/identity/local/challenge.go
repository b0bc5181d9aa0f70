package local

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"sync"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/identity"
)

// Namespace is what a signature over a challenge must be made for: ssh-keygen -Y sign -n shoal-login.
const Namespace = "shoal-login"

// challengeLife is how long a challenge can be answered.
const challengeLife = time.Minute

const nonceBytes = 16

// Challenge makes a text for the user to sign within a minute. It is the same sort of text whether
// the user exists or not, and nothing is kept of it here.
func (d *Directory) Challenge(_ context.Context, name shoal.UserName) string {
	raw := make([]byte, nonceBytes+8, nonceBytes+8+sha256.Size)
	rand.Read(raw[:nonceBytes])
	binary.BigEndian.PutUint64(raw[nonceBytes:], uint64(time.Now().Add(challengeLife).UnixNano()))
	return base64.RawURLEncoding.EncodeToString(append(raw, d.seal(name, raw)...))
}

// seal binds a challenge to the user it was made for.
func (d *Directory) seal(name shoal.UserName, raw []byte) []byte {
	mac := hmac.New(sha256.New, d.secret[:])
	mac.Write(raw)
	mac.Write([]byte(name))
	return mac.Sum(nil)
}

// VerifySignature returns nil if signature (the text that ssh-keygen -Y sign writes) is one over a
// challenge made for the user within the last minute, by one of the user's keys. Each challenge is
// good for one success. Otherwise KindUnauthenticated.
func (d *Directory) VerifySignature(ctx context.Context, name shoal.UserName, challenge, signature string) error {
	raw, err := base64.RawURLEncoding.DecodeString(challenge)
	if err != nil || len(raw) != nonceBytes+8+sha256.Size {
		return identity.Denied()
	}
	head, mac := raw[:nonceBytes+8], raw[nonceBytes+8:]
	expires := time.Unix(0, int64(binary.BigEndian.Uint64(head[nonceBytes:])))
	if !hmac.Equal(mac, d.seal(name, head)) || time.Now().After(expires) {
		return identity.Denied()
	}
	sig, err := ParseSignature(signature)
	if err != nil {
		return err
	}
	if sig.Namespace != Namespace || sig.Verify([]byte(challenge)) != nil || !d.CheckKey(ctx, name, sig.Key) {
		return identity.Denied()
	}
	if !d.answers.add(string(head[:nonceBytes]), expires, time.Now()) {
		return identity.Denied()
	}
	return nil
}

// onceSet remembers what was used until it would be of no use anyway. Only good signatures get
// in, so users' own doing bounds it.
type onceSet struct {
	mu   sync.Mutex
	used map[string]time.Time
}

func newOnceSet() *onceSet { return &onceSet{used: map[string]time.Time{}} }

// add returns false if the key is there already.
func (s *onceSet) add(key string, expires, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, at := range s.used {
		if now.After(at) {
			delete(s.used, k)
		}
	}
	if _, ok := s.used[key]; ok {
		return false
	}
	s.used[key] = expires
	return true
}
