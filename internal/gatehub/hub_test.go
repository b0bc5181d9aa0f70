package gatehub_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/broker"
	"github.com/shoal-pool/shoal/internal/gatehub"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

func newKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func line(key ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key))) }

type ready struct{}

func (ready) AccountsReady(context.Context, shoal.MachineID, shoal.Rev) error { return nil }

// world is a hub over a broker at work.
type world struct {
	t      *testing.T
	db     *store.DB
	own    ssh.PublicKey
	broker *broker.Broker
	*gatehub.Hub
	dialed []shoal.MachineID
	trust  chan struct{} // closed once machines trust gateways; nil: they do
}

// trusted returns once machines trust gateways.
func (w *world) trusted(ctx context.Context, _ shoal.MachineID, _ shoal.Rev) error {
	if w.trust == nil {
		return nil
	}
	select {
	case <-w.trust:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// live is the only session that has not ended.
func (w *world) live() (id shoal.SessionID) {
	w.t.Helper()
	storetest.View(w.t, w.db, func(tx *store.Tx) error {
		sessions, err := tx.LiveSessions()
		if len(sessions) != 1 {
			w.t.Fatalf("%d sessions", len(sessions))
		}
		id = sessions[0].ID
		return err
	})
	return id
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, db: storetest.Open(t), own: newKey(t)}
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		for _, u := range []shoal.UserName{"alice", "bob"} {
			if _, err := tx.Users().Put(shoal.User{Name: u}); err != nil {
				return err
			}
		}
		if _, err := tx.Pools().Put(shoal.Pool{Name: "lab", Uses: []shoal.Use{shoal.UseInteractive}, Seats: 8, Size: shoal.Size{Max: 1}}); err != nil {
			return err
		}
		_, err := tx.Machines().Put(shoal.Machine{ID: "m-1", Pool: "lab", Wanted: shoal.WantRun, Address: "m-1:22", State: shoal.MachineReady, Since: time.Now(), Health: shoal.HealthUp})
		return err
	})
	w.broker = broker.New(broker.Config{Store: w.db, Accounts: ready{}})
	w.Hub = gatehub.New(gatehub.Config{Store: w.db, Key: bytes.Repeat([]byte("k"), 32), Own: w.own, HostCA: newKey(t), Sessions: w.broker, Router: w.broker,
		HostKey:  func() (string, error) { return "the host key", nil },
		Password: func(context.Context, shoal.UserName, string, string) error { return nil }, Trusted: w.trusted,
		Environ: func(context.Context, shoal.UserName, shoal.PoolName) api.GatewayEnviron {
			return api.GatewayEnviron{Vars: map[string]string{"KEY": "secret"}}
		},
		Dial: func(_ context.Context, id shoal.MachineID, _ string) (net.Conn, error) {
			w.dialed = append(w.dialed, id)
			return nil, fmt.Errorf("dialed")
		}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { _ = w.broker.Run(ctx); done <- struct{}{} }()
	go func() { _ = w.Run(ctx); done <- struct{}{} }()
	t.Cleanup(func() { cancel(); <-done; <-done })
	return w
}

// token adds a gateway.
func (w *world) token(name api.GatewayName) string {
	w.t.Helper()
	t, err := w.Add(w.t.Context(), access.Subject{Host: true}, api.AddGateway{Name: name})
	if err != nil {
		w.t.Fatal(err)
	}
	token, _, _ := strings.Cut(t.Token, "\n")
	return token
}

// enrol has a gateway enrol.
func (w *world) enrol(name api.GatewayName) api.GatewayEnrolled {
	w.t.Helper()
	e, err := w.Enrol(w.t.Context(), api.GatewayEnrol{Token: w.token(name), Key: line(newKey(w.t))})
	if err != nil {
		w.t.Fatal(err)
	}
	return e
}

// login logs a user in through a gateway.
func (w *world) login(gateway api.GatewayName, user shoal.UserName, part string) api.GatewayRoute {
	w.t.Helper()
	var last api.GatewayAnswer
	if err := w.Login(w.t.Context(), gateway, api.GatewayLogin{Part: part, User: user, Pool: "lab"}, func(a api.GatewayAnswer) error { last = a; return nil }); err != nil || last.Route == nil {
		w.t.Fatalf("%s through %s: %+v, %v", user, gateway, last, err)
	}
	return *last.Route
}

// parts are all on record.
func (w *world) parts() (all []string) {
	synctest.Wait()
	storetest.View(w.t, w.db, func(tx *store.Tx) error {
		sessions, err := tx.LiveSessions()
		for _, s := range sessions {
			for _, p := range s.Parts {
				all = append(all, p.ID)
			}
		}
		return err
	})
	slices.Sort(all)
	return all
}

func is(t *testing.T, what string, err error, kind shoal.Kind) {
	t.Helper()
	if shoal.KindOf(err) != kind || err == nil {
		t.Errorf("%s: %v, want %s", what, err, kind)
	}
}

// A token is for one name and one key, for a while, and for nothing else.
func TestEnrol(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, admin := t.Context(), access.Subject{Host: true}
		key, token := line(newKey(t)), w.token("one")
		e, err := w.Enrol(ctx, api.GatewayEnrol{Token: token, Key: key})
		if err != nil || e.Name != "one" || e.HostKey != "the host key" || !slices.Equal(w.Keys(), []string{line(w.own), key}) {
			t.Fatalf("%+v, %v; trusted are %q", e, err, w.Keys())
		}
		if again, err := w.Enrol(ctx, api.GatewayEnrol{Token: token, Key: key + " a comment"}); err != nil || again != e {
			t.Errorf("again: %+v, %v", again, err)
		}
		if by, err := w.Caller(ctx, e.Token); err != nil || by.Gateway != "one" {
			t.Errorf("%+v, %v", by, err)
		}
		_, err = w.Enrol(ctx, api.GatewayEnrol{Token: token, Key: line(newKey(t))})
		is(t, "with another key", err, shoal.KindDenied)
		_, err = w.Add(ctx, admin, api.AddGateway{Name: "one"})
		is(t, "a second of that name", err, shoal.KindConflict)
		_, err = w.Enrol(ctx, api.GatewayEnrol{Token: e.Token, Key: key})
		is(t, "to enrol with a gateway's own token", err, shoal.KindUnauthenticated)
		_, err = w.Enrol(ctx, api.GatewayEnrol{Token: w.token("two"), Key: key})
		is(t, "with a key of another's", err, shoal.KindConflict)
		_, err = w.Enrol(ctx, api.GatewayEnrol{Token: w.token("two"), Key: line(w.own)})
		is(t, "with the server's own key", err, shoal.KindConflict)
		second := w.token("two")
		for _, bad := range []string{"", "ssh-ed25519 AAAA", key + "\n" + key, `command="x" ` + key, strings.Repeat("x", 1<<20)} {
			_, err = w.Enrol(ctx, api.GatewayEnrol{Token: second, Key: bad})
			is(t, "with key "+bad[:min(len(bad), 20)], err, shoal.KindInvalid)
		}
		for _, bad := range []string{"", token, second, "two." + strings.Repeat("0", 64), "none." + e.Token, e.Token + "0", strings.Repeat("x", 1<<20), "../one.x"} {
			_, err := w.Caller(ctx, bad)
			is(t, "as "+bad[:min(len(bad), 20)], err, shoal.KindUnauthenticated)
		}
		time.Sleep(time.Hour + time.Second)
		_, err = w.Enrol(ctx, api.GatewayEnrol{Token: second, Key: line(newKey(t))})
		is(t, "too late", err, shoal.KindUnauthenticated)
		third := w.token("two")
		if err := w.Remove(ctx, admin, "two"); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Nanosecond)
		w.token("two")
		_, err = w.Enrol(ctx, api.GatewayEnrol{Token: third, Key: line(newKey(t))})
		is(t, "with a token of before it was removed", err, shoal.KindUnauthenticated)
		if err := w.Remove(ctx, admin, "one"); err != nil || len(w.Keys()) != 1 {
			t.Errorf("%v; trusted are %q", err, w.Keys())
		}
		_, err = w.Caller(ctx, e.Token)
		is(t, "one that was removed", err, shoal.KindUnauthenticated)
		for _, by := range []access.Subject{{}, {User: "alice", Role: shoal.RoleMember}, {User: "oscar", Role: shoal.RoleOperator}, {Service: access.ServiceGateway, Gateway: "two"}} {
			_, err := w.Add(ctx, by, api.AddGateway{Name: "three"})
			if err == nil {
				t.Errorf("%+v adds a gateway", by)
			}
			if err := w.Remove(ctx, by, "two"); err == nil {
				t.Errorf("%+v removes a gateway", by)
			}
		}
	})
}

