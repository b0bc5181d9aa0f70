package agenthub_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/agenthub"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// services stand for the engine, the broker and the batch service, and write down what they are told.
type services struct {
	mu     sync.Mutex
	told   []string
	fail   map[string]error // by the first word of what is told
	orders []api.TaskOrder
	resend []api.Resend
}

func (s *services) tell(format string, args ...any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	line := fmt.Sprintf(format, args...)
	s.told = append(s.told, line)
	word, _, _ := strings.Cut(line, " ")
	return s.fail[word]
}

// take returns what was told since, and forgets it.
func (s *services) take() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	told := s.told
	s.told = nil
	return told
}

func (s *services) Joined(_ context.Context, id shoal.MachineID, epoch int, _ string) error {
	return s.tell("joined %s %d", id, epoch)
}

func (s *services) Boot(_ context.Context, id shoal.MachineID, epoch int, r api.BootReport) error {
	return s.tell("boot %s %d ready=%t %s", id, epoch, r.Ready, r.Progress+r.Error)
}

func (s *services) Seen(id shoal.MachineID, load *shoal.Load) {
	if load != nil {
		_ = s.tell("seen %s %d%%", id, load.CPUPercent)
	}
}

func (s *services) Looked(id shoal.MachineID, which string) { _ = s.tell("looked %s %s", id, which) }

func (s *services) Connected(id shoal.MachineID, up bool) { _ = s.tell("connected %s %t", id, up) }

func (s *services) Endpoints(_ context.Context, id shoal.MachineID, epoch int, reports []api.EndpointReport) (ill []string, err error) {
	for _, r := range reports {
		if r.Ill != "" {
			ill = append(ill, r.Name+" is ill: "+r.Ill)
		}
	}
	return ill, s.tell("endpoints %s %d %d", id, epoch, len(reports))
}

func (s *services) Activity(_ context.Context, id shoal.MachineID, a api.Activity) error {
	return s.tell("activity %s %d", id, len(a.Users))
}

func (s *services) Orders(context.Context, shoal.MachineID) ([]api.TaskOrder, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.orders), nil
}

func (s *services) Report(_ context.Context, id shoal.MachineID, tasks []api.TaskReport, output []api.Output) ([]api.Resend, error) {
	err := s.tell("report %s %d %d", id, len(tasks), len(output))
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resend, err
}

// world is a hub on a store with one pool, its machine m-1, and the users alice and bob.
type world struct {
	t   *testing.T
	db  *store.DB
	svc *services
	*agenthub.Hub
	apps   agenthub.Apps // nil: none
	ca     ssh.Signer
	caKeys []string
}

// inWorld runs a test in a bubble.
func inWorld(t *testing.T, test func(*testing.T, *world)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, db: storetest.Open(t), svc: &services{fail: map[string]error{}}, ca: signer(t), caKeys: []string{"ssh-ed25519 AAAA gateway\n"}}
		w.update(func(tx *store.Tx) error {
			return errors.Join(
				put(tx.Users().Put, shoal.User{Name: "alice", UID: 20001, Role: shoal.RoleAdmin}),
				put(tx.Users().Put, shoal.User{Name: "bob", UID: 20002, Groups: []shoal.GroupName{"research"}}),
				put(tx.Groups().Put, shoal.Group{Name: "research", GID: 30001, Members: []shoal.UserName{"alice"}}),
				put(tx.Shares().Put, shoal.Share{Name: "team", Source: "/srv/team", GroupDirs: []shoal.GroupDir{{Path: "projects/{group}"}}}),
				put(tx.Pools().Put, shoal.Pool{Name: "lab", Setup: &shoal.Setup{Command: "true"}, Mounts: []shoal.Mount{{Share: "team", Path: "/shared"}, {Share: "team", Path: "/ro", ReadOnly: true}},
					Home: shoal.Home{Share: "team", Path: "home/{user}"}}),
				put(tx.Machines().Put, shoal.Machine{ID: "m-1", Pool: "lab", State: shoal.MachineBooting, Wanted: shoal.WantRun, Epoch: 1, Resources: shoal.Resources{CPUs: 2000}}),
			)
		})
		w.begin()
		test(t, w)
	})
}

// begin starts a hub, also in the place of a former one.
func (w *world) begin() {
	w.Hub = agenthub.New(agenthub.Config{Store: w.db, Key: []byte("0123456789abcdef0123456789abcdef"), HostCA: w.ca,
		CAKeys: func() []string { return w.caKeys }, Engine: w.svc, Sessions: w.svc, Batch: w.svc,
		Apps: w.apps, Doors: func(string) []string { return []string{"192.0.2.1"} }})
	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan struct{})
	hub := w.Hub // the next one takes its place in w
	go func() { defer close(done); _ = hub.Run(ctx) }()
	w.t.Cleanup(func() { cancel(); <-done })
}

func put[V any](f func(V) (V, error), v V) error {
	_, err := f(v)
	return err
}

func (w *world) update(f func(*store.Tx) error) {
	w.t.Helper()
	storetest.Update(w.t, w.db, f)
}

func (w *world) machine(change func(*shoal.Machine)) {
	w.t.Helper()
	w.update(func(tx *store.Tx) error {
		m, err := tx.Machines().Get("m-1")
		if err != nil {
			return err
		}
		change(&m)
		return put(tx.Machines().Put, m)
	})
}

func signer(t testing.TB) ssh.Signer {
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

func publicLine(s ssh.Signer) string { return string(ssh.MarshalAuthorizedKey(s.PublicKey())) }

// stream is a stream that a test reads.
type stream struct {
	t       *testing.T
	records chan api.Record // capacity 0: the agent reads when the test does
	ended   chan error
	stop    context.CancelFunc
}

func (w *world) stream(c agenthub.Caller) *stream {
	ctx, cancel := context.WithCancel(w.t.Context())
	s := &stream{t: w.t, records: make(chan api.Record), ended: make(chan error, 1), stop: cancel}
	go func() {
		s.ended <- w.Stream(ctx, c, func(records ...api.Record) error {
			for _, r := range records {
				select {
				case s.records <- r:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			return nil
		})
	}()
	w.t.Cleanup(cancel)
	return s
}

// next is the next record that says something.
func (s *stream) next() api.Record {
	s.t.Helper()
	for {
		select {
		case r := <-s.records:
			if r != (api.Record{}) {
				return r
			}
		case err := <-s.ended:
			s.t.Fatalf("the stream ended: %v", err)
		}
	}
}

// silent checks that there is nothing to read now.
func (s *stream) silent() {
	s.t.Helper()
	synctest.Wait()
	select {
	case r := <-s.records:
		s.t.Errorf("an unexpected record: %+v", r)
	default:
	}
}

func (w *world) snapshot(s *stream) *api.Snapshot {
	w.t.Helper()
	r := s.next()
	if r.Snapshot == nil {
		w.t.Fatalf("a stream begins with %+v", r)
	}
	return r.Snapshot
}

// m1 is the agent of m-1 in its first start.
func m1() agenthub.Caller { return agenthub.Caller{Machine: "m-1", Epoch: 1} }

func wantKind(t testing.TB, err error, kind shoal.Kind) {
	t.Helper()
	if err == nil || shoal.KindOf(err) != kind {
		t.Errorf("error %v, want one of kind %s", err, kind)
	}
}
