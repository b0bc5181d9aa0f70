package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/provider"
)

// house is an agent with everything around it made up. It lives in a synctest bubble.
type house struct {
	t       *testing.T
	agent   *Agent
	control *fakeControl
	host    *fakeHost
	tasks   *fakeTasks
	watcher *fakeWatcher
	door    chan struct{}
	stop    context.CancelFunc
	ended   chan error
}

func newHouse(t *testing.T, snap api.Snapshot) *house {
	t.Helper()
	h := &house{t: t, host: &fakeHost{}, tasks: &fakeTasks{changed: make(chan struct{}, 1)}, watcher: &fakeWatcher{}, door: make(chan struct{}, 1)}
	h.control = newControlServer(snap)
	t.Cleanup(h.control.close)
	return h
}

// start starts the agent, as a process would.
func (h *house) start(change ...func(*Config)) {
	h.t.Helper()
	cfg := Config{Join: provider.Join{Machine: "m-1", Pool: "lab", Token: "once", Control: "unix:///control", Epoch: 1}, Version: "test",
		Host: h.host, People: &People{}, Tasks: h.tasks, Watcher: h.watcher, Door: h.door, Dial: h.control.dial, Log: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&cfg)
	}
	a, err := New(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	h.agent = a
	ctx, stop := context.WithCancel(context.Background())
	h.stop, h.ended = stop, make(chan error, 1)
	go func() { h.ended <- a.Run(ctx) }()
}

// end ends it.
func (h *house) end() {
	h.t.Helper()
	h.stop()
	if err := <-h.ended; err != nil {
		h.t.Errorf("the agent ended: %v", err)
	}
	h.control.close()
	synctest.Wait()
}

// reports takes the reports that have come.
func (h *house) reports() []api.Report {
	synctest.Wait()
	h.control.mu.Lock()
	defer h.control.mu.Unlock()
	out := h.control.reports
	h.control.reports = nil
	return out
}

// fakeHost does nothing, slowly if asked to.
type fakeHost struct {
	mu       sync.Mutex
	booted   bool
	hang     chan struct{} // Files waits for it, or until its time is up
	slow     time.Duration // Files takes so long
	unmade   int           // that Files cannot make
	files    int           // calls of it
	setup    error
	accounts []shoal.Rev
	probes   int
	certs    []string
}

func (f *fakeHost) HostKey() (string, error) { return "ssh-ed25519 AAAA", nil }

func (f *fakeHost) Joined(cert string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.certs = append(f.certs, cert)
	return nil
}

func (f *fakeHost) Booted() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.booted }

func (f *fakeHost) MarkBooted() error { f.mu.Lock(); defer f.mu.Unlock(); f.booted = true; return nil }

func (f *fakeHost) Setup(context.Context, shoal.Setup) (string, error) { return "the log", f.setup }

func (f *fakeHost) Accounts(want api.Accounts, _ []api.AgentMount) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.accounts = append(f.accounts, want.Rev)
	return nil
}

func (f *fakeHost) Files(ctx context.Context, _ api.Accounts, _ []api.AgentMount, probe bool) (int, error) {
	f.mu.Lock()
	hang, slow, unmade := f.hang, f.slow, f.unmade
	f.files++
	if probe {
		f.probes++
	}
	f.mu.Unlock()
	time.Sleep(slow)
	if hang == nil {
		return unmade, nil
	}
	select {
	case <-hang:
		return unmade, nil
	case <-ctx.Done():
		return 0, errors.New("mount /shared does not answer")
	}
}

func (f *fakeHost) Load(shoal.Resources) shoal.Load { return shoal.Load{Processes: 3} }

// fakeTasks notes what it is told, and reports what it is given until that is acknowledged.
type fakeTasks struct {
	changed chan struct{}
	slow    time.Duration // Want takes so long

	mu      sync.Mutex
	said    []string
	pending []api.TaskReport
	running map[shoal.UserName]int
}

func (f *fakeTasks) note(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.said = append(f.said, fmt.Sprintf(format, args...))
}

func (f *fakeTasks) Want(o []api.TaskOrder)   { time.Sleep(f.slow); f.note("want %d", len(o)) }
func (f *fakeTasks) Start(o api.TaskOrder)    { f.note("start %s", o.Ref) }
func (f *fakeTasks) Stop(o api.StopOrder)     { f.note("stop %s", o.Ref) }
func (f *fakeTasks) Forget(x api.ForgetTask)  { f.note("forget %d", len(x.Refs)) }
func (f *fakeTasks) Resend(list []api.Resend) { f.note("resend %d", len(list)) }
func (f *fakeTasks) Changed() <-chan struct{} { return f.changed }
func (f *fakeTasks) Running() map[shoal.UserName]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.running
}

