package probes_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/host/probes"
)

// world answers questions as it is told.
type world struct {
	mu    sync.Mutex
	err   error
	asked int
}

func (w *world) ask(context.Context, api.EndpointProbe) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked++
	return w.err
}

func (w *world) be(err error) { w.mu.Lock(); w.err = err; w.mu.Unlock() }

func probe() api.EndpointProbe {
	return api.EndpointProbe{Name: "desktop", Protocol: "rdp", Port: 3389, Interval: shoal.Duration(15 * time.Second), Timeout: shoal.Duration(2 * time.Minute), Threshold: 2}
}

// collect returns what is reported, and acknowledges it.
func collect(p *probes.Prober) string {
	all, sent := p.Collect()
	sent()
	var out []string
	for _, r := range all {
		out = append(out, r.Name+":"+r.Ill)
	}
	return strings.Join(out, " ")
}

func TestThreshold(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var w world
		p := probes.New(w.ask)
		defer p.Close()
		p.Want([]api.EndpointProbe{probe()})
		after := func(d time.Duration, want, what string) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if got := collect(p); got != want {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
		after(time.Second, "desktop:", "it answers at once")
		after(time.Minute, "", "it goes on answering")
		w.be(errors.New("nobody there"))
		after(15*time.Second, "", "one question without an answer")
		after(15*time.Second, "desktop:nobody there", "two")
		w.be(errors.New("still nobody there"))
		after(time.Minute, "", "other words for the same")
		p.Want([]api.EndpointProbe{probe()})
		after(0, "desktop:nobody there", "all is told again")
		w.be(nil)
		after(15*time.Second, "desktop:", "it answers again")
		p.Want(nil)
		asked := w.asked
		after(time.Hour, "", "it is not asked any more")
		if w.asked != asked {
			t.Errorf("%d questions since", w.asked-asked)
		}
	})
}

// What has never answered has time to come up.
func TestComesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := world{err: errors.New("nobody there")}
		p := probes.New(w.ask)
		defer p.Close()
		p.Want([]api.EndpointProbe{probe()})
		time.Sleep(119 * time.Second)
		synctest.Wait()
		if got := collect(p); got != "" {
			t.Errorf("it is said to be %q too soon", got)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := collect(p); got != "desktop:nobody there" {
			t.Errorf("it is said to be %q", got)
		}
	})
}

func TestAsker(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	q := api.EndpointProbe{Name: "db", Protocol: "tcp", Port: l.Addr().(*net.TCPAddr).Port}
	ask := probes.Asker(func(context.Context, string) error { return errors.New("it does not speak TLS") })
	if err := ask(t.Context(), q); err != nil {
		t.Errorf("what listens: %v", err)
	}
	q.Protocol = "rdp"
	if err := ask(t.Context(), q); err == nil || !strings.Contains(err.Error(), "does not speak TLS") {
		t.Errorf("what is no desktop: %v", err)
	}
	q.Protocol = "tcp"
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ask(t.Context(), q); err == nil || !strings.Contains(err.Error(), "nothing listens") {
		t.Errorf("nothing: %v", err)
	}
}
