package routes_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/shoal-pool/shoal/internal/gateway/webfront/routes"
)

var noon = time.Date(2026, 7, 1, 12, 0, 0, 0, time.UTC)

func posted(t interface{ Fatal(...any) }, text string) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func put(t interface{ Fatal(...any) }, table *routes.Table, prefix string) {
	if err := table.Put(prefix, posted(t, `{"target":"http://127.0.0.1:9"}`), false, noon); err != nil {
		t.Fatal(err)
	}
}

func TestFind(t *testing.T) {
	for _, c := range []struct {
		routes string
		path   string
		want   string
	}{
		{"", "/", ""},
		{"", "/user/alice", ""},
		{"/", "", "/"},
		{"/", "/anything/at/all", "/"},
		{"/user/al", "/user/alice", ""},
		{"/user/alice", "/user/alice", "/user/alice"},
		{"/user/alice", "/user/alice/", "/user/alice"},
		{"/user/alice", "//user/alice/x", "/user/alice"},
		{"/user/alice", "/user//alice", ""},
		{"/user/alice", "/User/alice", ""},
		{"/ /user/alice /user/alice/one", "/user/alice/one/two", "/user/alice/one"},
		{"/ /user/alice /user/alice/one", "/user/alice/onetwo", "/user/alice"},
		{"/ /user/alice/one", "/user/alice", "/"},
		{"/user /user/ärger", "/user/ärger/tree", "/user/ärger"},
		{"/user/", "/user", "/user"},
		{"user", "/user", "/user"},
		{"/a/b/c/d", "/a/b/c", ""},
		{"/a", "/a" + strings.Repeat("/x", 5000), "/a"},
	} {
		table := routes.New()
		for _, p := range strings.Fields(c.routes) {
			put(t, table, p)
		}
		got := ""
		if r := table.Find(c.path); r != nil {
			got = r.Prefix
		}
		if got != c.want {
			t.Errorf("with %q, %q goes to %q, want %q", c.routes, c.path, got, c.want)
		}
	}
}

// TestFindIsLongest compares with a search of all prefixes, while routes come and go.
func TestFindIsLongest(t *testing.T) {
	segment := rapid.SampledFrom([]string{"a", "b", "ab", "user", "%", " ", "é"})
	path := rapid.Custom(func(t *rapid.T) string {
		return "/" + strings.Join(rapid.SliceOfN(segment, 0, 5).Draw(t, "segments"), "/")
	})
	rapid.Check(t, func(t *rapid.T) {
		table := routes.New()
		have := map[string]bool{}
		for range rapid.IntRange(0, 20).Draw(t, "changes") {
			p := path.Draw(t, "prefix")
			if rapid.Bool().Draw(t, "add") {
				put(t, table, p)
				have[p] = true
			} else {
				if table.Remove(p) != have[p] {
					t.Fatalf("removing %q: not as it was", p)
				}
				delete(have, p)
			}
		}
		asked := path.Draw(t, "path")
		want := ""
		for p := range have {
			if (p == "/" || asked == p || strings.HasPrefix(asked, p+"/")) && len(p) > len(want) {
				want = p
			}
		}
		got := ""
		if r := table.Find(asked); r != nil {
			got = r.Prefix
		}
		if got != want {
			t.Fatalf("%q goes to %q, want %q", asked, got, want)
		}
	})
}

func TestValueIsWhatWasPosted(t *testing.T) {
	table := routes.New()
	err := table.Put("/user/alice", posted(t, `{"target":"http://10.0.0.1:8888","user":"alice","jupyterhub":true,"n":[1,{"x":null}],"last_activity":"x"}`), true, noon)
	if err != nil {
		t.Fatal(err)
	}
	r := table.Get("user/alice/")
	var got map[string]any
	if err := json.Unmarshal(r.AppendJSON(nil), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"target": "http://10.0.0.1:8888", "user": "alice", "jupyterhub": true, "n": []any{1.0, map[string]any{"x": nil}}, "last_activity": "2026-07-01T12:00:00.000Z"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if r.User != "alice" || !r.Guarded || r.Target.Host != "10.0.0.1:8888" {
		t.Errorf("route is %+v", r)
	}
	r.Used(noon.Add(time.Hour))
	if !strings.Contains(string(r.AppendJSON(nil)), `"last_activity":"2026-07-01T13:00:00.000Z"`) {
		t.Errorf("use is not seen in %s", r.AppendJSON(nil))
	}
}

func TestRefused(t *testing.T) {
	table := routes.New()
	for _, c := range []struct{ prefix, body string }{
		{"/a", `{}`}, {"/a", `{"target":1}`}, {"/a", `{"target":null}`},
		{"/" + strings.Repeat("x", 5000), `{"target":"http://h"}`},
		{strings.Repeat("/x", 100), `{"target":"http://h"}`},
	} {
		if err := table.Put(c.prefix, posted(t, c.body), false, noon); err == nil {
			t.Errorf("%s %s was taken", c.prefix, c.body)
		}
	}
	for _, target := range []string{"nope", "", "ftp://h", "http://", "http://%zz", "//h:1"} {
		body, _ := json.Marshal(map[string]string{"target": target})
		if err := table.Put("/t", posted(t, string(body)), false, noon); err != nil {
			t.Errorf("%q was refused: %v", target, err)
		}
		if r := table.Get("/t"); r.Target != nil {
			t.Errorf("%q has become the server %v", target, r.Target)
		}
	}
}