func (f *fakeTasks) Collect(int) ([]api.TaskReport, []api.Output, func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.pending)
	return f.pending[:n:n], nil, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.pending = f.pending[n:]
	}
}

func (f *fakeTasks) heard() []string {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.said
	f.said = nil
	return out
}

type fakeWatcher struct {
	mu    sync.Mutex
	looks int
	seen  api.Activity
	err   error
	told  []string
	ended []string
}

func (f *fakeWatcher) Look() (api.Activity, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.looks++
	return f.seen, f.err
}

func (f *fakeWatcher) Tell(user shoal.UserName, text string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, string(user)+": "+text)
	return nil
}

func (f *fakeWatcher) End(_ context.Context, user shoal.UserName, unused time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = append(f.ended, string(user)+" "+shoal.Duration(unused).String())
	return nil
}

func (f *fakeWatcher) set(err error, users ...api.UserActivity) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen, f.err = api.Activity{Users: users}, err
}

func (f *fakeWatcher) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.looks
	f.looks = 0
	return n
}

// fakeControl is a control plane over connections in memory.
type fakeControl struct {
	conns chan net.Conn
	srv   *http.Server

	mu      sync.Mutex
	down    bool
	snap    api.Snapshot
	token   string // that it believes
	joins   []api.AgentJoin
	streams []chan *api.Record // nil breaks one
	reports []api.Report
	refuse  int // so many reports with 503
	users   []string
	answer  api.ReportAnswer
}

func newControlServer(snap api.Snapshot) *fakeControl {
	c := &fakeControl{conns: make(chan net.Conn), snap: snap, token: "t1"}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /agent/v1/join", c.join)
	mux.HandleFunc("GET /agent/v1/stream", c.believed(c.stream))
	mux.HandleFunc("POST /agent/v1/report", c.believed(c.report))
	mux.HandleFunc("/agent/v1/user/", c.believed(c.user))
	c.srv = &http.Server{Handler: mux}
	go c.srv.Serve(&pipeListener{c.conns, make(chan struct{})})
	return c
}

func (c *fakeControl) close() { c.srv.Close() }

func (c *fakeControl) dial(ctx context.Context) (net.Conn, error) {
	c.mu.Lock()
	down := c.down
	c.mu.Unlock()
	if down {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	select {
	case c.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (c *fakeControl) believed(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		ok := r.Header.Get("Authorization") == "Bearer "+c.token
		c.mu.Unlock()
		if !ok {
			w.WriteHeader(http.StatusUnauthorized)
			json.NewEncoder(w).Encode(api.Problem{Status: 401, Kind: shoal.KindUnauthenticated, Detail: "who are you?"})
			return
		}
		next(w, r)
	}
}

func (c *fakeControl) join(w http.ResponseWriter, r *http.Request) {
	var j api.AgentJoin
	if err := json.NewDecoder(r.Body).Decode(&j); err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.joins = append(c.joins, j)
	json.NewEncoder(w).Encode(api.AgentJoined{Token: c.token, HostCertificate: "cert"})
}

func (c *fakeControl) stream(w http.ResponseWriter, r *http.Request) {
	ch := make(chan *api.Record)
	c.mu.Lock()
	c.streams = append(c.streams, ch)
	snap := c.snap
	c.mu.Unlock()
	enc := json.NewEncoder(w)
	enc.Encode(api.Record{Snapshot: &snap})
	for {
		http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
			return
		case rec := <-ch:
			if rec == nil {
				return
			}
			enc.Encode(rec)
		}
	}
}

// send sends a record on the newest stream; nil breaks it.
func (c *fakeControl) send(r *api.Record) {
	synctest.Wait()
	c.mu.Lock()
	ch := c.streams[len(c.streams)-1]
	c.mu.Unlock()
	ch <- r
}

func (c *fakeControl) report(w http.ResponseWriter, r *http.Request) {
	var rep api.Report
	if err := json.NewDecoder(r.Body).Decode(&rep); err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse > 0 {
		c.refuse--
		http.Error(w, "busy", 503)
		return
	}
	c.reports = append(c.reports, rep)
	json.NewEncoder(w).Encode(c.answer)
	c.answer = api.ReportAnswer{}
}

// counts is how often an agent has joined, and has opened a stream.
func (c *fakeControl) counts() (joins, streams int) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.joins), len(c.streams)
}

func (c *fakeControl) user(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users = append(c.users, fmt.Sprintf("%s %s %s %s", r.Header.Get(api.UserHeader), r.Method, r.URL, b))
	w.Header().Set("Set-Cookie", "a=b")
	w.WriteHeader(201)
}