// A gateway is believed about its own connections only.
func TestNotAnothers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx := t.Context()
		w.enrol("one")
		w.enrol("two")
		r := w.login("one", "alice", "ssh-1")
		want := []string{"one/ssh-1"}
		closed := api.GatewayPart{Part: "ssh-1", Session: r.Session}
		for what, report := range map[string]api.GatewayReport{
			"closes it": {Closed: []api.GatewayPart{closed}}, "closes it without the session": {Closed: []api.GatewayPart{{Part: "ssh-1"}}},
			"has nothing": {All: true}, "suspects its machine": {Suspect: []shoal.MachineID{"m-1"}}, "uses it": {Used: []shoal.SessionID{r.Session}},
			"claims a session elsewhere": {All: true, Parts: []api.GatewayPart{{Part: "x", Session: r.Session, Machine: "m-2"}}},
			"claims one that is none":    {All: true, Parts: []api.GatewayPart{{Part: "x", Session: "s-none", Machine: "m-1"}}},
		} {
			if err := w.Report(ctx, "two", report); err != nil || !slices.Equal(w.parts(), want) {
				t.Errorf("when two %s: %v, %q", what, err, w.parts())
			}
		}
		for what, report := range map[string]api.GatewayReport{
			"names another": {Closed: []api.GatewayPart{{Part: "../one/ssh-1", Session: r.Session}}},
			"says too much": {Parts: make([]api.GatewayPart, 30_000)},
			"is long":       {Closed: []api.GatewayPart{{Part: strings.Repeat("x", 1000)}}},
			"tells lines":   {All: true, Parts: []api.GatewayPart{{Part: "x", Session: r.Session, Machine: "m-1", Source: "a\nb"}}},
		} {
			is(t, "two "+what, w.Report(ctx, "two", report), shoal.KindInvalid)
		}
		_, err := w.Environ(ctx, "two", api.GatewayPlace{User: "alice", Pool: "lab"})
		is(t, "two asks for her secrets", err, shoal.KindDenied)
		_, err = w.Dialed(ctx, "two", "m-1")
		is(t, "two wants to her machine", err, shoal.KindDenied)
		_, err = w.Environ(ctx, "one", api.GatewayPlace{User: "bob", Pool: "lab"})
		is(t, "one asks for another's secrets", err, shoal.KindDenied)
		if e, err := w.Environ(ctx, "one", api.GatewayPlace{User: "alice", Pool: "lab"}); err != nil || e.Vars["KEY"] != "secret" {
			t.Errorf("one asks for hers: %+v, %v", e, err)
		}
		if _, err := w.Dialed(ctx, "one", "m-1"); err == nil || len(w.dialed) != 1 {
			t.Errorf("one wants to her machine: %v, %q", err, w.dialed)
		}
		for _, bad := range []api.GatewayLogin{{User: "alice"}, {Part: "a/b", User: "alice"}, {Part: "x", User: "alice\n"}, {Part: "x", User: shoal.UserName(strings.Repeat("a", 1000))}} {
			is(t, "a login as no gateway sends", w.Login(ctx, "two", bad, func(api.GatewayAnswer) error { return nil }), shoal.KindInvalid)
		}
		// Its own it may close.
		if err := w.Report(ctx, "one", api.GatewayReport{Closed: []api.GatewayPart{closed}}); err != nil || len(w.parts()) > 0 {
			t.Errorf("when one closes it: %v, %q", err, w.parts())
		}
	})
}

