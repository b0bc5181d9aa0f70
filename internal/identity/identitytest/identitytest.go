// Package identitytest is the suite that every directory of users passes.
package identitytest

import (
	"crypto/ed25519"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/identity"
)

// Person is a user the suite wants the directory to have.
type Person struct {
	shoal.User
	Password string // empty: none
}

// Signer makes an ed25519 key, the same for the same seed.
func Signer(t testing.TB, seed byte) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromKey(ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune('a'+seed)), ed25519.SeedSize))))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Line is the authorized_keys line of a signer's key.
func Line(s ssh.Signer) string {
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(s.PublicKey())))
}

const goodPassword = "correct horse battery"

// Run runs the suite. open makes a directory that has exactly these people.
func Run(t *testing.T, open func(testing.TB, []Person) identity.Directory) {
	mine, hers, options := Signer(t, 0), Signer(t, 1), Signer(t, 2)
	people := []Person{
		{shoal.User{Name: "alice", UID: 20001, Keys: []string{"# not a key", Line(mine) + " alice@laptop"}}, goodPassword},
		{shoal.User{Name: "bob", UID: 20002, Keys: []string{Line(hers), `command="/bin/false" ` + Line(options)}}, ""},
		{shoal.User{Name: "off", UID: 20003, Keys: []string{Line(mine)}, Disabled: true}, goodPassword},
	}
	d := open(t, people)
	t.Run("users", func(t *testing.T) {
		u, ok := d.User(t.Context(), "alice")
		if !ok || u.UID != 20001 {
			t.Errorf("%+v, %v", u, ok)
		}
		if _, ok := d.User(t.Context(), "nobody"); ok {
			t.Error("there is a user nobody")
		}
	})
	t.Run("keys", func(t *testing.T) {
		for _, c := range []struct {
			name shoal.UserName
			key  ssh.Signer
			want bool
		}{
			{"alice", mine, true}, {"alice", hers, false}, {"bob", hers, true}, {"bob", mine, false},
			{"bob", options, false}, {"off", mine, false}, {"nobody", mine, false}, {"", mine, false},
		} {
			if got := d.CheckKey(t.Context(), c.name, c.key.PublicKey()); got != c.want {
				t.Errorf("%s: %v, want %v", c.name, got, c.want)
			}
		}
	})
	t.Run("passwords", func(t *testing.T) { testPasswords(t, d) })
	t.Run("guessing", func(t *testing.T) { testGuessing(t, open(t, people), mine.PublicKey()) })
	t.Run("crowd", func(t *testing.T) { testCrowd(t, open(t, people)) })
}

func testPasswords(t *testing.T, d identity.Directory) {
	for i, c := range []struct {
		name     shoal.UserName
		password string
		want     shoal.Kind
	}{
		{"alice", goodPassword, ""}, {"alice", goodPassword + " ", shoal.KindUnauthenticated}, {"alice", "", shoal.KindUnauthenticated},
		{"alice", strings.Repeat("x", 1<<20), shoal.KindUnauthenticated}, {"bob", "", shoal.KindUnauthenticated},
		{"bob", goodPassword, shoal.KindUnauthenticated}, {"off", goodPassword, shoal.KindUnauthenticated},
		{"nobody", goodPassword, shoal.KindUnauthenticated}, {"alice", goodPassword, ""},
	} {
		err := d.CheckPassword(t.Context(), c.name, c.password, fmt.Sprintf("192.0.2.%d:1234", i))
		if c.want == "" && err != nil || c.want != "" && shoal.KindOf(err) != c.want {
			t.Errorf("%d: %s: %v, want %q", i, c.name, err, c.want)
		}
	}
	wrong := d.CheckPassword(t.Context(), "alice", "wrong", "192.0.2.100")
	unknown := d.CheckPassword(t.Context(), "nobody", "wrong", "192.0.2.101")
	if wrong == nil || unknown == nil || wrong.Error() != unknown.Error() {
		t.Errorf("a wrong password and an unknown user differ: %v, %v", wrong, unknown)
	}
}

// Guessing from one source is slowed down, and neither keys nor the user's own source suffer.
func testGuessing(t *testing.T, d identity.Directory, key ssh.PublicKey) {
	if err := d.CheckPassword(t.Context(), "alice", goodPassword, "198.51.100.7:22"); err != nil {
		t.Fatal(err)
	}
	slowed := false
	for i := range 30 {
		err := d.CheckPassword(t.Context(), "alice", fmt.Sprint("guess", i), fmt.Sprintf("192.0.2.1:%d", 1000+i))
		slowed = slowed || shoal.KindOf(err) == shoal.KindExhausted
	}
	if !slowed {
		t.Error("thirty guesses in a row were all looked at")
	}
	if !d.CheckKey(t.Context(), "alice", key) {
		t.Error("guesses at her password lock her key out")
	}
	if err := d.CheckPassword(t.Context(), "alice", goodPassword, "198.51.100.7:9999"); err != nil {
		t.Errorf("guesses from elsewhere lock her out where she signs in: %v", err)
	}
}

// A crowd of guessers is turned away rather than queued, and a key is checked meanwhile.
func testCrowd(t *testing.T, d identity.Directory) {
	const n = 100
	results := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			results[i] = d.CheckPassword(t.Context(), shoal.UserName(fmt.Sprint("u", i)), "x", fmt.Sprintf("2001:db8:%x::1", i))
		})
	}
	wg.Wait()
	if !slices.ContainsFunc(results, func(err error) bool { return shoal.KindOf(err) == shoal.KindExhausted }) {
		t.Error("a hundred checks at once were all made")
	}
	for _, err := range results {
		if k := shoal.KindOf(err); k != shoal.KindExhausted && k != shoal.KindUnauthenticated {
			t.Errorf("%v", err)
		}
	}
	deadline := time.Now().Add(30 * time.Second)
	for d.CheckPassword(t.Context(), "alice", goodPassword, "203.0.113.5") != nil {
		if time.Now().After(deadline) {
			t.Fatal("after the crowd nobody gets in")
		}
		time.Sleep(50 * time.Millisecond)
	}
}
