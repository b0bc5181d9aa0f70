package local

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// params are argon2id's.
type params struct {
	memory  uint32 // KiB
	time    uint32
	threads uint8
}

// current is OWASP's recommendation of 2026 for argon2id: 19 MiB, two passes, one lane.
func current() params { return params{memory: 19 << 10, time: 2, threads: 1} }

const (
	saltBytes = 16
	hashBytes = 32

	maxChecks = 4  // at once: each takes its memory and a processor
	maxQueue  = 16 // more are turned away: they would only wait for their time to run out
)

var (
	errBusy   = errors.New("too many passwords are being checked")
	errFormat = errors.New("the stored password hash cannot be read")
)

// hasher makes and checks hashes, a bounded number at once.
type hasher struct {
	params
	slots chan struct{} // one per running check
	queue chan struct{} // one per running or waiting check
}

func newHasher(p params) *hasher {
	return &hasher{params: p, slots: make(chan struct{}, maxChecks), queue: make(chan struct{}, maxChecks+maxQueue)}
}

// enter takes a slot, or returns errBusy at once when too many wait.
func (h *hasher) enter(ctx context.Context) (leave func(), err error) {
	select {
	case h.queue <- struct{}{}:
	default:
		return nil, errBusy
	}
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots; <-h.queue }, nil
	case <-ctx.Done():
		<-h.queue
		return nil, ctx.Err()
	}
}

// hash makes the stored form of a password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	leave, err := h.enter(ctx)
	if err != nil {
		return "", err
	}
	defer leave()
	salt := make([]byte, saltBytes)
	rand.Read(salt)
	return h.encode(salt, h.sum(password, salt)), nil
}

// check reports whether a password is the one of a stored hash, and whether that hash was made
// with other parameters than new ones are.
func (h *hasher) check(ctx context.Context, stored, password string) (right, outdated bool, err error) {
	p, salt, want, err := decode(stored)
	if err != nil {
		return false, false, err
	}
	leave, err := h.enter(ctx)
	if err != nil {
		return false, false, err
	}
	defer leave()
	got := argon2.IDKey([]byte(password), salt, p.time, p.memory, p.threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(got, want) == 1, p != h.params || len(want) != hashBytes, nil
}

func (p params) sum(password string, salt []byte) []byte {
	return argon2.IDKey([]byte(password), salt, p.time, p.memory, p.threads, hashBytes)
}

// decoy is a well-formed hash that no password has.
func (p params) decoy() string {
	random := make([]byte, saltBytes+hashBytes)
	rand.Read(random)
	return p.encode(random[:saltBytes], random[saltBytes:])
}

// encode writes the PHC string format: $argon2id$v=19$m=19456,t=2,p=1$SALT$HASH.
func (p params) encode(salt, hash []byte) string {
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.memory, p.time, p.threads,
		enc.EncodeToString(salt), enc.EncodeToString(hash))
}

// decode reads what encode writes, within bounds that a check can bear.
func decode(s string) (p params, salt, hash []byte, err error) {
	fields := strings.Split(s, "$")
	if len(fields) != 6 || fields[0] != "" || fields[1] != "argon2id" || fields[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, nil, nil, errFormat
	}
	if _, err := fmt.Sscanf(fields[3], "m=%d,t=%d,p=%d", &p.memory, &p.time, &p.threads); err != nil {
		return p, nil, nil, errFormat
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(fields[4])
	hash, err2 := base64.RawStdEncoding.DecodeString(fields[5])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(salt) > 64 || len(hash) < 16 || len(hash) > 64 ||
		p.memory < 8 || p.memory > 1<<20 || p.time < 1 || p.time > 64 || p.threads < 1 || p.threads > 64 {
		return p, nil, nil, errFormat
	}
	return p, salt, hash, nil
}
