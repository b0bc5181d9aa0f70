package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

func TestTables(t *testing.T) {
	w := newWorld(t)
	w.pools()
	w.machines()
	w.list("GET /users", []shoal.User{{Name: "alice", UID: 20001, Role: shoal.RoleAdmin, Groups: []shoal.GroupName{"research"}, Keys: []string{"ssh-ed25519 AAAA a"}, HasPassword: true},
		{Name: "bob", UID: 20002, Role: shoal.RoleMember, Disabled: true}, {Name: "carol", UID: 20003, Role: shoal.RoleMember}})
	w.answer("GET /users/alice", shoal.User{Name: "alice", UID: 20001, Role: shoal.RoleAdmin, Keys: []string{"ssh-ed25519 AAAA a", "ssh-rsa BBBB b"}, Shell: "/bin/bash"})
	w.list("GET /groups", []shoal.Group{{Name: "research", GID: 30001, Members: []shoal.UserName{"alice", "bob"}}})
	w.answer("GET /groups/research", shoal.Group{Name: "research", GID: 30001, Members: []shoal.UserName{"alice", "bob"}, Budget: shoal.Budget{PerMonth: 500, Currency: "EUR", Stop: true}})
	w.answer("GET /whoami", api.Whoami{User: "alice", Role: shoal.RoleAdmin})
	w.list("GET /sessions", []shoal.Session{{ID: "s-aaaaaa", User: "alice", Pool: "lab", Machine: "m-aaaaaa", State: shoal.SessionActive, Since: before(2 * time.Hour),
		Parts: []shoal.Part{{Kind: "ssh"}, {Kind: "ssh"}}, Pins: []shoal.Pin{{Kind: "tmux", Count: 1}}, KeepUntil: time.Now().Add(2*time.Hour + 50*time.Second)},
		{ID: "s-bbbbbb", User: "bob", Pool: "lab", State: shoal.SessionWaiting, Since: before(6 * time.Minute), Reason: "the pool is full; 2nd in line"}})
	job := testJob("17", shoal.JobRunning, shoal.Counts{Running: 2, Succeeded: 5, Failed: 1})
	w.list("GET /jobs", []shoal.Job{job, testJob("16", shoal.JobQueued, shoal.Counts{Queued: 1})})
	w.answer("GET /jobs/17", job)
	w.list("GET /jobs/17/tasks", []shoal.Attempt{
		{AttemptRef: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "17", Index: 1}, Attempt: 1}, State: shoal.JobSucceeded, Cause: shoal.CauseExit, Machine: "m-aaaaaa", Started: before(time.Minute), Ended: before(30 * time.Second), MaxMemory: 20 << 20},
		{AttemptRef: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "17", Index: 2}, Attempt: 2}, State: shoal.JobFailed, Cause: shoal.CauseOOM, ExitCode: 137, Signal: 9, Machine: "m-aaaaaa", Reason: "it used more than 512MiB of memory", Started: before(time.Minute), Ended: before(59 * time.Second)},
		{AttemptRef: shoal.AttemptRef{TaskRef: shoal.TaskRef{Job: "17", Index: 3}}, State: shoal.JobQueued}})
	w.list("GET /images", []api.Image{{Name: "spring", Kind: "snapshot", Created: before(48 * time.Hour)}})
	w.answer("GET /why/pool/lab", api.Why{Subject: "pool lab", Sentence: "2 machines, as many as the sessions need.", Since: before(3 * time.Minute),
		Reasons: []shoal.Reason{{Code: "demand", Sentence: "9 sessions need 2 machines of 8 seats"}},
		Events:  []shoal.Event{{Time: before(3 * time.Minute), Kind: shoal.ObjectMachine, Name: "m-aaaaaa", Code: "machineReady", Sentence: "machine m-aaaaaa is ready"}}})
	w.answer("GET /usage", api.Usage{By: "user", Since: before(24 * time.Hour), Until: time.Now(), Total: api.UsageRow{MachineSeconds: 7300, IdleSeconds: 100, Cost: 1.2, Currency: "EUR"},
		Rows: []api.UsageRow{{Key: "alice", MachineSeconds: 7200, SessionSeconds: 3600, TaskSeconds: 90, Cost: 1.2, Currency: "EUR"}, {Key: "bob", MachineSeconds: 100, IdleSeconds: 100, Cost: 0.01, Currency: "EUR"}}})
	for _, tt := range []string{"pool list", "pool show lab", "pool show train", "machine list", "machine show m-bbbbbb", "user list", "user show alice", "group list",
		"group show research", "session list", "job list", "job show 17", "image list", "why pool lab", "usage", "usage --format csv", "pool list -o yaml", "group show research -o json"} {
		t.Run(tt, func(t *testing.T) {
			got := w.run(strings.Fields(tt)...)
			if got.code != 0 {
				t.Fatalf("exit code %d: %s", got.code, got.stderr)
			}
			golden(t, strings.NewReplacer(" ", "-", "--", "-").Replace(tt), got.stdout)
		})
	}
}

