package httpapi_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
	"github.com/shoal-pool/shoal/internal/access"
	"github.com/shoal-pool/shoal/internal/agenthub"
	"github.com/shoal-pool/shoal/internal/apps"
	"github.com/shoal-pool/shoal/internal/batch"
	"github.com/shoal-pool/shoal/internal/broker"
	"github.com/shoal-pool/shoal/internal/catalog"
	"github.com/shoal-pool/shoal/internal/engine"
	"github.com/shoal-pool/shoal/internal/gatehub"
	"github.com/shoal-pool/shoal/internal/httpapi"
	"github.com/shoal-pool/shoal/internal/identity/local"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
	"github.com/shoal-pool/shoal/internal/web"
)

// world is the API on real services, with a pool, a ready machine, and people of all sorts:
// alice and carol are of the group research, bob is not, oscar is an operator, ada an admin.
type world struct {
	t      testing.TB
	dir    string
	db     *store.DB
	people *local.Directory
	hub    *agenthub.Hub
	batch  *batch.Batch
	broker *broker.Broker
	apps   *apps.Apps
	cfg    httpapi.Config
	api    *httpapi.API
	log    *lockedBuffer
	tokens map[string]string // by subject
	mtoken string            // of machine m-1
	images *images
	orders chan shoal.AttemptRef // what m-1 is told to run
}

const (
	adminToken = "the-admin-token"
	hubToken   = "the-token-of-the-hub"
)

// anyPool allows all pools and users.
type anyPool struct{}

func (anyPool) CheckPool(context.Context, shoal.Pool, []shoal.Share) error { return nil }
func (anyPool) CheckUser(context.Context, shoal.User) error                { return nil }

// images is a keeper of images.
type images struct {
	mu   sync.Mutex
	kept []string
}

func (i *images) Images(context.Context) ([]api.Image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var all []api.Image
	for _, name := range i.kept {
		all = append(all, api.Image{Name: name})
	}
	return all, nil
}

func (i *images) Snapshot(_ context.Context, name string) (api.Image, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.kept = append(i.kept, name)
	return api.Image{Name: name}, nil
}

func (i *images) RemoveImage(context.Context, string) error { return nil }

type lockedBuffer struct {
	mu sync.Mutex
	bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Buffer.String()
}

type waiter func(context.Context, shoal.MachineID, shoal.Rev) error

func (f waiter) AccountsReady(ctx context.Context, id shoal.MachineID, rev shoal.Rev) error {
	return f(ctx, id, rev)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), log: &lockedBuffer{}, tokens: map[string]string{}, images: &images{}, orders: make(chan shoal.AttemptRef, 1000)}
	w.db = storetest.OpenAt(t, filepath.Join(w.dir, "store.db"))
	w.people = local.New(store.Credentials{DB: w.db})
	eng := engine.New(engine.Config{Store: w.db})
	w.broker = broker.New(broker.Config{Store: w.db, Accounts: waiter(func(ctx context.Context, id shoal.MachineID, rev shoal.Rev) error {
		return w.hub.AccountsReady(ctx, id, rev)
	})})
	var err error
	w.batch, err = batch.New(batch.Config{Store: w.db, Dir: filepath.Join(w.dir, "output"), Wake: func() {},
		Send: func(id shoal.MachineID, r api.Record) bool {
			if r.Run != nil {
				w.orders <- r.Run.Ref
			}
			return w.hub.Send(id, r)
		}})
	if err != nil {
		t.Fatal(err)
	}
	w.hub = agenthub.New(agenthub.Config{Store: w.db, Key: bytes.Repeat([]byte("k"), 32), HostCA: newSigner(t), Engine: eng, Sessions: w.broker, Batch: w.batch})
	w.apps = apps.New(apps.Config{Store: w.db, Broker: w.broker, Send: w.hub.Send})
	cat := catalog.New(catalog.Config{Store: w.db, Check: anyPool{}, Passwords: w.people, EndSession: w.broker.End, CancelJob: w.batch.CancelAs})
	w.cfg = httpapi.Config{Store: w.db, Catalog: cat, Engine: eng, Rollouts: eng, Broker: w.broker, Batch: w.batch, Files: w.batch, Hub: w.hub, People: w.people, Images: w.images, Desktops: desktops{},
		AdminToken: adminToken, HubToken: hubToken, Apps: w.apps, Version: "test", SSH: func() string { return "127.0.0.1:2222" }, Log: newLogger(w.log)}
	if w.cfg.Web, err = web.New(web.Config{Store: w.db, People: w.people, Broker: w.broker, Apps: w.apps, Log: w.cfg.Log}); err != nil {
		t.Fatal(err)
	}
	w.cfg.Gateways = gatehub.New(gatehub.Config{Store: w.db, Key: bytes.Repeat([]byte("k"), 32), Own: newSigner(t).PublicKey(), HostCA: newSigner(t).PublicKey(), Sessions: w.broker, Router: w.broker,
		Password: w.people.CheckPassword, Trusted: w.hub.AccountsReady, HostKey: func() (string, error) { return "a private key", nil }})
	w.api = httpapi.New(w.cfg)
	w.populate()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, run := range []func(context.Context) error{w.broker.Run, w.batch.Run, w.hub.Run, w.apps.Run} {
		running.Go(func() { _ = run(ctx) })
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	return w
}

