package cli

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

// world is a server that speaks the API with prepared answers, and the command line beside it.
type world struct {
	t    *testing.T
	mux  *http.ServeMux
	srv  *httptest.Server
	env  map[string]string
	home string

	mu      sync.Mutex
	calls   []string // "POST /api/v1/jobs {…}"
	signals chan<- os.Signal
	execed  []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, mux: http.NewServeMux(), home: t.TempDir()}
	w.srv = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
		w.mu.Lock()
		w.calls = append(w.calls, strings.TrimSpace(r.Method+" "+r.URL.String()+" "+string(body)))
		w.mu.Unlock()
		w.mux.ServeHTTP(rw, r)
	}))
	t.Cleanup(w.srv.Close)
	w.env = map[string]string{"HOME": w.home, "USER": "alice", "SHOAL_SERVER": w.srv.URL, "SHOAL_TOKEN": "secret"}
	return w
}

// answer has a route answer with a value as JSON.
func (w *world) answer(route string, v any) {
	w.mux.HandleFunc(api1(route), func(rw http.ResponseWriter, _ *http.Request) { reply(rw, 200, v) })
}

func (w *world) list(route string, items any) {
	w.answer(route, map[string]any{"items": items, "rev": 1})
}

func (w *world) refuse(route string, kind shoal.Kind) {
	w.mux.HandleFunc(api1(route), func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "application/problem+json")
		reply(rw, kind.Meaning().Status, api.Problem{Type: "about:blank", Status: kind.Meaning().Status, Detail: "cannot do it: because", Kind: kind, Hint: "do this"})
	})
}

func api1(route string) string {
	method, path, _ := strings.Cut(route, " ")
	return method + " /api/v1" + path
}

func reply(rw http.ResponseWriter, status int, v any) {
	if rw.Header().Get("Content-Type") == "" {
		rw.Header().Set("Content-Type", "application/json")
	}
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(v)
}

// outcome is what became of a command line.
type outcome struct {
	code           int
	stdout, stderr string
}

func (w *world) run(args ...string) outcome { return w.runWith("", args...) }

func (w *world) config(stdin string, stdout, stderr io.Writer) Config {
	return Config{
		Version: "v1", Stdin: strings.NewReader(stdin), Stdout: stdout, Stderr: stderr,
		Getenv:        func(k string) string { return w.env[k] },
		MachineSocket: filepath.Join(w.home, "machine.sock"), DataDir: filepath.Join(w.home, "data"),
		Notify: func(c chan<- os.Signal, _ ...os.Signal) func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.signals = c
			return func() {}
		},
		Exec: func(path string, argv, _ []string) error {
			w.execed = append([]string{path}, argv...)
			return nil
		},
	}
}

func (w *world) runWith(stdin string, args ...string) outcome {
	var stdout, stderr locked
	code := Main(w.t.Context(), args, w.config(stdin, &stdout, &stderr))
	return outcome{code, stdout.String(), stderr.String()}
}

// sent are the requests so far whose method and path begin like this.
func (w *world) sent(prefix string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var out []string
	for _, c := range w.calls {
		if strings.HasPrefix(c, prefix) {
			out = append(out, c)
		}
	}
	return out
}

// locked is a buffer that several may write.
type locked struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *locked) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (o outcome) want(t *testing.T, code int, stdout string) {
	t.Helper()
	if o.code != code {
		t.Errorf("exit code %d, want %d; stderr:\n%s", o.code, code, o.stderr)
	}
	if d := cmp.Diff(stdout, o.stdout); d != "" {
		t.Errorf("stdout differs (-want +got):\n%s", d)
	}
}

// golden compares with a file, after times were made the same. UPDATE_GOLDEN=1 writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	got = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?`).ReplaceAllString(got, "DATE")
	got = regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllString(got, "ADDRESS")
	path := filepath.Join("testdata", name+".golden")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s differs (-want +got):\n%s", path, d)
	}
}

// before is a time some while ago, far enough from the next unit that a slow test reads the same.
func before(d time.Duration) time.Time { return time.Now().Add(-d - 300*time.Millisecond) }

