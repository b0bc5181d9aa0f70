package app

import "testing"

// A hub on another host does not reach users' servers.
func TestOnThisHost(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]bool{
		"http://127.0.0.1:8081": true, "http://[::1]:8081": true, "http://localhost:8081": true,
		"http://192.0.2.7:8081": false, "http://[2001:db8::7]": false, "://": false,
	} {
		if got := onThisHost(at); got != want {
			t.Errorf("%s: %t", at, got)
		}
	}
}
