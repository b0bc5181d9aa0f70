// Package identity is the seam between Shoal and whoever knows its users. The
// built-in directory is package local; package identitytest is the suite that
// every directory passes.
package identity

import (
	"context"
	"errors"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
)

// Directory knows users and checks what they show to prove who they are. Its methods may be called
// from any goroutine.
type Directory interface {
	// User returns a user with all her groups; false if there is none of that name.
	User(ctx context.Context, name shoal.UserName) (shoal.User, bool)
	// CheckKey reports whether a key is one of the user's. It says nothing about who holds the key.
	// A user who is unknown or disabled costs as much time as one whose key it is not.
	CheckKey(ctx context.Context, name shoal.UserName, key ssh.PublicKey) bool
	// CheckPassword returns nil if the password is the user's; KindUnauthenticated if it is not or
	// there is no such user, at the same cost; KindExhausted, at once and without looking, if there
	// were too many wrong ones for the account or from the source, or too many are being checked.
	CheckPassword(ctx context.Context, name shoal.UserName, password, source string) error
}

// Denied is the error for a proof that does not hold. It does not say what was wrong with it.
func Denied() error {
	return shoal.Errorf(shoal.KindUnauthenticated, "the user or what proves it is not right")
}

// TooMany is the error for a check that was not made because there were too many.
func TooMany(wait time.Duration) error {
	err := shoal.Errorf(shoal.KindExhausted, "there were too many attempts to sign in")
	if wait > 0 {
		wait = wait.Truncate(time.Second) + time.Second
		err.Err = slowed(wait)
		return err.WithHint("try again in %s, or use an SSH key", shoal.Duration(wait))
	}
	return err.WithHint("try again in a moment, or use an SSH key")
}

// slowed is how long somebody is to wait, in whole seconds.
type slowed time.Duration

func (s slowed) Error() string { return "wait " + time.Duration(s).String() }

// RetryAfter is after how many seconds something that failed may be tried again, as TooMany said it: HTTP's Retry-After.
func RetryAfter(err error) string {
	if s, ok := errors.AsType[slowed](err); ok {
		return strconv.Itoa(int(time.Duration(s) / time.Second))
	}
	return "1"
}