// TestPlot: beside every format a picture is written, whole; what cannot be written is told.
func TestPlot(t *testing.T) {
	w := newWorld(t)
	u := api.Usage{By: "user", Since: before(24 * time.Hour), Until: time.Now()}
	for i := range 40 {
		u.Rows = append(u.Rows, api.UsageRow{Key: fmt.Sprintf("user%02d", i), MachineSeconds: 3600, SessionSeconds: 3600, Cost: 1, Currency: "EUR"})
	}
	w.answer("GET /usage", u)
	for _, format := range []string{"table", "json", "csv"} {
		path := filepath.Join(t.TempDir(), "bill.svg")
		if got := w.run("usage", "--format", format, "--idle", "shared", "--plot", path); got.code != 0 {
			t.Fatalf("exit code %d: %s", got.code, got.stderr)
		}
		text, err := os.ReadFile(path)
		for _, part := range []string{"<svg", "Usage by user", ">user00<", ">11 more<", "</svg>"} {
			if err != nil || !strings.Contains(string(text), part) {
				t.Errorf("%s: %v, no %q in %s", format, err, part, text)
			}
		}
	}
	if got := w.run("usage", "--plot", filepath.Join(t.TempDir(), "no", "x.svg")); got.code != 2 || !strings.Contains(got.stderr, "cannot plot") {
		t.Errorf("exit code %d: %s", got.code, got.stderr)
	}
}

// TestExitCodes: for every kind the one of the table, and the words of the problem.
func TestExitCodes(t *testing.T) {
	for _, m := range shoal.Meanings() {
		t.Run(string(m.Kind), func(t *testing.T) {
			t.Parallel() // the client tries a server that is unavailable for a while
			w := newWorld(t)
			w.refuse("GET /groups/x", m.Kind)
			w.refuse("GET /jobs/7", m.Kind)
			got := w.run("group", "show", "x")
			if got.code != m.Exit {
				t.Errorf("exit code %d, want %d", got.code, m.Exit)
			}
			if want := "shoal: cannot do it: because\nhint: do this\n"; got.stderr != want || got.stdout != "" {
				t.Errorf("stderr %q, want %q; stdout %q", got.stderr, want, got.stdout)
			}
			if got := w.run("job", "wait", "7"); got.code != 125 {
				t.Errorf("job wait: exit code %d, want 125", got.code)
			}
		})
	}
}

