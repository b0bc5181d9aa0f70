package cli

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/cli/submit"
)

// submitted has the server take jobs, and returns what was asked for last.
func (w *world) submitted(total int) func() shoal.JobSpec {
	w.mux.HandleFunc("POST /api/v1/jobs", func(rw http.ResponseWriter, r *http.Request) {
		var spec shoal.JobSpec
		if err := json.NewDecoder(r.Body).Decode(&spec); err != nil || r.Header.Get("Idempotency-Key") == "" {
			w.t.Errorf("cannot read the job, or it has no key: %v", err)
		}
		reply(rw, 201, shoal.Job{ID: "17", Spec: spec, State: shoal.JobQueued, Counts: shoal.Counts{Queued: total}})
	})
	return func() (spec shoal.JobSpec) {
		sent := w.sent("POST /api/v1/jobs")
		if len(sent) == 0 {
			w.t.Fatal("no job was submitted")
		}
		_, body, _ := strings.Cut(sent[len(sent)-1], " {")
		if err := json.Unmarshal([]byte("{"+body), &spec); err != nil {
			w.t.Fatal(err)
		}
		return spec
	}
}

func TestRun(t *testing.T) {
	w := newWorld(t)
	w.pools()
	w.answer("GET /whoami", api.Whoami{User: "alice"})
	spec := w.submitted(1)
	w.env["TOKENIZER"] = "fast"
	w.run("run", "-p", "train", "--name", "sweep", "--array", "1-8", "--cpus", "0.5", "--memory", "2GiB", "--gpus", "1", "--time-limit", "1h30m", "--retries", "2",
		"--priority", "high", "--env", "A=b=c", "-e", "TOKENIZER", "--workdir", "/shared", "--", "python", "train.py", "--lr", "0.1 or so").want(t, 0, "job 17 submitted to pool train\n")
	got := spec()
	want := shoal.JobSpec{Name: "sweep", Pool: "train", Command: "python train.py --lr '0.1 or so'", Array: "1-8", Nodes: shoal.Fixed(1), Launcher: "each",
		Resources: shoal.Resources{CPUs: 500, Memory: 2 << 30, GPUs: 1}, Workdir: "/shared", Env: map[string]string{"A": "b=c", "TOKENIZER": "fast"},
		TimeLimit: shoal.Duration(90 * time.Minute), Retries: 2, Priority: "high", Share: "private"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got\n%+v, want\n%+v", got, want)
	}
	w.run("run", "-q", "true").want(t, 0, "17\n") // the default pool
	if got := spec(); got.Pool != "lab" || got.Workdir != "" {
		t.Errorf("got %+v", got)
	}
	if got := w.run("run", "-p", "lab", "--", "echo hi | wc"); !strings.Contains(got.stderr, "sh -c 'echo hi | wc'") {
		t.Errorf("no hint about the shell: %q", got.stderr)
	}
	var job shoal.Job
	if got := w.run("run", "-p", "lab", "-o", "json", "--", "true"); json.Unmarshal([]byte(got.stdout), &job) != nil || job.ID != "17" {
		t.Errorf("got %+v", got)
	}
	w.run("job", "submit", "-f", "testdata/job.yaml", "-p", "train").want(t, 0, "job 17 submitted to pool train\n")
	if got := spec(); got.Command != "python3 train.py --fold $SHOAL_ARRAY_INDEX" || got.Array != "1-8" {
		t.Errorf("got %+v", got)
	}
	w.srv.Close()
	dry := w.run("job", "submit", "-f", "testdata/job.yaml", "--dry-run", "-o", "yaml")
	if dry.code != 0 {
		t.Fatal(dry.stderr)
	}
	golden(t, "job-dry-run-yaml", dry.stdout)
}

// TestRunInMachine: pool and directory follow from where the command is given.
func TestRunInMachine(t *testing.T) {
	w := newWorld(t)
	w.pools()
	w.answer("GET /whoami", api.Whoami{User: "alice", Machine: "m-aaaaaa", Pool: "lab"})
	spec := w.submitted(1)
	w.serveMachine()
	t.Chdir(w.home)
	w.run("run", "true").want(t, 0, "job 17 submitted to pool lab\n")
	if got := spec(); got.Workdir != w.home {
		t.Errorf("workdir %q, want %q", got.Workdir, w.home)
	}
	if got := w.run("run", "-p", "nowhere", "true"); got.code != 3 {
		t.Errorf("got %+v", got)
	}
}

