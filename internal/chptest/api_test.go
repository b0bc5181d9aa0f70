package chptest

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAPI is the contract of /api/routes.
func TestAPI(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, program string, ours bool) {
		w := newWorld(t, program, ours)
		for _, c := range apiCases {
			t.Run(c.name, func(t *testing.T) {
				w := w.sub(t)
				w.clear()
				c.test(w)
			})
		}
	})
}

type testCase struct {
	name string
	test func(*world)
}

var apiCases = []testCase{
	{"an empty table", func(w *world) {
		for _, path := range []string{"", "/"} {
			r, text, err := w.p.Call(w.ctx(), http.MethodGet, path, nil)
			if err != nil {
				w.t.Fatal(err)
			}
			if r.StatusCode != 200 || strings.TrimSpace(string(text)) != "{}" || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
				w.t.Errorf("GET %q: %d %q %s", path, r.StatusCode, r.Header.Get("Content-Type"), text)
			}
		}
	}},
	{"a route is made", func(w *world) {
		before := time.Now().Add(-time.Second)
		if text := w.call(201, http.MethodPost, "/user/foo", map[string]any{"target": "http://127.0.0.1:1"}); text != "" {
			w.t.Errorf("the body is not empty: %q", text)
		}
		got := w.routes()["/user/foo"]
		if got["target"] != "http://127.0.0.1:1" {
			w.t.Errorf("the table has %v", got)
		}
		text, _ := got["last_activity"].(string)
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || !strings.HasSuffix(text, "Z") || at.Before(before) || at.After(time.Now().Add(time.Second)) {
			w.t.Errorf("last_activity is %q: %v", text, err)
		}
	}},
	{"what was posted stays with the route", func(w *world) {
		w.call(201, http.MethodPost, "/user/foo", `{"target":"http://127.0.0.1:1","user":"foo","server_name":"","jupyterhub":true,"n":1.5,"deep":{"a":[1,null,"é"]}}`)
		got := w.routes()["/user/foo"]
		delete(got, "last_activity")
		if text := fmt.Sprint(got); text != "map[deep:map[a:[1 <nil> é]] jupyterhub:true n:1.5 server_name: target:http://127.0.0.1:1 user:foo]" {
			w.t.Errorf("the table has %v", text)
		}
	}},
	{"a later post replaces all", func(w *world) {
		w.call(201, http.MethodPost, "/user/foo", `{"target":"http://127.0.0.1:1","user":"foo"}`)
		w.call(201, http.MethodPost, "/user/foo", `{"target":"http://127.0.0.1:2"}`)
		got := w.routes()["/user/foo"]
		if _, ok := got["user"]; ok || got["target"] != "http://127.0.0.1:2" {
			w.t.Errorf("the table has %v", got)
		}
	}},
	{"one route", func(w *world) {
		w.call(201, http.MethodPost, "/user/foo", `{"target":"http://127.0.0.1:1","user":"foo"}`)
		for _, path := range []string{"/user/foo", "/user/foo/", "/user/%66oo"} {
			if text := w.call(200, http.MethodGet, path, nil); !strings.Contains(text, `"target":"http://127.0.0.1:1"`) || !strings.Contains(text, `"last_activity"`) {
				w.t.Errorf("GET %s: %s", path, text)
			}
		}
		for _, path := range []string{"/user", "/user/fo", "/user/foo/bar", "/nobody"} {
			if text := w.call(404, http.MethodGet, path, nil); text != "" {
				w.t.Errorf("GET %s says %q", path, text)
			}
		}
	}},
	{"bodies that are refused", func(w *world) {
		for _, body := range []string{``, `{`, `nonsense`, `{}`, `null`, `[]`, `7`, `"http://127.0.0.1:1"`, `{"target":7}`, `{"target":null}`, `{"target":["http://127.0.0.1:1"]}`, `{"Target":"http://127.0.0.1:1"}`} {
			w.call(400, http.MethodPost, "/user/foo", body)
		}
		if n := len(w.routes()); n != 0 {
			w.t.Errorf("the table has %d routes", n)
		}
	}},
	{"names are unescaped", func(w *world) {
		for posted, key := range map[string]string{"/user/foo%40bar": "/user/foo@bar", "/b%20r/": "/b r", "/%E7%A7%80%E6%A8%B9": "/秀樹", "/x/%7ETestJH": "/x/~TestJH", "/Upper/Case": "/Upper/Case", "/a+b": "/a+b", "/p%25": "/p%"} {
			w.call(201, http.MethodPost, posted, map[string]any{"target": "http://127.0.0.1:1"})
			if _, ok := w.routes()[key]; !ok {
				w.t.Errorf("%s is not in the table as %s: %q", posted, key, slices.Sorted(maps.Keys(w.routes())))
			}
			w.call(200, http.MethodGet, posted, nil)
			w.call(204, http.MethodDelete, posted, nil)
		}
	}},
	{"the root", func(w *world) {
		for _, path := range []string{"", "/"} {
			w.call(201, http.MethodPost, path, map[string]any{"target": "http://127.0.0.1:1"})
			if _, ok := w.routes()["/"]; !ok || len(w.routes()) != 1 {
				w.t.Errorf("POST %q makes %v", path, w.routes())
			}
		}
		w.call(204, http.MethodDelete, "/", nil)
		if n := len(w.routes()); n != 0 {
			w.t.Errorf("%d routes are left", n)
		}
		w.call(404, http.MethodDelete, "/", nil)
	}},
	{"a slash at the end does not count", func(w *world) {
		w.call(201, http.MethodPost, "/a/b/", map[string]any{"target": "http://127.0.0.1:1"})
		if _, ok := w.routes()["/a/b"]; !ok {
			w.t.Errorf("the table has %v", w.routes())
		}
		w.call(204, http.MethodDelete, "/a/b/", nil)
		if n := len(w.routes()); n != 0 {
			w.t.Errorf("%d routes are left", n)
		}
	}},
	{"a route is removed", func(w *world) {
		w.route("/user/bar")
		w.route("/user/bar/named")
		if text := w.call(204, http.MethodDelete, "/user/bar", nil); text != "" {
			w.t.Errorf("the body is not empty: %q", text)
		}
		w.call(404, http.MethodDelete, "/user/bar", nil)
		w.call(404, http.MethodGet, "/user/bar", nil)
		w.call(200, http.MethodGet, "/user/bar/named", nil) // what is below stays
		w.call(404, http.MethodDelete, "/user", nil)
	}},
	{"those without activity since", inactive},
	{"other paths and methods", func(w *world) {
		w.call(405, http.MethodPut, "", `{"target":"http://127.0.0.1:1"}`)
		w.call(405, http.MethodPatch, "/user/foo", `{"target":"http://127.0.0.1:1"}`)
		w.call(404, http.MethodGet, "s", nil)
		w.call(404, http.MethodGet, "/../x", nil)
		root := *w.p
		root.API = strings.TrimSuffix(w.p.API, "/api/routes")
		for _, path := range []string{"/", "/api", "/api/", "/api/labels/x", "/user/foo", "/metrics"} {
			if r, _, err := root.Call(w.ctx(), http.MethodGet, path, nil); err != nil || r.StatusCode != 404 {
				w.t.Errorf("GET %s on the API's port: %v %v", path, r, err)
			}
		}
	}},
	{"the token", func(w *world) {
		for _, authorization := range []string{"", "token", "token wrong", "Bearer correct-horse-battery-staple", "Basic Y29ycmVjdA==", "correct-horse-battery-staple"} {
			for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
				r, text, err := w.p.CallAs(w.ctx(), authorization, method, "/x", `{"target":"http://127.0.0.1:1"}`)
				if err != nil {
					w.t.Fatal(err)
				}
				if r.StatusCode != 403 || len(text) > 0 {
					w.t.Errorf("%s with %q: %d %q", method, authorization, r.StatusCode, text)
				}
			}
		}
		if n := len(w.routes()); n != 0 {
			w.t.Errorf("the table has %d routes", n)
		}
	}},
	{"many routes", func(w *world) {
		const n = 300
		for i := range n {
			w.route(fmt.Sprintf("/user/u%d", i))
		}
		if got := len(w.routes()); got != n {
			w.t.Errorf("the table has %d routes of %d", got, n)
		}
	}},
}