func TestUsageMistakes(t *testing.T) {
	w := newWorld(t)
	w.pools()
	for line, want := range map[string]string{
		"frobnicate":                           `unknown command "frobnicate"`,
		"pol list":                             "did you mean pool?",
		"applly -f x":                          "did you mean apply?",
		"job lsit --all":                       "did you mean list?",
		"pool":                                 "Usage:",
		"pool lsit":                            "did you mean list?",
		"pool list x":                          `takes no "x"`,
		"pool show":                            "needs NAME",
		"pool show a b":                        `does not take "b"`,
		"pool list --bogus":                    "unknown flag: --bogus",
		"pool list -o xml":                     "table, json, yaml",
		"pool scale lab":                       "either --size N or --auto",
		"pool scale lab --size 2 --auto":       "either --size N or --auto",
		"pool scale lab --size -1":             "cannot have -1 machines",
		"pool scale lab --size x":              "for \"--size\" flag: write a whole number",
		"run -p lab --wait=perhaps -- true":    "write true or false",
		"pool scale lab --size 1 --for never":  "write 90s, 30m",
		"run -p lab":                           "needs a command",
		"run -p lab --memory lots -- true":     "amount of bytes",
		"run -p lab --env =x -- true":          "write K=V",
		"run -p lab --array= -- true":          "there are no indexes",
		"job show x":                           "as a job",
		"job logs 17/1 --task 2":               "does not go with",
		"job submit":                           "-f FILE",
		"apply":                                "-f FILE",
		"apply -f /nonexistent":                "cannot read documents",
		"session keep-awake soon":              "as a duration",
		"usage --by colour":                    "user, group, pool, job, machine",
		"usage --plot x.png":                   "pictures are SVG",
		"machine list --state sleeping":        "choose one of",
		"run -p lab -e NOT_SET_HERE -- true":   "write NOT_SET_HERE=VALUE",
		"events --since tomorrow":              "as a time",
		"serve --config /nonexistent":          "--config",
		"serve --database x":                   "--database",
		"serve --role boss":                    "unknown role",
		"completion csh":                       "unknown shell",
		"user add x --key /nonexistent":        "cannot read a key",
		"user add x --password-stdin":          "must be one line",
		"user passwd x":                        "stdin is no terminal",
		"user add x --admin --role member":     "contradict",
		"why weather x":                        "unknown command",
		"ssh a b":                              "one POOL",
		"--server ftp://x pool list":           "cannot use",
		"--token-file /nonexistent pool list":  "cannot read the token",
		"why pool":                             "needs NAME",
		"login --key a --password-stdin":       "contradict",
		"job submit -f testdata/team.yaml":     "no job",
		"apply -f testdata/job.yaml":           "shoal job submit",
		"job submit -f testdata/job.yaml -o x": "table, json, yaml",
	} {
		t.Run(line, func(t *testing.T) {
			got := w.run(strings.Fields(line)...)
			if got.code != 2 {
				t.Errorf("exit code %d, want 2", got.code)
			}
			if !strings.Contains(got.stderr, want) || got.stdout != "" {
				t.Errorf("stderr %q, want %q in it; stdout %q", got.stderr, want, got.stdout)
			}
		})
	}
	if calls := w.sent(""); len(calls) > 0 {
		t.Errorf("wrong command lines reached the server: %q", calls)
	}
}

func TestApply(t *testing.T) {
	w := newWorld(t)
	w.answer("POST /apply", api.ApplyResult{Changes: []api.Change{
		{Kind: shoal.ObjectGroup, Name: "research", Action: "created"},
		{Kind: shoal.ObjectPool, Name: "lab", Action: "changed", Diff: []string{"size.max: 4 → 8"}}}})
	w.run("apply", "-f", "testdata/team.yaml").want(t, 0, "group research created\npool lab changed\n  size.max: 4 → 8\n")
	w.run("apply", "--dry-run", "testdata/team.yaml").want(t, 0, "group research created (dry run)\npool lab changed (dry run)\n  size.max: 4 → 8\n")
	sent := w.sent("POST /api/v1/apply")
	if len(sent) != 2 || strings.Contains(sent[0], `"dryRun":true`) || !strings.Contains(sent[1], `"dryRun":true`) || !strings.Contains(sent[0], `"name":"lab"`) {
		t.Errorf("sent %q", sent)
	}
	text, err := os.ReadFile("testdata/team.yaml")
	if err != nil {
		t.Fatal(err)
	}
	w.runWith(string(text), "apply", "-f", "-").want(t, 0, "group research created\npool lab changed\n  size.max: 4 → 8\n")

	w.srv.Close()
	got := w.run("apply", "-f", "testdata/team.yaml", "--dry-run", "-o", "yaml")
	if got.code != 0 {
		t.Fatalf("without a server: %d %s", got.code, got.stderr)
	}
	golden(t, "apply-dry-run-yaml", got.stdout)
	if again := w.runWith(got.stdout, "apply", "-f", "-", "--dry-run", "-o", "yaml"); again.stdout != got.stdout {
		t.Errorf("what was written reads differently:\n%s", again.stdout)
	}
	if got := w.run("apply", "-f", "testdata/team.yaml"); got.code != 7 || !strings.Contains(got.stderr, "shoal: cannot") {
		t.Errorf("without a server: exit code %d, stderr %q", got.code, got.stderr)
	}
}