// serveMachine has the server answer on the machine's socket, and nowhere else.
func (w *world) serveMachine() {
	l, err := net.Listen("unix", filepath.Join(w.home, "machine.sock"))
	if err != nil {
		w.t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(w.srv.Config.Handler)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	w.t.Cleanup(s.Close)
	delete(w.env, "SHOAL_SERVER")
	delete(w.env, "SHOAL_TOKEN")
}

func TestWorkdir(t *testing.T) {
	share := shoal.Home{Share: "team", Path: "home/{user}"}
	lab := shoal.Pool{Home: share, Mounts: []shoal.Mount{{Share: "team", Path: "/shared"}}}
	local := shoal.Pool{Mounts: []shoal.Mount{{Share: "other", Path: "/shared"}, {Share: "team", Path: "/team"}}}
	for _, tt := range []struct {
		dir         string
		here, there shoal.Pool
		want        string
	}{
		{"/home/alice/x", lab, lab, "/home/alice/x"}, {"/home/alice", lab, lab, "/home/alice"}, {"/home/alicex", lab, lab, ""}, {"/shared/a", lab, lab, "/shared/a"},
		{"/shared", lab, lab, "/shared"}, {"/tmp", lab, lab, ""}, {"/home/alice/x", lab, local, ""}, {"/shared/a", lab, local, ""}, {"/home/alice/x", local, local, ""},
	} {
		if got := submit.Workdir(tt.dir, "/home/alice", tt.here, tt.there); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.dir, got, tt.want)
		}
	}
}

// play has the server know a job that ends when the returned channel is closed.
func (w *world) play(job shoal.Job, exit int, stdout, stderr string) (end chan struct{}) {
	end = make(chan struct{})
	state := func() shoal.Job {
		select {
		case <-end:
			return job
		default:
			j := job
			j.State, j.Counts = shoal.JobRunning, shoal.Counts{Running: job.Counts.Total()}
			return j
		}
	}
	w.mux.HandleFunc("GET /api/v1/jobs/17", func(rw http.ResponseWriter, _ *http.Request) { reply(rw, 200, state()) })
	w.mux.HandleFunc("GET /api/v1/jobs/17/wait", func(rw http.ResponseWriter, r *http.Request) {
		select {
		case <-end:
		case <-r.Context().Done():
		}
		reply(rw, 200, api.Wait{Job: state(), ExitCode: exit})
	})
	w.mux.HandleFunc("GET /api/v1/jobs/17/tasks", func(rw http.ResponseWriter, r *http.Request) {
		a := shoal.Attempt{AttemptRef: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "17"}, Attempt: 1}, State: state().State, ExitCode: exit}
		reply(rw, 200, api.List[shoal.Attempt]{Items: []shoal.Attempt{a}})
	})
	w.mux.HandleFunc("GET /api/v1/jobs/17/tasks/0/output", func(rw http.ResponseWriter, r *http.Request) {
		text := stdout
		if r.URL.Query().Get("stream") == "stderr" {
			text = stderr
		}
		if node := r.URL.Query().Get("node"); node != "" {
			text = "of node " + node
		}
		offset, _ := strconv.Atoi(r.URL.Query().Get("offset"))
		frame(rw, offset, text[offset:])
		if r.URL.Query().Get("follow") == "true" {
			rw.(http.Flusher).Flush()
			<-end
		}
		fmt.Fprintf(rw, "end %d\n", len(text))
	})
	return end
}

// frame sends output as the server does.
func frame(rw http.ResponseWriter, offset int, text string) {
	fmt.Fprintf(rw, "data %d %d\n%s", offset, len(text), text)
}

func TestRunWait(t *testing.T) {
	for _, tt := range []struct {
		state  shoal.JobState
		exit   int
		reason string
		stderr string
	}{
		{shoal.JobSucceeded, 0, "", "warning\n"},
		{shoal.JobFailed, 3, "it exited with 3", "warning\nshoal: job 17 failed: it exited with 3\n"},
		{shoal.JobFailed, 137, "it used more than 512MiB of memory", "warning\nshoal: job 17 failed: it used more than 512MiB of memory\n"},
		{shoal.JobTimedOut, 143, "", "warning\nshoal: job 17 timedout\n"},
		{shoal.JobCancelled, 0, "", "warning\nshoal: job 17 cancelled\n"},
	} {
		t.Run(fmt.Sprint(tt.state, tt.exit), func(t *testing.T) {
			w := newWorld(t)
			w.submitted(1)
			job := testJob("17", tt.state, shoal.Counts{})
			job.Counts.Add(tt.state, 1)
			job.Reason = tt.reason
			end := w.play(job, tt.exit, "hello\n", "warning\n")
			time.AfterFunc(20*time.Millisecond, func() { close(end) })
			got := w.run("run", "-p", "lab", "--wait", "--", "python", "train.py")
			code := tt.exit
			if tt.state == shoal.JobCancelled {
				code = 1 // a job that did not succeed is never 0
			}
			got.want(t, code, "hello\n")
			if got.stderr != tt.stderr {
				t.Errorf("stderr %q, want %q", got.stderr, tt.stderr)
			}
			w.run("job", "wait", "17").want(t, code, "")
			w.run("job", "wait", "17", "-q").want(t, code, "")
		})
	}
}

