package local

import (
	"context"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/retry"
)

const (
	// waitFor is how long somebody waits for a store that does not answer: as long as a login may take.
	waitFor = time.Minute
	askEach = 250 * time.Millisecond
)

// Patient is the same directory for who logs in: while the store cannot be reached she waits, and is not told that she is wrong.
func (d *Directory) Patient() *Directory {
	p := *d
	p.store = patient{d.store}
	return &p
}

// patient is a Store that waits until it answers, where users are looked up.
type patient struct{ Store }

// User is of Store, as those that follow.
func (p patient) User(ctx context.Context, name shoal.UserName) (shoal.User, error) {
	return wait(ctx, func() (shoal.User, error) { return p.Store.User(ctx, name) })
}

// Member waits for a user with her groups.
func (p patient) Member(ctx context.Context, name shoal.UserName) (shoal.User, error) {
	return wait(ctx, func() (shoal.User, error) { return p.Store.Member(ctx, name) })
}

// PasswordHash waits for a hash.
func (p patient) PasswordHash(ctx context.Context, name shoal.UserName) (string, error) {
	return wait(ctx, func() (string, error) { return p.Store.PasswordHash(ctx, name) })
}

func wait[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	for began := time.Now(); ; {
		answer, err := ask()
		if shoal.KindOf(err) != shoal.KindUnavailable || time.Since(began) > waitFor || retry.Sleep(ctx, askEach) != nil {
			return answer, err
		}
	}
}