func (w *world) pools() {
	lab := shoal.Pool{Name: "lab", Default: true, Provider: "local", Image: "host", Uses: []shoal.Use{shoal.UseInteractive, shoal.UseBatch},
		Machine: shoal.Resources{CPUs: 1000, Memory: 1 << 30}, Size: shoal.Size{Max: 4, Spare: 2}, Seats: 8, Placement: shoal.PlaceSpread,
		Mounts: []shoal.Mount{{Share: "team", Path: "/shared"}, {Share: "data", Path: "/data", ReadOnly: true}}, Home: shoal.Home{Share: "team", Path: "home/{user}"},
		Scale: shoal.Scale{Idle: shoal.Idle{After: shoal.Duration(30 * time.Minute), Warn: shoal.Duration(5 * time.Minute)}},
		Price: shoal.Price{PerHour: 0.4, Currency: "EUR"}, Meta: shoal.Meta{Rev: 7, Created: before(3 * time.Hour)}}
	four, one, high := 4, 1, 75.0
	lab.Scale.TimeZone, lab.Scale.Cost = "Europe/Berlin", shoal.Ceiling{PerDay: 30, PerMonth: 400}
	lab.Scale.Schedule = []shoal.Window{{Name: "mornings", Days: []string{"mon-fri"}, From: "07:30", To: "10:30", Spare: &four}, {Dates: []string{"2026-12-24/2026-12-26"}, Max: &one, Placement: shoal.PlacePack}}
	lab.Scale.Rules = []shoal.Rule{{Metric: shoal.MetricCPU, Above: &high, By: shoal.Step{Percent: 25}, Aggregate: "average", Window: shoal.Duration(5 * time.Minute), Cooldown: shoal.Duration(10 * time.Minute)},
		{Metric: shoal.MetricSessions, Below: &high, To: &one}}
	train := shoal.Pool{Name: "train", Provider: "local", Image: "/images/debian.tar", Uses: []shoal.Use{shoal.UseBatch}, Size: shoal.Size{Min: 1, Max: 10},
		Seats: 1, Placement: shoal.PlacePack, Fixed: &shoal.FixedSize{Size: 3, Until: time.Now().Add(90*time.Minute + 50*time.Second)}}
	w.list("GET /pools", []shoal.Pool{lab, train})
	w.answer("GET /pools/lab", lab)
	w.answer("GET /pools/train", train)
	w.refuse("GET /pools/{name}", shoal.KindNotFound)
}

func (w *world) machines() {
	m1 := shoal.Machine{ID: "m-aaaaaa", Pool: "lab", State: shoal.MachineReady, Since: before(3 * time.Minute), Health: shoal.HealthUp, LastSeen: before(time.Minute),
		Wanted: shoal.WantRun, Provider: "local", ProviderID: "m-aaaaaa", Address: "100.64.0.2:22", Image: "host", Resources: shoal.Resources{CPUs: 2000, Memory: 1 << 30, GPUs: 1},
		Load: shoal.Load{CPUPercent: 12, Memory: 300 << 20, Processes: 9}}
	m2 := m1
	m2.LastSeen = before(4 * time.Minute)
	m2.ID, m2.Cordons = "m-bbbbbb", []shoal.Cordon{{Owner: shoal.CordonOperator, Reason: "a fan is broken", Since: before(5 * time.Minute)}}
	m3 := shoal.Machine{ID: "m-cccccc", Pool: "train", State: shoal.MachineFailed, Since: before(2 * time.Hour), Reason: "setup failed: no space\x1b[2J", Wanted: shoal.WantDelete}
	w.list("GET /machines", []shoal.Machine{m1, m2, m3})
	w.answer("GET /machines/m-aaaaaa", m1)
	w.answer("GET /machines/m-bbbbbb", m2)
}

func testJob(id string, state shoal.JobState, c shoal.Counts) shoal.Job {
	return shoal.Job{ID: shoal.JobID(id), User: "alice", Spec: shoal.JobSpec{Name: "sweep", Pool: "lab", Command: "python train.py",
		Resources: shoal.Resources{CPUs: 1000, Memory: 512 << 20}, Priority: "normal"}, State: state, Since: before(3 * time.Minute), Counts: c,
		Submitted: before(5 * time.Minute), Started: before(4 * time.Minute)}
}
