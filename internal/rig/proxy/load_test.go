package proxy

import (
	"testing"
	"time"
)

// The measures measure: a backend without a
func TestLoad(t *testing.T) {
	t.Parallel()
	f, err := NewFast()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rate, err := Requests(t.Context(), f.URL[len("http://"):], "/x/fast", 4, 100*time.Millisecond)
	if err != nil || rate <= 0 {
		t.Errorf("%v requests/s: %v", rate, err)
	}
	if ms, err := Latency(t.Context(), f.URL[len("http://"):], "/x/fast", 100); err != nil || ms <= 0 {
		t.Errorf("%v ms: %v", ms, err)
	}
	b, err := NewBackend("b")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	addr := b.URL[len("http://"):]
	trips, err := RoundTrips(t.Context(), f.URL[len("http://"):], "/x", 4, 100*time.Millisecond)
	if err != nil || trips <= 0 {
		t.Errorf("%v round trips/s: %v", trips, err)
	}
	t.Logf("%.0f requests/s, %.0f round trips/s", rate, trips)
	crowd, err := Gather(t.Context(), addr, "/x", 50)
	if err != nil {
		t.Fatal(err)
	}
	if err := crowd.Talk(t.Context()); err != nil {
		t.Error(err)
	}
	if n, err := Ports(b.URL); err != nil || n < 50 {
		t.Errorf("%d ports: %v", n, err)
	}
	crowd.Leave()
	for range 500 {
		if b.Open.Load() == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("%d websockets are left", b.Open.Load())
}