func TestRunWaitFails(t *testing.T) {
	w := newWorld(t)
	w.refuse("POST /jobs", shoal.KindInvalid)
	for _, line := range []string{"run --wait -p lab -- true", "job submit --wait -f testdata/job.yaml -p lab", "job wait 99", "job wait", "run --wait --bogus -- true", "run --bogus --wait -- true"} {
		if got := w.run(strings.Fields(line)...); got.code != 125 {
			t.Errorf("%s: exit code %d, want 125", line, got.code)
		}
	}
	if got := w.run("run", "-p", "lab", "prog", "--wait"); got.code != 2 {
		t.Errorf("--wait of the program's own: exit code %d, want 2", got.code)
	}
}

// TestOutputIsTakenUp: a connection that breaks loses and doubles nothing.
func TestOutputIsTakenUp(t *testing.T) {
	w := newWorld(t)
	w.submitted(1)
	text := strings.Repeat("0123456789abcdef", 10_000)
	end := w.play(testJob("17", shoal.JobSucceeded, shoal.Counts{Succeeded: 1}), 0, "", "")
	var asked atomic.Int32
	w.mux = replaced(w.mux, "GET /api/v1/jobs/17/tasks/0/output", func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("stream") == "stderr" {
			fmt.Fprintf(rw, "end 0\n")
			return
		}
		offset, _ := strconv.Atoi(r.URL.Query().Get("offset"))
		switch n := asked.Add(1); {
		case n == 1:
			frame(rw, 0, text[:5000])
			rw.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case n == 2:
			frame(rw, offset, text[offset:offset+70_000])
			frame(rw, offset+70_000, text[offset+70_000:])
			return // as if a proxy ended it: the end was not said
		default:
			frame(rw, offset, text[offset:])
			fmt.Fprintf(rw, "end %d\n", len(text))
			if n == 3 {
				close(end)
			}
		}
	})
	got := w.run("run", "-p", "lab", "--wait", "--", "true")
	if got.code != 0 || got.stdout != text {
		t.Errorf("exit code %d, %d bytes of %d; stderr %q", got.code, len(got.stdout), len(text), got.stderr)
	}
}

// replaced is a mux with one route of another's answered otherwise.
func replaced(old *http.ServeMux, route string, h http.HandlerFunc) *http.ServeMux {
	m := http.NewServeMux()
	m.Handle("/", old)
	m.HandleFunc(route, h)
	return m
}

func TestLogs(t *testing.T) {
	w := newWorld(t)
	end := w.play(testJob("17", shoal.JobSucceeded, shoal.Counts{Succeeded: 1}), 0, "bytes\x00as they are", "wrong\n")
	w.run("job", "logs", "17").want(t, 0, "bytes\x00as they are")
	w.run("job", "logs", "17", "--stderr").want(t, 0, "wrong\n")
	w.run("job", "logs", "17", "--node", "-1").want(t, 2, "")
	w.run("job", "logs", "17", "--node", "3").want(t, 0, "of node 3")
	time.AfterFunc(20*time.Millisecond, func() { close(end) })
	w.run("job", "logs", "17/0", "-f").want(t, 0, "bytes\x00as they are")
	w.answer("GET /jobs/18", testJob("18", shoal.JobRunning, shoal.Counts{Running: 8}))
	if got := w.run("job", "logs", "18"); got.code != 2 || !strings.Contains(got.stderr, "8 tasks") {
		t.Errorf("got %+v", got)
	}
}

// started is a command line that runs beside the test.
type started struct {
	*world
	stderr *locked
	code   chan int
	end    chan struct{} // ends job 17
}

