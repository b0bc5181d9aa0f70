package apps

import (
	"strings"
	"testing"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	hub := func(change func(*api.OpenApp)) api.OpenApp {
		r := api.OpenApp{User: "alice", Endpoint: shoal.EndpointJupyter, Command: "x", BaseURL: "/user/alice/", Env: map[string]string{"A": "b"}}
		change(&r)
		return r
	}
	for name, c := range map[string]struct {
		req  api.OpenApp
		want string // of the error; empty: none
	}{
		"a plain one":           {api.OpenApp{User: "alice", Endpoint: "web"}, ""},
		"the hub's":             {hub(func(*api.OpenApp) {}), ""},
		"with a name":           {hub(func(r *api.OpenApp) { r.Name = "zweiter Server (Ä)" }), ""},
		"no endpoint":           {api.OpenApp{User: "alice"}, "no endpoint"},
		"nobody":                {api.OpenApp{Endpoint: "web"}, "none is named"},
		"a command of her own":  {api.OpenApp{User: "alice", Endpoint: "web", Command: "x"}, "for the endpoint jupyter alone"},
		"a name of a web app":   {api.OpenApp{User: "alice", Endpoint: "web", Name: "x"}, "for the endpoint jupyter alone"},
		"a slash":               {hub(func(r *api.OpenApp) { r.Name = "a/b" }), "cannot be its name"},
		"a control character":   {hub(func(r *api.OpenApp) { r.Name = "a\x1b[31m" }), "cannot be its name"},
		"a long name":           {hub(func(r *api.OpenApp) { r.Name = strings.Repeat("x", 200) }), "cannot be its name"},
		"a variable of Shoal's": {hub(func(r *api.OpenApp) { r.Env["SHOAL_PORT"] = "1" }), "set by Shoal"},
		"too much":              {hub(func(r *api.OpenApp) { r.Env["A"] = strings.Repeat("x", 65<<10) }), "longer than"},
		"too much together": {hub(func(r *api.OpenApp) {
			r.Env["A"], r.Env["B"] = strings.Repeat("x", 40<<10), strings.Repeat("x", 40<<10)
		}), "are more than"},
		"a zero byte":             {hub(func(r *api.OpenApp) { r.Command = "a\x00" }), "zero byte"},
		"a probe that is no path": {hub(func(r *api.OpenApp) { r.Ready = &shoal.Probe{Path: "x y"} }), "is not a path"},
	} {
		err := check(c.req)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || shoal.KindOf(err) != shoal.KindInvalid):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestValidBase(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]bool{"/": true, "/user/alice/": true, "/user/%C3%84/": true, "/user/alice@x/": true,
		"": false, "user/": false, "/user": false, "//evil/": false, "/a/../b/": false, "/a b/": false, "/a?b/": false, "/a\n/": false, `/a"/`: false,
		"/" + strings.Repeat("x", 600) + "/": false} {
		if got := validBase(s); got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}

// Two who change an app at the same time come to tell of it in any order: once it has ended, nobody finds it.
func TestOlderWord(t *testing.T) {
	t.Parallel()
	a := New(Config{})
	p := shoal.App{ID: "a-1", User: "alice", Pool: "lab", Endpoint: "web", State: shoal.AppRunning, Address: "192.0.2.1:80", Meta: shoal.Meta{Rev: 1}}
	ended := p
	ended.State, ended.Address, ended.Rev = shoal.AppEnded, "", 3
	used := p
	used.Rev = 2
	a.note(p)
	if _, there := a.Find(t.Context(), "alice", "lab", "web", ""); !there {
		t.Fatal("it is not found while it runs")
	}
	a.note(ended)
	a.note(used)
	if got, there := a.Find(t.Context(), "alice", "lab", "web", ""); there {
		t.Errorf("found %+v, which has ended", got)
	}
	if id, there := a.At("alice", p.Address); there {
		t.Errorf("%s is at the address of one that has ended", id)
	}
}
