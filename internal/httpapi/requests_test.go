package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/httpapi"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// TestNothingThere: whatever is asked for that is not there, the answer is a problem document.
func TestNothingThere(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for face, h := range map[string]http.Handler{"control": w.api.Control(), "local": w.api.Local(), "agent": w.api.Agent()} {
		base := start(t, h)
		for path, status := range map[string]int{"/": 404, "/api": 404, "/api/v1": 404, "/api/v1/": 404, "/api/v2/pools": 404, "/api/v1/pools/a/b/c": 404,
			"/api/v1/%2e%2e/pools": 404, "/agent/v1/nothing": 404, "/api/v1/pools/%00": 0} {
			a := do(t, base, request{method: "GET", path: path, header: bearer(w.tokens["ada"])})
			if p := a.problem(t); status != 0 && (a.status != status || p.Kind != shoal.KindNotFound) {
				t.Errorf("%s %s: %d %s", face, path, a.status, a.body)
			}
		}
	}
	base := start(t, w.api.Control())
	a := do(t, base, request{method: "PATCH", path: "/api/v1/pools/lab", header: bearer(w.tokens["ada"])})
	if p := a.problem(t); a.status != 405 || p.Kind != shoal.KindInvalid || !strings.Contains(a.header.Get("Allow"), "PUT") {
		t.Errorf("%d %s, Allow %q", a.status, a.body, a.header.Get("Allow"))
	}
	if a := do(t, base, request{method: "HEAD", path: "/api/v1/events", header: bearer(w.tokens["ada"])}); a.status != 400 {
		t.Errorf("HEAD of a stream: %d", a.status)
	}
	if a := do(t, base, request{method: "HEAD", path: "/api/v1/pools", header: bearer(w.tokens["ada"])}); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: %d %s", a.status, a.body)
	}
	if a := do(t, base, request{method: "GET", path: "/api/v1/pools"}); a.header.Get("WWW-Authenticate") != "Bearer" {
		t.Errorf("401 without WWW-Authenticate: %v", a.header)
	}
}

func TestBadBodies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := start(t, w.api.Control())
	ask := func(body string, header map[string]string) api.Problem {
		t.Helper()
		r := request{method: "POST", path: "/api/v1/jobs", body: body, header: bearer(w.tokens["alice"])}
		for k, v := range header {
			r.header[k] = v
		}
		a := do(t, base, r)
		if a.status != 400 {
			t.Errorf("%.60s: %d %.200s", body, a.status, a.body)
		}
		return a.problem(t)
	}
	ask(`{"pool":"lab"`, nil)
	ask(`{"pool":"lab"} {}`, nil)
	ask(`[]`, nil)
	ask(`nonsense`, nil)
	ask("", nil)
	if p := ask(`{"pool":"lab","comand":"true"}`, nil); !strings.Contains(p.Detail, `unknown field "comand"`) {
		t.Errorf("%+v", p)
	}
	if p := ask(`{"pool":"lab","command":"true","timeLimit":"soon"}`, nil); !strings.Contains(p.Detail, "soon") || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	if p := ask(`{"pool":"lab","command":"true"}`, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}); !strings.Contains(p.Hint, "application/json") {
		t.Errorf("%+v", p)
	}
	if p := ask(`{"pool":"lab","command":"`+strings.Repeat("x", 5<<20)+`"}`, nil); !strings.Contains(p.Mistakes[0].Msg, "longer than") {
		t.Errorf("%+v", p)
	}
	if p := ask(`{"pool":"lab","command":"`+strings.Repeat("x", 100<<20)+`"}`, nil); !strings.Contains(p.Detail, "larger than 40MiB") {
		t.Errorf("%+v", p)
	}
	if p := ask("{\"pool\":\"lab\",\n\"command\":\"tr\xffue\"}", nil); !strings.Contains(p.Detail, "not UTF-8: line 2 has a byte 0xff") {
		t.Errorf("%+v", p)
	}
	if p := ask(`{"pool":"lab","items":`+strings.Repeat("[", 1<<20), nil); !strings.Contains(p.Detail, "depth") {
		t.Errorf("%+v", p)
	}
	// A mistake in a document has its place.
	a := do(t, base, request{method: "POST", path: "/api/v1/apply", body: `{"pools":[{"name":"Bad Name","size":{"max":-1}}]}`, header: bearer(adminToken)})
	if p := a.problem(t); a.status != 400 || len(p.Mistakes) < 2 {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, q := range []string{"jobs?limit=0", "jobs?limit=x", "jobs?cursor=x", "machines?gone=perhaps", "sessions?cursor=x", "usage?by=colour", "usage?since=yesterday", "events?since=x",
		"events?follow=x", "jobs/1/tasks?from=-1", "jobs/1/tasks?cursor=x", "jobs/1/tasks/x/output", "jobs/1/tasks/-2/output", "jobs/1/tasks/0/output?offset=-1", "jobs/1/tasks/0/output?offset=x", "why/colour/x"} {
		a := do(t, base, request{method: "GET", path: "/api/v1/" + q, header: bearer(w.tokens["alice"])})
		if a.status != 400 {
			t.Errorf("%s: %d %s", q, a.status, a.body)
		}
		a.problem(t)
	}
	if a := do(t, base, request{method: "GET", path: "/api/v1/events", header: map[string]string{"Authorization": "Bearer " + w.tokens["alice"], "Last-Event-ID": "x"}}); a.status != 400 {
		t.Errorf("Last-Event-ID: %d %s", a.status, a.body)
	}
}