// browser are the headers of a request from a page of Shoal's in a browser in which somebody has signed in.
func (w *world) browser(name shoal.UserName) map[string]string {
	w.t.Helper()
	secret, _, err := w.people.OpenBrowser(context.Background(), name, time.Hour)
	if err != nil {
		w.t.Fatal(err)
	}
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("shoal csrf"))
	return map[string]string{"Cookie": "__Host-shoal=" + secret, "Sec-Fetch-Site": "same-origin", web.CSRFHeader: base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:16])}
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put[V any](f func(V) (V, error), v V) error {
	_, err := f(v)
	return err
}

func (w *world) populate() {
	w.t.Helper()
	key := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(newSigner(w.t).PublicKey()))) + " SECRET-KEY"
	now := time.Now().UTC()
	storetest.Update(w.t, w.db, func(tx *store.Tx) error {
		errs := []error{
			put(tx.Groups().Put, shoal.Group{Name: "research", GID: 30001, Members: []shoal.UserName{"alice", "carol"}}),
			put(tx.Shares().Put, shoal.Share{Name: "team", Source: "/srv/team"}),
			put(tx.Shares().Put, shoal.Share{Name: "spare", Source: "/srv/spare"}),
			put(tx.Pools().Put, shoal.Pool{Name: "lab", Provider: "local", Image: "host", Uses: []shoal.Use{shoal.UseInteractive, shoal.UseBatch},
				Machine: shoal.Resources{CPUs: 4000, Memory: 4 << 30}, Size: shoal.Size{Max: 2}, Seats: 8, Mounts: []shoal.Mount{{Share: "team", Path: "/shared"}},
				Endpoints: []shoal.Endpoint{{Name: "web", Protocol: shoal.ProtocolHTTP, Command: "true"}}}),
			put(tx.Machines().Put, shoal.Machine{ID: "m-1", Pool: "lab", State: shoal.MachineReady, Since: now, Wanted: shoal.WantRun, Epoch: 1, Address: "10.0.0.1:22",
				Health: shoal.HealthUp, Resources: shoal.Resources{CPUs: 4000, Memory: 4 << 30}, Started: now, ReadyAt: now}),
			put(tx.Sessions().Put, shoal.Session{ID: "s-alice", User: "alice", Pool: "lab", Machine: "m-1", State: shoal.SessionDisconnected, Since: now,
				Pins: []shoal.Pin{{Kind: "tmux", Count: 1}}, Reason: "SECRET-SESSION"}),
			put(tx.Sessions().Put, shoal.Session{ID: "s-bob", User: "bob", Pool: "lab", Machine: "m-1", State: shoal.SessionDisconnected, Since: now, Pins: []shoal.Pin{{Kind: "tmux", Count: 1}}}),
			put(tx.Gateways().Put, api.Gateway{Name: "edge", Key: "ssh-ed25519 AAAA"}),
			put(tx.Apps().Put, shoal.App{ID: "a-alice", User: "alice", Pool: "lab", Endpoint: "web", Machine: "m-1", State: shoal.AppRunning, Since: now, Started: now,
				Address: "10.0.0.1:700", Reason: "SECRET-APP"}),
			tx.OpenInterval(store.Interval{Kind: shoal.ObjectMachine, ID: "m-1", Pool: "lab", Machine: "m-1", Start: now.Add(-time.Hour)}),
			tx.OpenInterval(store.Interval{Kind: shoal.ObjectSession, ID: "s-alice", Pool: "lab", Machine: "m-1", User: "alice", Start: now.Add(-time.Hour)}),
		}
		for i, u := range []shoal.User{{Name: "alice", Keys: []string{key}}, {Name: "bob"}, {Name: "carol"}, {Name: "oscar", Role: shoal.RoleOperator}, {Name: "ada", Role: shoal.RoleAdmin}} {
			u.UID = 20001 + i
			errs = append(errs, put(tx.Users().Put, u))
		}
		tx.Event(shoal.Event{Kind: shoal.ObjectSession, Name: "s-alice", User: "alice", Code: "sessionStarted", Sentence: "SECRET-EVENT"})
		tx.Event(shoal.Event{Kind: shoal.ObjectUser, Name: "alice", User: "alice", Code: "userChanged", Sentence: "SECRET-EVENT"})
		tx.Event(shoal.Event{Kind: shoal.ObjectPool, Name: "lab", Pool: "lab", Code: "poolCreated", Sentence: "for all"})
		return errors.Join(errs...)
	})
	for _, name := range []shoal.UserName{"alice", "bob", "carol", "oscar", "ada"} {
		token, _, err := w.people.IssueToken(context.Background(), name, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		w.tokens[string(name)] = token
	}
	joined, err := w.hub.Join(context.Background(), api.AgentJoin{Machine: "m-1", Epoch: 1, Token: w.hub.JoinToken("m-1", 1),
		HostKey: string(ssh.MarshalAuthorizedKey(newSigner(w.t).PublicKey()))})
	if err != nil {
		w.t.Fatal(err)
	}
	w.mtoken = joined.Token
}