// What a gateway has is on record as long as it says so, and for a while after.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ctx, end := context.WithCancel(t.Context())
		w.enrol("one")
		records := make(chan api.GatewayRecord, 100)
		streaming := make(chan error, 1)
		go func() {
			streaming <- w.Stream(ctx, "one", "first", func(all ...api.GatewayRecord) error {
				for _, r := range all {
					if len(r.Ended) > 0 {
						records <- r
					}
				}
				return nil
			})
		}()
		synctest.Wait()
		is(t, "another process", w.Stream(t.Context(), "one", "second", func(...api.GatewayRecord) error { return nil }), shoal.KindConflict)
		r := w.login("one", "alice", "ssh-1")
		has := []api.GatewayPart{{Part: "ssh-1", Session: r.Session, Machine: "m-1"}, {Part: "ssh-2", Session: r.Session, Machine: "m-1"}, {Part: "ssh-3"}}
		for range 20 {
			if err := w.Report(ctx, "one", api.GatewayReport{All: true, Parts: has}); err != nil || !slices.Equal(w.parts(), []string{"one/ssh-1", "one/ssh-2"}) {
				t.Fatalf("%v, %q", err, w.parts())
			}
			time.Sleep(api.GatewayReportEvery)
		}
		if err := w.broker.End(ctx, r.Session); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		ended := false
		for len(records) > 0 {
			ended = slices.Contains((<-records).Ended, r.Session) || ended
		}
		if !ended {
			t.Error("the gateway is not told that the session has ended")
		}
		w.login("one", "bob", "ssh-4")
		end()
		is(t, "the stream", <-streaming, shoal.KindCancelled)
		time.Sleep(40 * time.Second)
		if !slices.Equal(w.parts(), []string{"one/ssh-4"}) {
			t.Errorf("within the grace there are %q", w.parts())
		}
		time.Sleep(30 * time.Second)
		if len(w.parts()) > 0 {
			t.Errorf("after it there are %q", w.parts())
		}
	})
}