// inactive asks with both spellings, which the original takes.
func inactive(w *world) {
	w.route("/old")
	time.Sleep(20 * time.Millisecond) // its clock has milliseconds
	middle := time.Now().UTC()
	time.Sleep(20 * time.Millisecond)
	w.route("/new")
	ask := func(key, since string) string {
		w.t.Helper()
		r, text, err := w.p.Call(w.ctx(), http.MethodGet, "?"+key+"="+since, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		if r.StatusCode != 200 {
			return fmt.Sprint(r.StatusCode)
		}
		var names []string
		for _, name := range []string{"/new", "/old"} {
			if strings.Contains(string(text), `"`+name+`"`) {
				names = append(names, name)
			}
		}
		return strings.Join(names, " ")
	}
	for _, key := range []string{"inactive_since", "inactiveSince"} {
		for _, c := range []struct{ since, want string }{
			{"1970-01-01T00:00:00.001Z", ""},
			{middle.Format("2006-01-02T15:04:05.000Z"), "/old"},
			{middle.Format("2006-01-02T15:04:05.000000Z"), "/old"},
			{middle.In(time.FixedZone("", -7200)).Format("2006-01-02T15:04:05.000-07:00"), "/old"},
			{middle.Add(time.Hour).Format("2006-01-02T15:04:05Z"), "/new /old"},
			{middle.AddDate(0, 0, 2).Format("2006-01-02"), "/new /old"},
			{"endoftheuniverse", "400"},
		} {
			if got := ask(key, c.since); got != c.want {
				w.t.Errorf("%s=%s: %q, want %q", key, c.since, got, c.want)
			}
		}
	}
}