// start runs a command line about job 17, which ends when it is cancelled or told to.
func start(t *testing.T, line ...string) *started {
	t.Helper()
	w := newWorld(t)
	w.submitted(1)
	w.machines()
	job := testJob("17", shoal.JobCancelled, shoal.Counts{Cancelled: 1})
	s := &started{world: w, stderr: &locked{}, code: make(chan int, 1), end: w.play(job, 143, "", "")}
	w.mux.HandleFunc("POST /api/v1/jobs/17/cancel", func(rw http.ResponseWriter, _ *http.Request) {
		close(s.end)
		reply(rw, 200, job)
	})
	w.answer("DELETE /machines/m-aaaaaa", struct{}{})
	w.mux.HandleFunc("GET /api/v1/events", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	var stdout locked
	go func() { s.code <- Main(t.Context(), line, w.config("", &stdout, s.stderr)) }()
	return s
}

// send waits until the command listens to signals, and sends one.
func (s *started) send(sig os.Signal) {
	for {
		s.mu.Lock()
		c := s.signals
		s.mu.Unlock()
		if c != nil {
			c <- sig
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// TestInterrupts: the first Ctrl-C says what a second does, the second cancels; SIGTERM leaves the job.
func TestInterrupts(t *testing.T) {
	t.Run("twice", func(t *testing.T) {
		s := start(t, "run", "-p", "lab", "--wait", "true")
		s.send(os.Interrupt)
		for !strings.Contains(s.stderr.String(), "Ctrl-C again cancels it") {
			time.Sleep(time.Millisecond)
		}
		if len(s.sent("POST /api/v1/jobs/17/cancel")) > 0 {
			t.Error("the first Ctrl-C cancels")
		}
		s.send(os.Interrupt)
		if got := <-s.code; got != 143 {
			t.Errorf("exit code %d, want the job's, 143", got)
		}
	})
	t.Run("SIGTERM", func(t *testing.T) {
		s := start(t, "run", "-p", "lab", "--wait", "true")
		s.send(syscall.SIGTERM)
		if got := <-s.code; got != 125 {
			t.Errorf("exit code %d, want 125", got)
		}
		if len(s.sent("POST /api/v1/jobs/17/cancel")) > 0 || !strings.Contains(s.stderr.String(), "job 17 is left to itself") {
			t.Errorf("stderr %q", s.stderr.String())
		}
		close(s.end)
	})
	t.Run("only waiting", func(t *testing.T) {
		s := start(t, "job", "wait", "17")
		s.send(os.Interrupt)
		if got := <-s.code; got != 125 {
			t.Errorf("exit code %d, want 125", got)
		}
		if len(s.sent("POST /api/v1/jobs/17/cancel")) > 0 || !strings.Contains(s.stderr.String(), "job 17 is left to itself") {
			t.Errorf("stderr %q", s.stderr.String())
		}
		close(s.end)
	})
	t.Run("following events", func(t *testing.T) {
		s := start(t, "events", "-f")
		s.send(os.Interrupt)
		if got := <-s.code; got != 0 || s.stderr.String() != "" {
			t.Errorf("exit code %d, stderr %q", got, s.stderr.String())
		}
		close(s.end)
	})
	t.Run("waiting for a machine", func(t *testing.T) {
		s := start(t, "machine", "delete", "m-aaaaaa", "--wait")
		s.send(os.Interrupt)
		if got := <-s.code; got != 130 {
			t.Errorf("exit code %d, want 130", got)
		}
		close(s.end)
	})
}

// The output of an array's tasks is not shown, so the command says which job it made and how that ended.
func TestRunWaitArray(t *testing.T) {
	w := newWorld(t)
	w.submitted(3)
	job := testJob("17", shoal.JobFailed, shoal.Counts{Succeeded: 2, Failed: 1})
	job.Submitted, job.Ended = time.Unix(1000, 0), time.Unix(1075, 0)
	job.Reason = "1 of 3 tasks did not succeed"
	end := w.play(job, 4, "", "")
	close(end)
	got := w.run("run", "-p", "lab", "--array", "1-3", "--wait", "--", "true")
	got.want(t, 4, "")
	if want := "shoal: job 17 submitted to pool lab: 3 tasks\nshoal: job 17 failed: 1 of 3 tasks did not succeed (3 of 3 done, 1 failed, after 1m15s)\n"; got.stderr != want {
		t.Errorf("stderr %q, want %q", got.stderr, want)
	}
	if got := w.run("run", "-p", "lab", "--array", "1-3", "--wait", "-q", "--", "true"); got.stderr != "" {
		t.Errorf("quiet, and still: %q", got.stderr)
	}
}

func TestSaysWhyItWaits(t *testing.T) {
	w := newWorld(t)
	w.submitted(1)
	queued := testJob("17", shoal.JobQueued, shoal.Counts{Queued: 1})
	end := w.play(testJob("17", shoal.JobSucceeded, shoal.Counts{Succeeded: 1}), 0, "", "")
	w.mux = replaced(w.mux, "GET /api/v1/jobs/17", func(rw http.ResponseWriter, _ *http.Request) { reply(rw, 200, queued) })
	over := sync.OnceFunc(func() { close(end) })
	w.mux.HandleFunc("GET /api/v1/why/job/17", func(rw http.ResponseWriter, _ *http.Request) {
		reply(rw, 200, api.Why{Sentence: "a machine is booting"})
		time.AfterFunc(20*time.Millisecond, over)
	})
	got := w.run("run", "-p", "lab", "--wait", "true")
	if got.code != 0 || got.stderr != "shoal: job 17 waits: a machine is booting\n" {
		t.Errorf("got %+v", got)
	}
}
