package agenthub

import (
	"strings"
	"testing"
)

// FuzzToken: what parses is written back the same, and nothing makes the parser fail.
func FuzzToken(f *testing.F) {
	for _, s := range []string{"m-1.1.abc", "", "..", "m-1.99999999999999.x", "m-1.-1.x", "a.0.b.c"} {
		f.Add(s)
	}
	h := New(Config{Key: []byte("k")})
	f.Fuzz(func(t *testing.T, s string) {
		c, secret, ok := parseToken(s)
		if !ok {
			return
		}
		want := strings.TrimSuffix(h.machineToken(c), h.seal("machine", c.Machine, c.Epoch)) + secret
		if want != s {
			t.Errorf("%q reads as %v, whose token begins %q", s, c, want)
		}
	})
}
