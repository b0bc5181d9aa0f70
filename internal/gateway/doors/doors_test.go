package doors

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/gateway"
	"github.com/shoal-pool/shoal/internal/need"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// port is one that is nobody else's.
func port(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(need.Port(t))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for range 20_000 {
		if is() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("waited in vain until %s", what)
}

func TestDoorsFollowThePools(t *testing.T) {
	t.Parallel()
	db := storetest.Open(t)
	var mu sync.Mutex
	seen := map[string]int{}
	front := func(ctx context.Context, ln net.Listener, pool shoal.PoolName, e shoal.Endpoint) error {
		for {
			c, err := gateway.Accept(ctx, ln)
			if errors.Is(err, net.ErrClosed) || ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			seen[string(pool)+"/"+e.Name+"/"+strconv.Itoa(e.Port)]++
			mu.Unlock()
			c.Close()
		}
	}
	d := New(Config{Store: db, Host: "127.0.0.1", Listen: new(net.ListenConfig).Listen, Fronts: map[string]Front{shoal.ProtocolRDP: front, shoal.ProtocolTCP: front}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	put := func(name shoal.PoolName, all ...shoal.Endpoint) {
		t.Helper()
		storetest.Update(t, db, func(tx *store.Tx) error {
			p, err := tx.Pools().Get(name)
			if err != nil {
				p = shoal.Pool{Name: name, Provider: "fake"}
			}
			p.Endpoints = all
			_, err = tx.Pools().Put(p)
			return err
		})
	}
	why := func(pool shoal.PoolName) string {
		all := ""
		for _, r := range d.Why(pool) {
			all += r.Code + ": " + r.Sentence + "\n"
		}
		return all
	}

	first, second := port(t), port(t)
	put("lab", shoal.Endpoint{Name: "desktop", Protocol: shoal.ProtocolRDP, Port: 3389, Listen: first}, shoal.Endpoint{Name: "web", Protocol: shoal.ProtocolHTTP, Command: "x"})
	until(t, "the door is open", func() bool { a, _ := d.Address("lab", "desktop"); return a != "" })
	address, _ := d.Address("lab", "desktop")
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	until(t, "somebody came", func() bool { mu.Lock(); defer mu.Unlock(); return seen["lab/desktop/3389"] == 1 })
	if got := why("lab"); !strings.Contains(got, "endpoint desktop (rdp) is reached at "+address) || strings.Contains(got, "web") {
		t.Error(got)
	}

	// Another pool wants the same port, and a third one that somebody else has.
	taken, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(second)))
	if err != nil {
		t.Fatal(err)
	}
	put("other", shoal.Endpoint{Name: "desktop", Protocol: shoal.ProtocolRDP, Port: 3389, Listen: first})
	put("third", shoal.Endpoint{Name: "licence", Protocol: shoal.ProtocolTCP, Port: second})
	until(t, "both are told", func() bool {
		return strings.Contains(why("other"), "endpoint desktop of pool lab listens there") && strings.Contains(why("third"), "address already in use")
	})
	if a, why := d.Address("third", "licence"); a != "" || !strings.Contains(why, "cannot be had: ") || !strings.Contains(why, "address already in use") {
		t.Errorf("what another process has: %q, %q", a, why)
	}
	if a, why := d.Address("third", "none"); a != "" || why != "" {
		t.Errorf("what is not there: %q, %q", a, why)
	}
	taken.Close()
	put("lab") // has none any more
	until(t, "other gets the port", func() bool { a, why := d.Address("other", "desktop"); return a != "" && why == "" })
	until(t, "third gets its own", func() bool { a, _ := d.Address("third", "licence"); return a != "" })
	if got := why("lab") + why("other"); strings.Contains(got, "Shut") {
		t.Error(got)
	}

	// The machine's port changes: the door is another.
	put("other", shoal.Endpoint{Name: "desktop", Protocol: shoal.ProtocolRDP, Port: 3390, Listen: first})
	until(t, "it leads elsewhere", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		mu.Lock()
		defer mu.Unlock()
		return seen["other/desktop/3390"] > 0
	})
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Error("a door is open after the end")
	}
}

func TestAFrontThatFailsIsBegunAnew(t *testing.T) {
	t.Parallel()
	db := storetest.Open(t)
	storetest.Update(t, db, func(tx *store.Tx) error {
		_, err := tx.Pools().Put(shoal.Pool{Name: "lab", Provider: "fake", Endpoints: []shoal.Endpoint{{Name: "x", Protocol: shoal.ProtocolTCP, Port: 7, Listen: 1}}})
		return err
	})
	began := make(chan struct{}, 10)
	d := New(Config{Store: db, Host: "127.0.0.1", Listen: func(context.Context, string, string) (net.Listener, error) {
		return net.Listen("tcp", "127.0.0.1:0")
	}, Fronts: map[string]Front{shoal.ProtocolTCP: func(ctx context.Context, _ net.Listener, _ shoal.PoolName, _ shoal.Endpoint) error {
		began <- struct{}{}
		return errors.New("broken")
	}}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	<-began
	<-began
	cancel()
	<-ended
}
