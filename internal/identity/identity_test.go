package identity_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/identity"
)

// TestRetryAfter: programs are told to wait as long as people are.
func TestRetryAfter(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration][2]string{0: {"1", "try again in a moment, or use an SSH key"},
		3500 * time.Millisecond: {"4", "try again in 4s, or use an SSH key"}, 89 * time.Second: {"90", "try again in 1m30s, or use an SSH key"}} {
		err := fmt.Errorf("login: %w", identity.TooMany(wait))
		if got := identity.RetryAfter(err); got != want[0] || shoal.HintOf(identity.TooMany(wait)) != want[1] || shoal.KindOf(err) != shoal.KindExhausted {
			t.Errorf("%s: %s, %v", wait, got, err)
		}
	}
	if got := identity.RetryAfter(identity.Denied()); got != "1" {
		t.Error(got)
	}
}
