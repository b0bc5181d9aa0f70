package slurm

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/client"
)

// world is a server that keeps what is submitted and shows the jobs it was given.
type world struct {
	t         *testing.T
	submitted []shoal.JobSpec
	cancelled []string
	jobs      []shoal.Job
	tasks     map[shoal.JobID][]shoal.Attempt
	pool      shoal.PoolName // of the machine that the commands are on
	url       string
	env       map[string]string
	dir       string
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, tasks: map[shoal.JobID][]shoal.Attempt{}, env: map[string]string{"USER": "alice"}, dir: t.TempDir()}
	mux := http.NewServeMux()
	answer := func(rw http.ResponseWriter, v any) { _ = json.NewEncoder(rw).Encode(v) }
	mux.HandleFunc("POST /api/v1/jobs", func(rw http.ResponseWriter, r *http.Request) {
		var s shoal.JobSpec
		if err := json.NewDecoder(r.Body).Decode(&s); err != nil {
			t.Error(err)
		}
		w.submitted = append(w.submitted, s)
		answer(rw, shoal.Job{ID: shoal.JobID(strconv.Itoa(16 + len(w.submitted))), Spec: s})
	})
	mux.HandleFunc("GET /api/v1/jobs", func(rw http.ResponseWriter, r *http.Request) {
		var all []shoal.Job
		for _, j := range w.jobs {
			if s := r.URL.Query().Get("state"); s == "" || s == string(j.State) {
				all = append(all, j)
			}
		}
		answer(rw, api.List[shoal.Job]{Items: all})
	})
	mux.HandleFunc("GET /api/v1/jobs/{id}", func(rw http.ResponseWriter, r *http.Request) {
		for _, j := range w.jobs {
			if string(j.ID) == r.PathValue("id") {
				answer(rw, j)
				return
			}
		}
		rw.Header().Set("Content-Type", "application/problem+json")
		rw.WriteHeader(http.StatusNotFound)
		answer(rw, api.Problem{Kind: shoal.KindNotFound, Detail: "no such job", Status: 404})
	})
	mux.HandleFunc("GET /api/v1/jobs/{id}/tasks", func(rw http.ResponseWriter, r *http.Request) {
		answer(rw, api.List[shoal.Attempt]{Items: w.tasks[shoal.JobID(r.PathValue("id"))]})
	})
	mux.HandleFunc("POST /api/v1/jobs/{id}/cancel", func(rw http.ResponseWriter, r *http.Request) {
		var c api.CancelTasks
		_ = json.NewDecoder(r.Body).Decode(&c)
		w.cancelled = append(w.cancelled, strings.TrimSuffix(r.PathValue("id")+"/"+c.Tasks, "/"))
		answer(rw, shoal.Job{})
	})
	mux.HandleFunc("GET /api/v1/pools", func(rw http.ResponseWriter, r *http.Request) {
		answer(rw, api.List[shoal.Pool]{Items: []shoal.Pool{
			{Name: "lab", Uses: []shoal.Use{shoal.UseBatch}, Size: shoal.Size{Max: 4}, Default: true}, {Name: "people", Uses: []shoal.Use{shoal.UseInteractive}},
			{Name: "gpu", Uses: []shoal.Use{shoal.UseBatch}, Size: shoal.Size{Max: 2}, Machine: shoal.Resources{GPUs: 2}, Limits: shoal.Limits{MaxTimeLimit: shoal.Duration(time.Hour)}}}})
	})
	mux.HandleFunc("GET /api/v1/pools/{name}", func(rw http.ResponseWriter, r *http.Request) {
		answer(rw, shoal.Pool{Name: shoal.PoolName(r.PathValue("name")), Machine: shoal.Resources{CPUs: 4000, Memory: 3 << 30}})
	})
	mux.HandleFunc("GET /api/v1/machines", func(rw http.ResponseWriter, r *http.Request) {
		answer(rw, api.List[shoal.Machine]{Items: []shoal.Machine{{ID: "m-aaa", Pool: "lab", State: shoal.MachineReady}}})
	})
	mux.HandleFunc("GET /api/v1/whoami", func(rw http.ResponseWriter, r *http.Request) { answer(rw, api.Whoami{User: "alice", Pool: w.pool}) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	w.url = s.URL
	return w
}

// now is when the tests take place.
func now() time.Time { return time.Date(2026, 3, 2, 15, 0, 0, 0, time.Local) }

// run runs a command, and returns its exit code and what it wrote.
func (w *world) run(stdin, name string, args ...string) (int, string, string) {
	var out, errs bytes.Buffer
	code := Main(context.Background(), name, args, World{
		Connect: func() (*client.Client, error) { return client.New(client.Options{Server: w.url, Token: "t"}) },
		Quote:   func(args []string) string { return "'" + strings.Join(args, "' '") + "'" },
		Stdin:   strings.NewReader(stdin), Stdout: &out, Stderr: &errs,
		Getenv: func(k string) string { return w.env[k] },
		Environ: func() []string {
			var all []string
			for k, v := range w.env {
				all = append(all, k+"="+v)
			}
			return all
		},
		Getwd: func() (string, error) { return "/shared/work", nil },
		Now:   now,
	})
	return code, out.String(), errs.String()
}

func TestSbatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env["DATA"], w.env["HOME"], w.env["SLURM_CONF"] = "/shared/data", "/home/x", "no"
	script := filepath.Join(w.dir, "train.sh")
	text := `#!/bin/bash
# a comment
#SBATCH --job-name="my job" --time=1-02
#SBATCH -N 2 --ntasks-per-node=2   # four in all
#SBATCH -c 3
#SBATCH --mem=4G
#SBATCH -o logs/%x-%4A_%a.log
#SBATCH --array=0-9:3%2
#SBATCH --gres=gpu:a100:1
#SBATCH --dependency=afterok:3:4,aftercorr:5
#SBATCH --signal=B:USR1@90 --no-requeue --mail-type=ALL

echo hello
#SBATCH --mem=1G
`
	if err := os.WriteFile(script, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	code, out, errs := w.run("", "sbatch", "-p", "lab,other", "--time", "90", script, "a b")
	if code != 0 || out != "Submitted batch job 17\n" {
		t.Fatalf("%d %q %q", code, out, errs)
	}
	if !strings.Contains(errs, "left out: --mail-type") {
		t.Errorf("nothing is said about what is ignored: %q", errs)
	}
	got := w.submitted[0]
	if !strings.Contains(got.Command, text) || !strings.Contains(got.Command, `exec "$f" 'a b'`) {
		t.Errorf("command:\n%s", got.Command)
	}
	got.Command = ""
	want := shoal.JobSpec{Name: "my_job", Pool: "lab", Array: "0-9:3", MaxRunning: 2, Nodes: shoal.Fixed(2), Launcher: "head",
		Resources: shoal.Resources{CPUs: 6000, Memory: 4 << 30, GPUs: 1}, Workdir: "/shared/work",
		Env:    map[string]string{"DATA": "/shared/data", "SLURM_SUBMIT_DIR": "/shared/work", "SLURM_NTASKS": "4", "SLURM_NPROCS": "4", "SLURM_CPUS_PER_TASK": "3", "SLURM_NTASKS_PER_NODE": "2"},
		Stdout: "/shared/work/logs/%x-%j_%a.log", Stderr: "/shared/work/logs/%x-%j_%a.log",
		TimeLimit: shoal.Duration(90 * time.Minute), Signal: "USR1@1m30s", Requeue: "never", Share: "private", Priority: "normal", Dialect: "slurm",
		After: []shoal.Dependency{{Job: "3"}, {Job: "4"}, {Job: "5", Task: shoal.Corresponding}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if code, out, errs := w.run("#!/bin/sh\ntrue\n", "sbatch", "--parsable", "--export=NONE,X=1"); code != 0 || out != "18\n" {
		t.Errorf("from stdin: %d %q %q", code, out, errs)
	}
	if env := w.submitted[1].Env; env["X"] != "1" || env["DATA"] != "" || w.submitted[1].Stdout != "/shared/work/slurm-%j.out" {
		t.Errorf("from stdin: %v", w.submitted[1])
	}
	if code, out, _ := w.run("", "sbatch", "-J", "w", "--wrap", "echo 1"); code != 0 || out != "Submitted batch job 19\n" {
		t.Errorf("--wrap: %d %q", code, out)
	}
}

// TestSbatchHabits is what scripts of labs write and the manual allows.
func TestSbatchHabits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for i, c := range []struct {
		args string
		want func(shoal.JobSpec) any
		is   any
	}{
		{"-a 7,1-3,2,20-30:5 --wrap true", func(s shoal.JobSpec) any { return s.Array }, "1-3,7,20-30:5"},
		{"--job=short --cpus-per-t=2 --wrap=true", func(s shoal.JobSpec) any { return s.Name + s.Env["SLURM_CPUS_PER_TASK"] }, "short2"},
		{"--job short -c2 --mem-per-cpu=100 --wrap=true", func(s shoal.JobSpec) any { return s.Env["SLURM_MEM_PER_CPU"] + s.Resources.Memory.String() }, "100200MiB"},
		{"--contiguous --cpu-freq=high --wait-all-nodes -A phys --parti=lab --wrap=true", func(s shoal.JobSpec) any { return s.Env["SLURM_JOB_ACCOUNT"] + s.Labels["account"] }, "physphys"},
		{"--gpus=2 --cpus-per-gpu=8 --mem-per-cpu=100 --wrap=true", func(s shoal.JobSpec) any { return s.Resources }, shoal.Resources{CPUs: 16_000, Memory: 1600 << 20, GPUs: 2}},
		{"-p gpu --mem=0 --wrap=true", func(s shoal.JobSpec) any { return s.Resources.Memory }, shoal.Bytes(3 << 30)},
		{"--mem=0 --wrap=true", func(s shoal.JobSpec) any { return s.Resources.Memory }, shoal.Bytes(0)},
	} {
		code, _, errs := w.run("", "sbatch", strings.Fields(c.args)...)
		if code != 0 || len(w.submitted) != i+1 {
			t.Fatalf("%s: %d %s", c.args, code, errs)
		}
		if got := c.want(w.submitted[i]); got != c.is {
			t.Errorf("%s: %v, want %v", c.args, got, c.is)
		}
	}
	if code, _, errs := w.run("#!/bin/sh\n#PBS -l x\n", "sbatch", "--ignore-pbs"); code != 0 {
		t.Errorf("--ignore-pbs: %s", errs)
	}
	if code, _, errs := w.run("#!/bin/sh\n#SBATCH -c 2\n#PBS -l x\n", "sbatch"); code != 0 {
		t.Errorf("lines for both systems: %s", errs)
	}
	script := filepath.Join(w.dir, "x.sh")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := w.run("", "sbatch", "-J", "x", script, "--job=its-own"); code != 0 || !strings.Contains(w.submitted[len(w.submitted)-1].Command, "--job=its-own") {
		t.Errorf("a script's own options: %d %s", code, errs)
	}
	if code, _, errs := w.run("", "sbatch", "--exclusive", "--wrap", "true"); code != 1 || !strings.Contains(errs, "--exclusive needs a partition") {
		t.Errorf("all of a machine of no pool: %d %s", code, errs)
	}
	w.pool = "gpu"
	code, _, errs := w.run("", "sbatch", "--exclusive", "--wrap", "true")
	if got := w.submitted[len(w.submitted)-1]; code != 0 || got.Pool != "gpu" || got.Resources != (shoal.Resources{CPUs: 4000, Memory: 3 << 30}) {
		t.Errorf("all of a machine of the pool that one is on: %d %s %+v", code, errs, got)
	}
	for _, name := range Names() {
		if code, out, _ := w.run("", name, "--version"); code != 0 || !strings.HasPrefix(out, "slurm 22.05") {
			t.Errorf("%s --version: %d %q", name, code, out)
		}
	}
}

func TestSbatchRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, c := range []struct {
		stdin string
		args  []string
		want  string
	}{
		{"echo 1\n", nil, "does not look like a batch script"},
		{"", []string{"--wrap", "x", "y"}, "not permitted with --wrap"},
		{"", []string{"/nonexistent"}, "Unable to open file"},
		{"#!/bin/sh\n", []string{"--time", "soon"}, "Invalid --time"},
		{"#!/bin/sh\n", []string{"--time", "1:2:3:4"}, "Invalid --time"},
		{"#!/bin/sh\n", []string{"--mem", "4X"}, "Invalid memory"},
		{"#!/bin/sh\n", []string{"--hold"}, "--hold has no counterpart"},
		{"#!/bin/sh\n", []string{"--begin=now+1hour"}, "--begin has no counterpart"},
		{"#!/bin/sh\n", []string{"-a", "x"}, "Invalid job array"},
		{"#!/bin/sh\n", []string{"--array="}, "Invalid job array"},
		{"#!/bin/sh\n#SBATCH --array=\n", nil, "Invalid job array"},
		{"#!/bin/sh\n", []string{"-d", "after:1"}, "nothing waits for another job's begin"},
		{"#!/bin/sh\n", []string{"-d", "soon:1"}, "no kind of dependency"},
		{"#!/bin/sh\n", []string{"--mem-per=1"}, "unknown flag: --mem-per"},
		{"#!/bin/sh\n", []string{"-d", "afterok:1?afterok:2"}, "one of several"},
		{"#!/bin/sh\n", []string{"--signal", "WHAT@1"}, "Invalid --signal"},
		{"#!/bin/sh\n", []string{"--nonsense"}, "unknown flag: --nonsense"},
		{"#!/bin/sh\n#SBATCH --job-name='open\n", nil, "line 2 of the script: a ' is not closed"},
		{"#!/bin/sh\n#SBATCH --bad\n", nil, "line 2 of the script: unknown flag"},
		{"#!/bin/sh\n#SBATCH -c 2\n#SBATCH hetjob\n#SBATCH -c 4\n", nil, "line 3 of the script: the tasks of a job all ask for the same"},
		{"#!/bin/sh\n#SBATCH -J my job\n#SBATCH --mem=4G\n", nil, "line 2 of the script: Invalid argument: job"},
		{"#!/bin/sh\n#PBS -l walltime=1:00:00\n", nil, "line 2 of the script: options in lines with #PBS"},
		{"#!/bin/sh\r\n#SBATCH -c 2\r\n", nil, "DOS line breaks"},
		{"#!/bin/sh\necho caf\xe9\n", nil, "not text in UTF-8"},
		{"#!/bin/sh\n", []string{"-o", "%q"}, "has no meaning here"},
		{"#!/bin/sh\n", []string{"--gres=fpga:1"}, "generic resource"},
		{"#!/bin/sh\n" + strings.Repeat("x", maxScript), nil, "more than 60 KiB"},
	} {
		code, _, errs := w.run(c.stdin, "sbatch", c.args...)
		if code != 1 || !strings.HasPrefix(errs, "sbatch: error: ") || !strings.Contains(errs, c.want) {
			t.Errorf("%q: %d %q, want %q", c.args, code, errs, c.want)
		}
	}
	if len(w.submitted) > 0 {
		t.Errorf("submitted all the same: %v", w.submitted)
	}
}

func TestTimeLimit(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]time.Duration{"5": 5 * time.Minute, "5:30": 330 * time.Second, "1:00:00": time.Hour, "2-3": 51 * time.Hour,
		"1-0:30": 24*time.Hour + 30*time.Minute, "1-2:3:4": 26*time.Hour + 3*time.Minute + 4*time.Second, "0": 0, "UNLIMITED": 0} {
		if got, err := timeLimit(in); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "-", "x", "1:2:3:4", "1-2-3", "-5", "99999999999999"} {
		if got, err := timeLimit(in); err == nil {
			t.Errorf("%q is taken for %v", in, got)
		}
	}
}

// FuzzScript reads scripts that nobody wrote.
func FuzzScript(f *testing.F) {
	f.Add("#!/bin/sh\n#SBATCH -J x --mem=4G -a 1-3%2 # c\n#SBATCH --time='1:2'\nx")
	f.Add("#!/bin/sh\n#SBATCH -o \"%j\\\" -d afterok:1\n")
	f.Fuzz(func(t *testing.T, script string) {
		w := newWorldless()
		w.Stdin = strings.NewReader(script)
		_ = Main(context.Background(), "sbatch", nil, w)
		if command, err := asCommand(script, nil, w.Quote); err == nil && !strings.Contains(command, script) {
			t.Errorf("the script is not whole")
		}
	})
}

// newWorldless is a world without a server.
func newWorldless() World {
	var sink bytes.Buffer
	return World{
		Connect: func() (*client.Client, error) { return nil, shoal.Errorf(shoal.KindUnavailable, "no server") },
		Quote:   func(args []string) string { return strings.Join(args, " ") },
		Stdin:   strings.NewReader(""), Stdout: &sink, Stderr: &sink, Getenv: func(string) string { return "" },
		Environ: func() []string { return nil }, Getwd: func() (string, error) { return "/", nil }, Now: now,
	}
}