func TestMistakesOfDocuments(t *testing.T) {
	w := newWorld(t)
	got := w.run("apply", "-f", "testdata/mistakes.yaml")
	if got.code != 2 || got.stdout != "" {
		t.Errorf("exit code %d, stdout %q", got.code, got.stdout)
	}
	golden(t, "mistakes", got.stderr)
	w.mux.HandleFunc("POST /api/v1/apply", func(rw http.ResponseWriter, _ *http.Request) {
		reply(rw, 400, api.Problem{Status: 400, Kind: shoal.KindInvalid, Detail: "1 mistake in what was written", Mistakes: []api.Mistake{{Path: "pool lab: image", Msg: "there is no such image", Hint: "use host"}}})
	})
	got = w.run("apply", "-f", "testdata/team.yaml")
	if want := "testdata/team.yaml:13:1: pool lab: image: there is no such image\n    hint: use host\nshoal: 1 mistake in what was written\n"; got.stderr != want {
		t.Errorf("got %q, want %q", got.stderr, want)
	}
}

func TestChanges(t *testing.T) {
	w := newWorld(t)
	lab := shoal.Pool{Name: "lab", Size: shoal.Size{Max: 4}}
	w.answer("POST /pools/lab/scale", lab)
	w.answer("DELETE /pools/lab", struct{}{})
	w.refuse("GET /pools/lab", shoal.KindNotFound)
	w.answer("POST /machines/m-aaaaaa/drain", shoal.Machine{ID: "m-aaaaaa"})
	w.answer("POST /machines/m-aaaaaa/undrain", shoal.Machine{ID: "m-aaaaaa"})
	w.answer("DELETE /machines/m-aaaaaa", struct{}{})
	w.answer("POST /users", shoal.User{Name: "bob", UID: 20002})
	w.answer("PUT /users/bob/password", struct{}{})
	w.answer("POST /users/bob/disable", shoal.User{Name: "bob"})
	w.answer("POST /users/bob/enable", shoal.User{Name: "bob"})
	w.answer("DELETE /users/bob", api.Change{Name: "bob", Diff: []string{"files in /srv/team/home/bob stay; they belong to uid 20002"}})
	w.answer("DELETE /sessions/s-aaaaaa", struct{}{})
	w.answer("POST /jobs/17/cancel", testJob("17", shoal.JobRunning, shoal.Counts{Running: 1}))
	w.answer("GET /jobs/17", testJob("17", shoal.JobRunning, shoal.Counts{Running: 1}))
	w.answer("POST /images", api.Image{Name: "spring"})
	w.answer("DELETE /images/spring", struct{}{})
	w.list("GET /machines", []shoal.Machine{{ID: "m-1", Pool: "lab", State: shoal.MachineReady}, {ID: "m-2", Pool: "lab", State: shoal.MachineReady}})
	key := filepath.Join(t.TempDir(), "id.pub")
	const line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl bob@laptop"
	if err := os.WriteFile(key, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ line, stdin, says, sends string }{
		{"pool scale lab --size 2 --for 2h --wait", "", "pool lab is to have 2 machines for 2h\n", `POST /api/v1/pools/lab/scale {"size":2,"for":"2h"}`},
		{"pool scale lab --auto", "", "pool lab scales by itself between 0 and 4 machines\n", `POST /api/v1/pools/lab/scale {"size":0,"auto":true}`},
		{"pool delete lab --wait", "", "pool lab deleted\n", "DELETE /api/v1/pools/lab"},
		{"machine drain m-aaaaaa --deadline 30m --reason fan", "", "machine m-aaaaaa takes nobody new; it is deleted when it is empty, and in 30m at the latest\n", `POST /api/v1/machines/m-aaaaaa/drain {"deadline":"30m","reason":"fan"}`},
		{"machine undrain m-aaaaaa", "", "machine m-aaaaaa takes users and tasks again\n", "POST /api/v1/machines/m-aaaaaa/undrain"},
		{"machine delete m-aaaaaa --force", "", "machine m-aaaaaa is being deleted\n", "DELETE /api/v1/machines/m-aaaaaa?force=true"},
		{"user add bob --password-stdin --admin -g research --key " + key, "hunter2 is long\n", "user bob added, with uid 20002\n",
			`POST /api/v1/users {"name":"bob","keys":["` + line + `"],"groups":["research"],"role":"admin","password":"hunter2 is long"}`},
		{"user passwd bob --password-stdin", "  with blanks \r\n", "password of bob set\n", `PUT /api/v1/users/bob/password {"password":"  with blanks "}`},
		{"user disable bob", "", "user bob disabled\n", "POST /api/v1/users/bob/disable"},
		{"user enable bob", "", "user bob enabled\n", "POST /api/v1/users/bob/enable"},
		{"user remove bob", "", "user bob removed\nfiles in /srv/team/home/bob stay; they belong to uid 20002\n", "DELETE /api/v1/users/bob"},
		{"session end s-aaaaaa", "", "session s-aaaaaa ended\n", "DELETE /api/v1/sessions/s-aaaaaa"},
		{"job cancel 17", "", "job 17 is being cancelled\n", "POST /api/v1/jobs/17/cancel"},
		{"image snapshot spring", "", "image spring made\n", `POST /api/v1/images {"name":"spring"}`},
		{"image remove spring", "", "image spring removed\n", "DELETE /api/v1/images/spring"},
	} {
		t.Run(tt.line, func(t *testing.T) {
			w.runWith(tt.stdin, strings.Fields(tt.line)...).want(t, 0, tt.says)
			if sent := w.sent(tt.sends); len(sent) != 1 {
				t.Errorf("did not send %s, but %q", tt.sends, w.sent(strings.Fields(tt.sends)[0]))
			}
		})
	}
}