// A session that ends while its login still waits for the machine to trust the gateway is not forgotten, nor one whose gateway
// connects anew meanwhile.
func TestEndsWhileTheMachineLearnsToTrust(t *testing.T) {
	for _, anew := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			w.enrol("one")
			trust := make(chan struct{})
			w.trust = trust
			var known sync.Map // sessions, of the gateway
			var told atomic.Bool
			stream := func(ctx context.Context) {
				_ = w.Stream(ctx, "one", "first", func(all ...api.GatewayRecord) error {
					for _, r := range all {
						for _, id := range r.Ended {
							if _, ok := known.Load(id); ok {
								told.Store(true)
							}
						}
					}
					return nil
				})
			}
			ctx, end := context.WithCancel(t.Context())
			defer end()
			go stream(ctx)
			time.Sleep(time.Second)
			go func() {
				_ = w.Login(t.Context(), "one", api.GatewayLogin{Part: "ssh-1", User: "alice", Pool: "lab"}, func(a api.GatewayAnswer) error {
					if a.Route != nil {
						known.Store(a.Route.Session, true)
					}
					if a.Refused != nil {
						told.Store(true)
					}
					return nil
				})
			}()
			synctest.Wait()
			id := w.live()
			if anew {
				go stream(ctx)
				synctest.Wait()
				if err := w.Report(ctx, "one", api.GatewayReport{All: true, Parts: []api.GatewayPart{{Part: "ssh-1"}}}); err != nil {
					t.Error(err)
				}
				close(trust)
				synctest.Wait()
			}
			if err := w.broker.End(ctx, id); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			if !anew {
				close(trust)
			}
			time.Sleep(time.Second)
			if !told.Load() {
				t.Errorf("the gateway is not told that the session has ended (connected anew: %t)", anew)
			}
		})
	}
}

// Whatever a token says, it is looked at within bounds.
func FuzzCaller(f *testing.F) {
	for _, s := range []string{"", "one.0123", "one.", ".x", "a.b.c", "../x.y"} {
		f.Add(s)
	}
	key, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	own, err := ssh.NewPublicKey(key)
	if err != nil {
		f.Fatal(err)
	}
	h := gatehub.New(gatehub.Config{Store: storetest.Open(f), Key: make([]byte, 32), Own: own, HostCA: own})
	f.Fuzz(func(t *testing.T, token string) {
		_, err := h.Caller(t.Context(), token)
		is(t, token, err, shoal.KindUnauthenticated)
		_, err = h.Enrol(t.Context(), api.GatewayEnrol{Token: token, Key: token})
		is(t, token, err, shoal.KindUnauthenticated)
	})
}
