package httpapi_test

import (
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal/api"
)

var update = flag.Bool("update", false, "write the golden files")

func newLogger(w *lockedBuffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// subject is who asks in the walk over the table.
type subject struct {
	name   string
	face   string
	header map[string]string
}

// subjects are from those who may least to those who may most, so that whoever may not is asked before
// somebody who may has changed things.
func (w *world) subjects() []subject {
	user := func(name string) subject { return subject{name, "control", bearer(w.tokens[name])} }
	relayed := func(name string) subject {
		return subject{name + " in m-1", "agent", map[string]string{"Authorization": "Bearer " + w.mtoken, api.UserHeader: name}}
	}
	return []subject{
		{"nobody", "control", nil},
		{"wrong token", "control", bearer("wrong")},
		{"machine token", "control", bearer(w.mtoken)},
		{"absent in m-1", "agent", relayed("carol").header},
		{"browser of ada", "browser", w.browser("ada")},
		relayed("bob"), user("bob"), user("carol"), {"hub", "control", bearer(hubToken)}, relayed("alice"), user("alice"), {"alice in a browser", "browser", w.browser("alice")}, user("oscar"), user("ada"),
		{"admin token", "control", bearer(adminToken)},
		{"host", "local", nil},
	}
}

// sample is a request for a line of the table that could be served, about things of alice's.
func sample(method, path string, job string) request {
	r := request{method: method}
	kind := strings.Split(strings.TrimPrefix(path, "/api/v1/"), "/")[0]
	name := map[string]string{"pools": "lab", "shares": "spare", "groups": "research", "users": "alice", "images": "old", "deployments": "vmss", "gateways": "edge"}[kind]
	id := map[string]string{"machines": "m-1", "sessions": "s-alice", "jobs": job, "apps": "a-alice"}[kind]
	r.path = strings.NewReplacer("{name}", name, "{id}", id, "{index}", "0").Replace(path)
	r.body = map[string]string{
		"POST /api/v1/login":                    `{}`,
		"POST /api/v1/apply":                    `{"pools":[{"name":"lab","provider":"local","size":{"max":3}}]}`,
		"PUT /api/v1/pools/{name}":              `{"provider":"local","size":{"max":3}}`,
		"POST /api/v1/pools/{name}/rehearse":    `{}`,
		"POST /api/v1/pools/{name}/rollout":     `{"action":"resume"}`,
		"POST /api/v1/pools/{name}/scale":       `{"size":1}`,
		"PUT /api/v1/shares/{name}":             `{"source":"/srv/spare","groupDirs":[{"path":"p/{group}"}]}`,
		"PUT /api/v1/groups/{name}":             `{"members":["alice"]}`,
		"POST /api/v1/users":                    `{"name":"dora"}`,
		"PUT /api/v1/users/{name}":              `{"shell":"/bin/sh"}`,
		"PUT /api/v1/users/{name}/password":     `{"password":"a new password"}`,
		"POST /api/v1/sessions/{id}/keep-awake": `{"for":"1h"}`,
		"POST /api/v1/apps":                     `{"pool":"lab","endpoint":"web","user":"alice"}`,
		"POST /api/v1/apps/{id}/activity":       `{"lastActivity":"2026-11-24T15:04:05Z","kernels":1}`,
		"POST /api/v1/desktops":                 `{"pool":"lab"}`,
		"POST /api/v1/machines/{id}/drain":      `{}`,
		"PUT /api/v1/deployments/{name}":        `{"template":"vmss.json"}`,
		"POST /api/v1/images":                   `{"name":"new"}`,
		"POST /api/v1/gateways":                 `{"name":"edge-2"}`,
		"POST /api/v1/web/redeem":               `{}`,
		"POST /api/v1/web/step-up":              `{"method":"GET","path":"/api/v1/users"}`,
		"POST /api/v1/web/confirm":              `{"code":"x"}`,
		"POST /api/v1/jobs":                     `{"pool":"lab","command":"true"}`,
		"POST /api/v1/jobs/{id}/cancel":         `{"tasks":"0"}`,
		"POST /api/v1/jobs/{id}/retry":          `{}`,
		"POST /api/v1/jobs:batch":               `{"jobs":[{"pool":"lab","command":"true"}]}`,
		"POST /api/v1/jobs:status":              `{"ids":["` + job + `"]}`,
		"POST /api/v1/jobs:cancel":              `{"ids":["` + job + `"]}`,
	}[method+" "+path]
	if path == "/api/v1/events" {
		r.path += "?follow=false"
	}
	return r
}

// whys are the six lines that /why stands for.
func whys(job string) []request {
	var all []request
	for _, about := range []string{"pool/lab", "machine/m-1", "session/s-alice", "app/a-alice", "job/" + job, "login/alice"} {
		all = append(all, request{method: "GET", path: "/api/v1/why/" + about})
	}
	return all
}

// TestTable asks everything as everybody, writes down the answers, and looks in them for what is not theirs to see.
func TestTable(t *testing.T) {
	t.Parallel()
	lines := newWorld(t).api.Lines()
	results := make([]string, len(lines))
	t.Run("lines", func(t *testing.T) {
		for i, line := range lines {
			t.Run(strings.Trim(line.Method+line.Path, "/"), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				job := string(w.job("", !strings.HasSuffix(line.Path, "cancel")))
				requests := []request{sample(line.Method, line.Path, job)}
				if strings.Contains(line.Path, "/why/") {
					requests = whys(job)
				}
				for _, r := range requests {
					results[i] += w.askAll(t, r, line.Rule)
				}
			})
		}
	})
	golden(t, "testdata/table.golden", strings.Join(results, ""))
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		mustf(t, os.WriteFile(path, []byte(got), 0o644), "write")
	}
	want, err := os.ReadFile(path)
	mustf(t, err, "read")
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("it differs from %s (go test -update writes it):\n%s", path, diff)
	}
}