// job submits a job of alice's and plays the machine that runs it, until it has written something secret. It ends if it shall.
func (w *world) job(share string, end bool) shoal.JobID {
	w.t.Helper()
	ctx := context.Background()
	alice := access.Subject{User: "alice", Role: shoal.RoleMember}
	j, err := w.batch.Submit(ctx, alice, shoal.JobSpec{Pool: "lab", Name: "SECRET-NAME", Command: "echo SECRET-COMMAND", Share: share,
		Resources: shoal.Resources{CPUs: 100, Memory: 1 << 20}}, "")
	if err != nil {
		w.t.Fatal(err)
	}
	ref := w.placed(j.ID)
	report := []api.TaskReport{{Ref: ref, State: shoal.JobRunning, Started: time.Now()}}
	if _, err := w.batch.Report(ctx, "m-1", report, []api.Output{{Ref: ref, Stream: "stdout", Data: []byte("SECRET-OUTPUT\n")}}); err != nil {
		w.t.Fatal(err)
	}
	if end {
		w.end(ref, 14)
	}
	return j.ID
}

// placed waits until m-1 is told to run a job's only task.
func (w *world) placed(id shoal.JobID) shoal.AttemptRef {
	w.t.Helper()
	for {
		select {
		case ref := <-w.orders:
			if ref.Job == id {
				return ref
			}
		case <-time.After(time.Minute):
			w.t.Fatalf("job %s is not placed", id)
		}
	}
}

func (w *world) end(ref shoal.AttemptRef, size int64) {
	w.t.Helper()
	_, err := w.batch.Report(context.Background(), "m-1", []api.TaskReport{{Ref: ref, State: shoal.JobSucceeded, Cause: shoal.CauseExit, Started: time.Now(), Ended: time.Now(), StdoutBytes: size}}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for {
		changed := w.db.Changed()
		var j shoal.Job
		storetest.View(w.t, w.db, func(tx *store.Tx) (err error) { j, err = tx.Jobs().Get(ref.Job); return err })
		if j.State.Ended() {
			return
		}
		<-changed
	}
}

// serve serves a handler at an address until the function it returns is called, abruptly.
func serve(t testing.TB, l net.Listener, h http.Handler) (stop func()) {
	t.Helper()
	s := &http.Server{Handler: h}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	var once sync.Once
	stop = func() { once.Do(func() { _ = s.Close(); <-done }) }
	t.Cleanup(stop)
	return stop
}

func listen(t testing.TB, network, address string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// client serves the API to users and returns a client with a token.
func (w *world) client(token string) *client.Client {
	w.t.Helper()
	l := listen(w.t, "tcp", "127.0.0.1:0")
	serve(w.t, l, w.api.Control())
	c, err := client.New(client.Options{Server: "http://" + l.Addr().String(), Token: token})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

// request is what a test sends.
type request struct {
	method, path, body string
	header             map[string]string
}

// answer is what comes back.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) problem(t testing.TB) api.Problem {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Kind == "" || p.Status != a.status || p.Detail == "" || p.Title == "" {
		t.Errorf("%d is no problem document: %s", a.status, a.body)
	}
	if ct := a.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("a problem document of type %q", ct)
	}
	return p
}

// do sends a request to a server.
func do(t testing.TB, base string, r request) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), r.method, base+r.path, strings.NewReader(r.body))
	if err != nil {
		t.Fatal(err)
	}
	if r.body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range r.header {
		if v == "" {
			req.Header.Del(k)
			continue
		}
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v after %q", r.method, r.path, err, body)
	}
	return answer{resp.StatusCode, resp.Header, string(body)}
}

// start serves a face of the API and returns its address.
func start(t testing.TB, h http.Handler) string {
	t.Helper()
	l := listen(t, "tcp", "127.0.0.1:0")
	serve(t, l, h)
	return "http://" + l.Addr().String()
}

func bearer(token string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + token}
}

func wantKind(t testing.TB, err error, kind shoal.Kind) {
	t.Helper()
	if err == nil || shoal.KindOf(err) != kind {
		t.Errorf("error %v, want one of kind %s", err, kind)
	}
}

func mustf(t testing.TB, err error, format string, args ...any) {
	t.Helper()
	if err != nil {
		t.Fatalf("%s: %v", fmt.Sprintf(format, args...), err)
	}
}