// What is missing does not keep the others from being done, is told each, and decides the exit code; a server that is away ends it.
func TestSeveral(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"one", "four"} {
		w.refuse("DELETE /secrets/"+name, shoal.KindNotFound)
	}
	w.answer("DELETE /secrets/two", struct{}{})
	w.answer("DELETE /secrets/three", struct{}{})
	w.refuse("DELETE /secrets/away", shoal.KindInternal)
	got := w.run("secret", "remove", "one", "two", "four", "three")
	if got.code != 3 || len(w.sent("DELETE /api/v1/secrets/three")) != 1 || strings.Count(got.stderr, "cannot do it") != 2 || strings.Count(got.stderr, "is removed") != 2 {
		t.Errorf("%d, %s", got.code, got.stderr)
	}
	got = w.run("secret", "remove", "one", "away", "two")
	if got.code != 1 || len(w.sent("DELETE /api/v1/secrets/two")) != 1 || strings.Count(got.stderr, "cannot do it") != 2 {
		t.Errorf("%d, %s", got.code, got.stderr)
	}
}

func TestEmptyListIsAnArray(t *testing.T) {
	w := newWorld(t)
	w.list("GET /pools", []shoal.Pool{})
	w.run("pool", "list", "-o", "json").want(t, 0, "[]\n")
	w.list("GET /machines", nil)
	w.run("machine", "list", "-o", "json").want(t, 0, "[]\n")
}