// askAll asks one thing as everybody and tells who got what.
func (w *world) askAll(t *testing.T, r request, rule string) string {
	faces := map[string]string{"control": start(t, w.api.Control()), "local": start(t, w.api.Local()), "agent": start(t, w.api.Agent()), "browser": start(t, w.api.Browser())}
	by := map[string][]string{}
	var order []string
	for _, s := range w.subjects() {
		ask := r
		ask.header = s.header
		if s.face == "agent" {
			ask.path = "/agent/v1/user" + ask.path
		}
		a := do(t, faces[s.face], ask)
		w.leaks(t, s.name, r, a)
		what := fmt.Sprint(a.status)
		if a.status >= 400 {
			what += " " + string(a.problem(t).Kind)
		}
		if !slices.Contains(order, what) {
			order = append(order, what)
		}
		by[what] = append(by[what], s.name)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s\n    rule: %s\n", r.method, strings.ReplaceAll(r.path, "/api/v1", ""), rule)
	for _, what := range order {
		fmt.Fprintf(&b, "    %s: %s\n", what, strings.Join(by[what], ", "))
	}
	return b.String()
}

// leaks looks for alice's secrets in others' answers. Operators see all but output; admins see all.
func (w *world) leaks(t *testing.T, name string, r request, a answer) {
	t.Helper()
	for _, secret := range []string{"the-admin-token", hubToken, "argon2", w.mtoken} {
		if strings.Contains(a.body, secret) {
			t.Errorf("%s %s told %s a secret: %s", r.method, r.path, name, a.body)
		}
	}
	switch strings.Fields(name)[0] {
	case "alice", "ada", "admin", "host":
		return
	case "hub": // of others it sees who they are and their apps
		for _, secret := range []string{"SECRET-OUTPUT", "SECRET-EVENT", "SECRET-SESSION"} {
			if strings.Contains(a.body, secret) {
				t.Errorf("%s %s told the hub: %s", r.method, r.path, a.body)
			}
		}
		return
	case "oscar":
		if strings.Contains(a.body, "SECRET-OUTPUT") {
			t.Errorf("%s %s told an operator a job's output", r.method, r.path)
		}
		return
	}
	text := a.body
	for part := range strings.SplitSeq(r.path, "/") { // what was asked for may be said back
		if part != "" {
			text = strings.ReplaceAll(text, part, "")
		}
	}
	for _, secret := range []string{"SECRET", "s-alice"} {
		if strings.Contains(text, secret) {
			t.Errorf("%s %s told %s: %s", r.method, r.path, name, a.body)
		}
	}
}

// TestHidden: what may not be seen reads exactly as what is not there.
func TestHidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	job := string(w.job("", true))
	base := start(t, w.api.Control())
	for _, c := range [][3]string{
		{"GET", "/api/v1/sessions/", "s-alice"}, {"DELETE", "/api/v1/sessions/", "s-alice"}, {"GET", "/api/v1/why/session/", "s-alice"},
		{"GET", "/api/v1/apps/", "a-alice"}, {"DELETE", "/api/v1/apps/", "a-alice"},
		{"GET", "/api/v1/users/", "alice"}, {"GET", "/api/v1/why/login/", "alice"}, {"DELETE", "/api/v1/users/", "alice"},
		{"GET", "/api/v1/jobs/", job}, {"GET", "/api/v1/why/job/", job},
	} {
		absent := "absent"
		if c[2] == job {
			absent = "999"
		}
		there := do(t, base, request{method: c[0], path: c[1] + c[2], header: bearer(w.tokens["bob"])})
		missing := do(t, base, request{method: c[0], path: c[1] + absent, header: bearer(w.tokens["bob"])})
		if there.status != 404 || strings.ReplaceAll(there.body, c[2], "X") != strings.ReplaceAll(missing.body, absent, "X") {
			t.Errorf("%v: %d %s, and of one that is not there %d %s", c, there.status, there.body, missing.status, missing.body)
		}
	}
}

// TestFellows: a job that is shared with the group can be read by its members, and by nobody else.
func TestFellows(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	job := string(w.job("group", true))
	base := start(t, w.api.Control())
	for _, path := range []string{"/api/v1/jobs/" + job, "/api/v1/jobs/" + job + "/tasks/-1/output"} {
		if a := do(t, base, request{method: "GET", path: path, header: bearer(w.tokens["carol"])}); a.status != 200 || !strings.Contains(a.body, "SECRET") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		if a := do(t, base, request{method: "GET", path: path, header: bearer(w.tokens["bob"])}); a.status != 404 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// TestOpenAPI keeps the document under review, and complete.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	golden(t, "testdata/openapi.json", string(w.api.OpenAPI()))
}