// TestOwnMistakes: what is Shoal's own fault is told by a reference to the log, and nothing else.
func TestOwnMistakes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, f := range map[string]func(http.ResponseWriter, *http.Request) error{
		"panic": func(http.ResponseWriter, *http.Request) error { panic("SECRET-CAUSE") },
		"error": func(http.ResponseWriter, *http.Request) error { return errors.New("SECRET-CAUSE") },
		"internal": func(http.ResponseWriter, *http.Request) error {
			return shoal.Errorf(shoal.KindInternal, "SECRET-CAUSE").WithHint("SECRET-CAUSE")
		},
	} {
		a := do(t, start(t, w.api.Guard(f)), request{method: "GET", path: "/x"})
		p := a.problem(t)
		if a.status != 500 || p.Kind != shoal.KindInternal || strings.Contains(a.body, "SECRET") || strings.Contains(a.body, "goroutine") {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		_, reference, _ := strings.Cut(p.Detail, "under the reference ")
		if reference == "" || !strings.Contains(w.log.String(), reference) || !strings.Contains(w.log.String(), "SECRET-CAUSE") {
			t.Errorf("%s: the log does not hold what %q refers to", name, p.Detail)
		}
	}
	base := start(t, w.api.Guard(func(w http.ResponseWriter, _ *http.Request) error {
		_, _ = w.Write([]byte("half an answer"))
		return errors.New("no more")
	}))
	resp, err := http.Get(base)
	if err == nil {
		defer resp.Body.Close()
		_, err = resp.Body.Read(make([]byte, 100))
		for err == nil {
			_, err = resp.Body.Read(make([]byte, 100))
		}
		if err.Error() == "EOF" {
			t.Error("an answer that could not go on reads as if it were whole")
		}
	}
	for _, secret := range []string{w.tokens["alice"], adminToken, w.mtoken} {
		if strings.Contains(w.log.String(), secret) {
			t.Error("the log holds a token")
		}
	}
}

func TestPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 5 {
		w.job("", true)
	}
	base := start(t, w.api.Control())
	seen := map[string]bool{}
	pages := 0
	for cursor := ""; ; pages++ {
		a := do(t, base, request{method: "GET", path: "/api/v1/jobs?limit=2&cursor=" + cursor, header: bearer(w.tokens["alice"])})
		var page api.List[shoal.Job]
		mustf(t, json.Unmarshal([]byte(a.body), &page), "%s", a.body)
		for _, j := range page.Items {
			seen[string(j.ID)] = true
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	if len(seen) != 5 || pages < 2 {
		t.Errorf("%d jobs on %d pages", len(seen), pages)
	}
	if a := do(t, base, request{method: "GET", path: "/api/v1/jobs?name=SECRET-NAME&state=failed", header: bearer(w.tokens["alice"])}); !strings.Contains(a.body, `"items":[]`) {
		t.Errorf("a list of nothing: %s", a.body)
	}
}

// TestIfMatch: a change that assumes an older revision is refused.
func TestIfMatch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := start(t, w.api.Control())
	admin := func(more ...string) map[string]string {
		h := bearer(adminToken)
		for i := 0; i < len(more); i += 2 {
			h[more[i]] = more[i+1]
		}
		return h
	}
	for path, body := range map[string]string{"/api/v1/pools/lab": `{"provider":"local","size":{"max":%}}`, "/api/v1/users/bob": `{"shell":"/bin/sh%"}`,
		"/api/v1/groups/research": `{"members":["alice"],"gid":3000%}`, "/api/v1/shares/spare": `{"source":"/srv/spare%"}`} {
		shown := do(t, base, request{method: "GET", path: path, header: admin()})
		tag := shown.header.Get("ETag")
		if tag == "" {
			t.Fatalf("%s: no ETag", path)
		}
		if strings.Contains(path, "groups") {
			body = strings.Replace(body, `,"gid":3000%`, "", 1)
		}
		change := func(n int, header map[string]string) answer {
			return do(t, base, request{method: "PUT", path: path, body: strings.Replace(body, "%", strconv.Itoa(n), 1), header: header})
		}
		if a := change(3, admin("If-Match", tag)); a.status != 200 || !strings.Contains(a.body, `"changed"`) {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		if a := change(4, admin("If-Match", tag)); a.status < 400 && !strings.Contains(path, "groups") {
			t.Errorf("%s with an old ETag: %d %s", path, a.status, a.body)
		}
		if a := change(5, admin("If-Match", "x")); a.status != 400 {
			t.Errorf("%s: %d", path, a.status)
		}
		if a := change(6, admin("If-Match", "*")); a.status != 200 {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := do(t, base, request{method: "PUT", path: "/api/v1/pools/lab", body: `{"name":"other"}`, header: admin()}); a.status != 400 {
		t.Errorf("another name in the body: %d %s", a.status, a.body)
	}
}

// TestIfMatchOfActions: what is done with an object, too, may assume a revision.
func TestIfMatchOfActions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base := start(t, w.api.Control())
	ask := func(method, path, body, token, match string) answer {
		h := bearer(token)
		if match != "" {
			h["If-Match"] = match
		}
		return do(t, base, request{method: method, path: path, body: body, header: h})
	}
	// Who may not see an object learns nothing about it.
	if a := ask("DELETE", "/api/v1/users/alice", "", w.tokens["bob"], `"1000000"`); a.status != 404 {
		t.Errorf("another's user: %d %s", a.status, a.body)
	}
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/api/v1/pools/lab/scale", `{"size":1}`}, {"POST", "/api/v1/users/bob/disable", ""}, {"DELETE", "/api/v1/groups/research", ""},
	} {
		if a := ask(c.method, c.path, c.body, adminToken, `"1000000"`); a.status != 409 || !strings.Contains(a.body, "changed meanwhile") {
			t.Errorf("%s %s with an old rev: %d %s", c.method, c.path, a.status, a.body)
		}
		if a := ask(c.method, c.path, c.body, adminToken, "nonsense"); a.status != 400 {
			t.Errorf("%s %s with no rev: %d %s", c.method, c.path, a.status, a.body)
		}
		object, _, _ := strings.Cut(strings.TrimPrefix(c.path, "/api/v1/"), "/")
		name, _, _ := strings.Cut(strings.TrimPrefix(c.path, "/api/v1/"+object+"/"), "/")
		tag := ask("GET", "/api/v1/"+object+"/"+name, "", adminToken, "").header.Get("ETag")
		if a := ask(c.method, c.path, c.body, adminToken, tag); a.status >= 400 {
			t.Errorf("%s %s with its rev: %d %s", c.method, c.path, a.status, a.body)
		}
	}
	if a := ask("POST", "/api/v1/images", `{"name":"x"}`, adminToken, `"1"`); a.status != 400 {
		t.Errorf("what has no revision: %d %s", a.status, a.body)
	}
}

func TestActingAs(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	base, host := start(t, w.api.Control()), start(t, w.api.Local())
	as := func(base, token, user string) answer {
		h := map[string]string{api.AsHeader: user}
		if token != "" {
			h["Authorization"] = "Bearer " + token
		}
		return do(t, base, request{method: "GET", path: "/api/v1/whoami", header: h})
	}
	for _, ok := range []answer{as(host, "", "alice"), as(base, adminToken, "alice"), as(base, w.tokens["ada"], "alice"), as(host, w.tokens["ada"], "alice")} {
		if ok.status != 200 || !strings.Contains(ok.body, `"user":"alice","role":"member"`) {
			t.Errorf("%d %s", ok.status, ok.body)
		}
	}
	if a := as(host, w.tokens["bob"], ""); !strings.Contains(a.body, `"user":"bob","role":"member"`) {
		t.Errorf("a token at the host's socket: %s", a.body)
	}
	for name, no := range map[string]answer{"operator": as(base, w.tokens["oscar"], "alice"), "member": as(base, w.tokens["bob"], "alice"), "absent": as(host, "", "zoe")} {
		if no.status != 403 && no.status != 404 {
			t.Errorf("%s: %d %s", name, no.status, no.body)
		}
	}
	agent := start(t, w.api.Agent())
	a := do(t, agent, request{method: "GET", path: "/agent/v1/user/api/v1/whoami", header: map[string]string{"Authorization": "Bearer " + w.mtoken, api.UserHeader: "bob", api.AsHeader: "alice"}})
	if a.status != 403 {
		t.Errorf("through a machine: %d %s", a.status, a.body)
	}
	a = do(t, agent, request{method: "GET", path: "/agent/v1/user/api/v1/whoami", header: map[string]string{"Authorization": "Bearer " + w.mtoken, api.UserHeader: "bob"}})
	if !strings.Contains(a.body, `"user":"bob","role":"member","machine":"m-1","pool":"lab"`) {
		t.Errorf("through a machine: %d %s", a.status, a.body)
	}
}

func TestProbesAndMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.job("", false)
	base := start(t, w.api.Control())
	for _, path := range []string{"/healthz", "/readyz"} {
		if a := do(t, base, request{method: "GET", path: path}); a.status != 200 || a.body != "ok\n" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	for token, status := range map[string]int{"": 401, w.tokens["bob"]: 403, w.tokens["oscar"]: 200} {
		if a := do(t, base, request{method: "GET", path: "/metrics", header: bearer(token)}); a.status != status {
			t.Errorf("/metrics: %d, want %d", a.status, status)
		}
	}
	a := do(t, base, request{method: "GET", path: "/metrics", header: bearer(adminToken)})
	for _, line := range []string{`shoal_machines{pool="lab",state="ready"} 1`, `shoal_sessions{pool="lab",state="disconnected"} 1`, `shoal_apps{pool="lab",state="running"} 1`, `shoal_jobs{pool="lab",state="running"} 1`,
		`shoal_tasks{pool="lab",state="running"} 1`, `shoal_pool_size_max{pool="lab"} 2`, "go_goroutines", "process_cpu_seconds_total"} {
		if !strings.Contains(a.body, line) {
			t.Errorf("/metrics lacks %s", line)
		}
	}
	if strings.Contains(a.body, "alice") {
		t.Error("/metrics names a user")
	}
}

// TestNotReady: a store that cannot be written to is told, and what is told is not asked again at once.
func TestNotReady(t *testing.T) {
	t.Parallel()
	db := storetest.Open(t)
	a := httpapi.New(httpapi.Config{Store: db, AdminToken: "x"})
	base := start(t, a.Control())
	mustf(t, db.Close(), "close")
	got := do(t, base, request{method: "GET", path: "/readyz"})
	if p := got.problem(t); got.status != 503 || p.Kind != shoal.KindUnavailable || got.header.Get("Retry-After") == "" {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := do(t, base, request{method: "GET", path: "/healthz"}); got.status != 200 {
		t.Errorf("%d %s", got.status, got.body)
	}
}

// TestReadyForOthers: whoever asks and does not wait for the answer makes the server not ready for nobody else.
func TestReadyForOthers(t *testing.T) {
	t.Parallel()
	face := httpapi.New(httpapi.Config{Store: storetest.Open(t), AdminToken: "x"}).Control()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, ctx := range []context.Context{gone, t.Context()} {
		r := httptest.NewRecorder()
		face.ServeHTTP(r, httptest.NewRequestWithContext(ctx, http.MethodGet, "/readyz", nil))
		if ready := r.Code == http.StatusOK; ready != (ctx.Err() == nil) {
			t.Errorf("%d %s", r.Code, r.Body)
		}
	}
}

// TestUsageIsOnesOwn: a member's bill has her rows only, and adds up.
func TestUsageIsOnesOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.job("", true)
	for who, want := range map[string]string{"alice": "alice", "bob": "", "carol": ""} {
		u, err := w.client(w.tokens[who]).Usage(t.Context(), "user", "", time.Time{})
		mustf(t, err, "usage of %s", who)
		for _, r := range u.Rows {
			if r.Key != want {
				t.Errorf("%s sees the row of %s", who, r.Key)
			}
		}
		if (u.Total.MachineSeconds > 0) != (want != "") {
			t.Errorf("the total of %s is %+v", who, u.Total)
		}
	}
	for _, by := range []string{"group", "pool", "machine"} {
		_, err := w.client(w.tokens["alice"]).Usage(t.Context(), by, "", time.Time{})
		wantKind(t, err, shoal.KindDenied)
	}
	u, err := w.client(adminToken).Usage(t.Context(), "machine", "", time.Now().Add(-2*time.Hour))
	if err != nil || len(u.Rows) != 1 || u.Rows[0].Key != "m-1" || u.Total.MachineSeconds < 3599 {
		t.Errorf("%+v, %v", u, err)
	}
}

// TestImagesInUse: an image that a pool names is not removed.
func TestImagesInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	storetest.Update(t, w.db, func(tx *store.Tx) error {
		return put(tx.Pools().Put, shoal.Pool{Name: "other", Provider: "local", Image: "old"})
	})
	c := w.client(adminToken)
	wantKind(t, c.RemoveImage(t.Context(), "old"), shoal.KindConflict)
	mustf(t, c.RemoveImage(t.Context(), "unused"), "remove")
	cfg := w.cfg
	cfg.Images = nil
	a := do(t, start(t, httpapi.New(cfg).Control()), request{method: "GET", path: "/api/v1/images", header: bearer(adminToken)})
	if a.status != 409 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func FuzzHeaders(f *testing.F) {
	for _, s := range []string{"", "*", `"7"`, "7", "-1", `W/"7"`, "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if rev, err := httpapi.ParseEventID(s); err == nil && rev < 0 {
			t.Errorf("Last-Event-ID %q reads as %d", s, rev)
		}
		if rev, err := httpapi.ParseMatch(s); err == nil && (rev < 0 || rev == 0 && strings.TrimSpace(s) != "" && strings.TrimSpace(s) != "*") {
			t.Errorf("If-Match %q reads as %d", s, rev)
		}
	})
}
