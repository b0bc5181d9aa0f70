package chp_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal/internal/gateway/webfront/chp"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
)

func handler(t testing.TB, table *routes.Table) http.Handler {
	h, err := chp.New(chp.Config{Routes: table, Token: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func ask(h http.Handler, method, path, body, authorization string) (int, string) {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if authorization != "" {
		r.Header.Set("Authorization", authorization)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

const token = "token secret"

func TestTokens(t *testing.T) {
	h := handler(t, routes.New())
	for _, a := range []string{"", "secret", "token", "token ", "token wrong", "token secretx", "Bearer secret", "Token secret", "xtoken secret", "token secret more"} {
		for _, m := range []string{"GET", "POST", "DELETE"} {
			if status, body := ask(h, m, "/api/routes/x", `{"target":"http://h"}`, a); status != 403 || body != "" {
				t.Errorf("%s with %q: %d %q", m, a, status, body)
			}
		}
	}
	if _, err := chp.New(chp.Config{Routes: routes.New()}); err == nil {
		t.Error("it works without a token")
	}
}

func TestCalls(t *testing.T) {
	h := handler(t, routes.New())
	for i, c := range []struct {
		method, path, body string
		status             int
		answer             string
	}{
		{"GET", "/api/routes", "", 200, "{}"},
		{"GET", "/api/routes/", "", 200, "{}"},
		{"GET", "/api/routes/user/alice", "", 404, ""},
		{"DELETE", "/api/routes/user/alice", "", 404, ""},
		{"POST", "/api/routes/user/alice", `{"target":"http://127.0.0.1:1","user":"alice","jupyterhub":true}`, 201, ""},
		{"GET", "/api/routes/user/alice", "", 200, `{"jupyterhub":true,"target":"http://127.0.0.1:1","user":"alice","last_activity":"T"}`},
		{"GET", "/api/routes/user/alice/", "", 200, `{"jupyterhub":true,"target":"http://127.0.0.1:1","user":"alice","last_activity":"T"}`},
		{"POST", "/api/routes/user/alice", `{"target":"http://127.0.0.1:2"}`, 201, ""},
		{"GET", "/api/routes", "", 200, `{"/user/alice":{"target":"http://127.0.0.1:2","last_activity":"T"}}`},
		{"DELETE", "/api/routes/user/alice", "", 204, ""},
		{"GET", "/api/routes", "", 200, "{}"},
		{"POST", "/api/routes", `{"target":"http://127.0.0.1:3"}`, 201, ""},
		{"GET", "/api/routes", "", 200, `{"/":{"target":"http://127.0.0.1:3","last_activity":"T"}}`},
		{"DELETE", "/api/routes/", "", 204, ""},
		{"POST", "/api/routes/user/%C3%84rger%20%40x", `{"target":"http://127.0.0.1:4"}`, 201, ""},
		{"GET", "/api/routes", "", 200, `{"/user/Ärger @x":{"target":"http://127.0.0.1:4","last_activity":"T"}}`},
		{"DELETE", "/api/routes/user/%C3%84rger%20@x", "", 204, ""},
		{"POST", "/api/routes/x", `{}`, 400, "Must specify 'target' as string"},
		{"POST", "/api/routes/x", `{"target":7}`, 400, "Must specify 'target' as string"},
		{"POST", "/api/routes/x", `null`, 400, "Must specify 'target' as string"},
		{"POST", "/api/routes/x", `[]`, 400, "Must specify 'target' as string"},
		{"POST", "/api/routes/x", ``, 400, "Body not valid JSON"},
		{"POST", "/api/routes/x", `{"target":`, 400, "Body not valid JSON"},
		{"POST", "/api/routes/x", `{"target":"` + strings.Repeat("x", 100_000) + `"}`, 413, "Body too large"},
		{"POST", "/api/routes/%FF", `{"target":"http://h"}`, 400, "Path not valid: it must be UTF-8, with % and two hexadecimal digits where something is escaped"},
		{"PUT", "/api/routes/x", "", 405, "Method not supported"},
		{"HEAD", "/api/routes", "", 405, "Method not supported"},
		{"GET", "/", "", 404, "Not Found"},
		{"GET", "/api", "", 404, "Not Found"},
		{"GET", "/api/routesx", "", 404, "Not Found"},
		{"GET", "/api%2Froutes", "", 404, "Not Found"},
		{"GET", "/api/routes", "", 200, "{}"},
	} {
		status, body := ask(h, c.method, c.path, c.body, token)
		if i := strings.Index(body, `"last_activity":"2`); i >= 0 {
			body = body[:i] + `"last_activity":"T` + body[i+len(`"last_activity":"2026-07-01T12:00:00.000Z`):]
		}
		if status != c.status || body != c.answer {
			t.Errorf("%d. %s %s %.80s: %d %s, want %d %s", i, c.method, c.path, c.body, status, body, c.status, c.answer)
		}
	}
}

func TestInactive(t *testing.T) {
	table := routes.New()
	h := handler(t, table)
	now := time.Now()
	for name, ago := range map[string]time.Duration{"new": 0, "hour": time.Hour, "day": 24 * time.Hour} {
		if err := table.Put(name, map[string]json.RawMessage{"target": []byte(`"http://h"`)}, false, now.Add(-ago)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		query string
		want  int // routes; negative: the status
	}{
		{"", 3},
		{"inactive_since=" + url.QueryEscape(now.Add(-2*time.Hour).UTC().Format(time.RFC3339)), 1},
		{"inactiveSince=" + url.QueryEscape(now.Add(-2*time.Hour).Format(time.RFC3339)), 1},
		{"inactive_since=" + now.Add(-30*time.Minute).In(time.FixedZone("", 3600)).Format(time.RFC3339), 2}, // the plus sign not escaped
		{"inactive_since=" + now.UTC().Add(time.Minute).Format("2006-01-02T15:04:05.000Z"), 3},
		{"inactive_since=" + now.Add(-2*time.Hour).Format("2006-01-02T15:04:05.123456"), 1},
		{"inactive_since=2001-01-01", 0},
		{"inactive_since=yesterday", -400},
		{"inactive_since=", -400},
		{"inactiveSince=endoftheworld", -400},
	} {
		status, body := ask(h, "GET", "/api/routes?"+c.query, "", token)
		var got map[string]any
		_ = json.Unmarshal([]byte(body), &got)
		if c.want < 0 && status != -c.want || c.want >= 0 && (status != 200 || len(got) != c.want) {
			t.Errorf("%s: %d %s", c.query, status, body)
		}
	}
}

// FuzzAPI: whatever is sent, the API answers with one of its statuses, and what it lists is JSON.
func FuzzAPI(f *testing.F) {
	f.Add("POST", "/user/alice", `{"target":"http://h:1"}`)
	f.Add("POST", "/%2F%2F", `{"target":"://","user":7,"a":{"b":[]}}`)
	f.Add("GET", "?inactive_since=2001", ``)
	f.Add("DELETE", "/\xff", `]`)
	f.Fuzz(func(t *testing.T, method, path, body string) {
		u, err := url.ParseRequestURI("/api/routes" + path)
		if err != nil {
			return
		}
		h := handler(t, routes.New())
		r := &http.Request{Method: method, URL: u, Header: http.Header{"Authorization": {token}}, Body: http.NoBody}
		if body != "" {
			r = httptest.NewRequest("POST", "/", strings.NewReader(body))
			r.Method, r.URL, r.Header = method, u, http.Header{"Authorization": {token}}
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case 200, 201, 204, 400, 404, 405, 413:
		default:
			t.Fatalf("%s %q %q: %d", method, path, body, w.Code)
		}
		status, list := ask(h, "GET", "/api/routes", "", token)
		var got map[string]map[string]any
		if err := json.Unmarshal([]byte(list), &got); err != nil || status != 200 {
			t.Fatalf("the list is %d %s: %v", status, list, err)
		}
		if n := fmt.Sprint(len(got)); (w.Code == 201) != (n == "1") {
			t.Fatalf("%d, and %s routes", w.Code, n)
		}
	})
}
