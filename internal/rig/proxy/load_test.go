package proxy

import (
	"context"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestOnOne: a process that is started there stays there, and the test does not.
func TestOnOne(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	err := OnOne(func() error {
		n, err := exec.Command("nproc").Output()
		if err == nil && string(n) != "1\n" {
			t.Errorf("a process has %s processors", n)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := unix.SchedGetaffinity(0, &after); err != nil || after != before {
		t.Errorf("the processors are %v after %v, %v", after, before, err)
	}
}

// counts measures for longer and longer until there is something to count: on a busy host nothing comes to its end in a tenth of a second.
func counts(t *testing.T, measure func(time.Duration) (float64, error)) {
	t.Helper()
	for length := 100 * time.Millisecond; ; length *= 4 {
		n, err := measure(length)
		if err == nil && n <= 0 && length < time.Minute {
			continue
		}
		if err != nil || n <= 0 {
			t.Errorf("%v in a second, measured for %v: %v", n, length, err)
		}
		return
	}
}

// The measures measure.
func TestLoad(t *testing.T) {
	t.Parallel()
	f, err := NewFast()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	counts(t, func(length time.Duration) (float64, error) {
		return Requests(t.Context(), f.URL[len("http://"):], "/x/fast", 4, length)
	})
	if ms, err := Latency(t.Context(), f.URL[len("http://"):], "/x/fast", 100); err != nil || ms <= 0 {
		t.Errorf("%v ms: %v", ms, err)
	}
	b, err := NewBackend("b")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	addr := b.URL[len("http://"):]
	echoes, err := NewEchoes(3)
	if err != nil {
		t.Fatal(err)
	}
	defer echoes.Close()
	for i, measure := range []func(context.Context, string, []string, time.Duration) (float64, error){echoes.RoundTrips, echoes.Visits} {
		counts(t, func(length time.Duration) (float64, error) {
			return measure(t.Context(), echoes.URLs[i][len("http://"):], []string{"/x", "/y", "/z", "/x"}, length)
		})
	}
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
	for end := time.Now().Add(time.Minute); b.Open.Load() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d websockets are left", b.Open.Load())
		}
	}
}