func TestEvents(t *testing.T) {
	w := newWorld(t)
	w.mux.HandleFunc("GET /api/v1/events", func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		for i := 1; i <= 2; i++ {
			e, _ := json.Marshal(shoal.Event{Rev: shoal.Rev(i), Time: time.Now(), Kind: shoal.ObjectJob, Name: "17", Code: "x", Sentence: fmt.Sprintf("job 17 moved %d", i)})
			fmt.Fprintf(rw, "id: %d\ndata: %s\n\n", i, e)
		}
	})
	got := w.run("events", "--since", "1h")
	golden(t, "events", got.stdout)
	got = w.run("events", "-o", "json")
	lines := strings.Split(strings.TrimSpace(got.stdout), "\n")
	var e shoal.Event
	if len(lines) != 2 || json.Unmarshal([]byte(lines[1]), &e) != nil || e.Sentence != "job 17 moved 2" {
		t.Errorf("got %q", got.stdout)
	}
}

func TestKeepAwake(t *testing.T) {
	w := newWorld(t)
	w.answer("GET /whoami", api.Whoami{User: "alice", Machine: "m-aaaaaa", Pool: "lab"})
	w.list("GET /sessions", []shoal.Session{{ID: "s-other", User: "alice", Machine: "m-bbbbbb", State: shoal.SessionActive},
		{ID: "s-mine", User: "alice", Machine: "m-aaaaaa", State: shoal.SessionActive}, {ID: "s-old", User: "alice", Machine: "m-aaaaaa", State: shoal.SessionEnded}})
	w.answer("POST /sessions/{id}/keep-awake", shoal.Session{KeepUntil: time.Date(2030, 1, 2, 3, 4, 0, 0, time.Local)})
	w.run("session", "keep-awake", "2h").want(t, 0, "session s-mine stays awake until 2030-01-02 03:04\n")
	w.run("session", "keep-awake", "30m", "s-other").want(t, 0, "session s-other stays awake until 2030-01-02 03:04\n")
	w.run("session", "keep-awake", "0s", "s-other").want(t, 0, "session s-other is no longer kept awake\n")
	if sent := w.sent(`POST /api/v1/sessions/s-mine/keep-awake {"for":"2h"}`); len(sent) != 1 {
		t.Errorf("sent %q", w.sent("POST"))
	}
	w.run("session", "list") // inside a machine: one's own
	if sent := w.sent("GET /api/v1/sessions?"); len(sent) == 0 || !strings.Contains(sent[len(sent)-1], "user=alice") {
		t.Errorf("sent %q", sent)
	}
}

func TestVersionWithoutServer(t *testing.T) {
	w := newWorld(t)
	w.srv.Close()
	if got := w.run("version"); got.code != 0 || !strings.HasPrefix(got.stdout, "shoal:  v1\n") {
		t.Errorf("got %+v", got)
	}
}

func TestDoctorCommand(t *testing.T) {
	w := newWorld(t)
	got := w.run("doctor", "-o", "json", "--data", t.TempDir(), "--listen", "127.0.0.1:0", "--ssh-listen", "127.0.0.1:0", "--https-listen", "127.0.0.1:0")
	var found []struct{ Check, State, Detail, Mend string }
	if err := json.Unmarshal([]byte(got.stdout), &found); err != nil || len(found) < 8 {
		t.Fatalf("%v: %q", err, got.stdout)
	}
	missing := 0
	for _, f := range found {
		if f.State == "missing" {
			missing = 1
		}
	}
	if got.code != missing {
		t.Errorf("exit code %d, want %d", got.code, missing)
	}
	if table := w.run("doctor", "--data", t.TempDir()); !strings.HasPrefix(table.stdout, "STATE") {
		t.Errorf("got %q", table.stdout)
	}
}
