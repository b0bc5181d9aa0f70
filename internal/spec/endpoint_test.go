package spec_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/internal/spec"
)

func TestEndpoints(t *testing.T) {
	t.Parallel()
	got, err := spec.Parse(spec.File{Data: []byte(`
kind: Pool
name: lab
endpoints:
  - {name: jupyter, protocol: http, port: 8000, affinity: user}
  - {name: board, protocol: http, command: "exec tensorboard --port $SHOAL_PORT", stripPrefix: true, ready: {path: /healthz}}
  - {name: desktop, protocol: rdp, idleEnd: 12h}
  - {name: db, protocol: tcp, port: 5432, listen: 15432, affinity: source}
  - {name: licence, protocol: tcp, port: 27000, ready: {interval: 5s}}
`)})
	if err != nil {
		t.Fatal(err, shoal.MistakesOf(err))
	}
	want := []shoal.Endpoint{
		{Name: "jupyter", Protocol: "http", Port: 8000, Affinity: "user", Share: "private",
			Ready: &shoal.Probe{Path: "/", Interval: shoal.Duration(15 * time.Second), Timeout: shoal.Duration(2 * time.Minute), Threshold: 2}},
		{Name: "board", Protocol: "http", Command: "exec tensorboard --port $SHOAL_PORT", StripPrefix: true, Affinity: "user", Share: "private",
			Ready: &shoal.Probe{Path: "/healthz", Interval: shoal.Duration(15 * time.Second), Timeout: shoal.Duration(2 * time.Minute), Threshold: 2}},
		{Name: "desktop", Protocol: "rdp", Port: 3389, Listen: 3389, Affinity: "user", Share: "private", IdleEnd: shoal.Duration(12 * time.Hour),
			Ready: &shoal.Probe{Interval: shoal.Duration(15 * time.Second), Timeout: shoal.Duration(2 * time.Minute), Threshold: 2}},
		{Name: "db", Protocol: "tcp", Port: 5432, Listen: 15432, Affinity: "source", Share: "private"},
		{Name: "licence", Protocol: "tcp", Port: 27000, Listen: 27000, Affinity: "user", Share: "private",
			Ready: &shoal.Probe{Interval: shoal.Duration(5 * time.Second), Timeout: shoal.Duration(2 * time.Minute), Threshold: 2}},
	}
	if diff := cmp.Diff(want, got.Pools[0].Endpoints); diff != "" {
		t.Error(diff)
	}
}

func TestEndpointsOfAPoolForJobs(t *testing.T) {
	t.Parallel()
	_, err := spec.Parse(spec.File{Data: []byte("kind: Pool\nname: lab\nuses: [batch]\nendpoints: [{name: web, protocol: http, command: x}]\n")})
	if m := shoal.MistakesOf(err); len(m) != 1 || !strings.Contains(m[0].Msg, "takes no logins") {
		t.Errorf("%+v", m)
	}
}

func TestEndpointMistakes(t *testing.T) {
	t.Parallel()
	for document, want := range map[string]string{
		`{name: Web, protocol: http, command: x}`:                                "cannot be the name of an endpoint",
		`{name: ssh, protocol: tcp, port: 1}`:                                    "cannot be declared",
		`{name: web, protocol: gopher, command: x}`:                              "not possible here",
		`{name: web, protocol: http}`:                                            "has no command",
		`{name: web, protocol: http, command: " "}`:                              "has no command",
		`{name: web, protocol: http, command: x, port: 80}`:                      "is told its port",
		`{name: web, protocol: http, command: x, listen: 80}`:                    "one https address",
		`{name: web, protocol: http, command: x, affinity: source}`:              "knows its users",
		`{name: web, protocol: http, command: x, env: {SHOAL_PORT: 1}}`:          "set by Shoal",
		`{name: web, protocol: http, command: x, env: {A-B: 1}}`:                 "cannot be a variable",
		`{name: web, protocol: http, command: x, ready: {path: healthz}}`:        "is not a path",
		`{name: web, protocol: http, command: x, ready: {interval: 1ms}}`:        "is not between",
		`{name: web, protocol: http, command: x, ready: {threshold: -1}}`:        "is not between",
		`{name: web, protocol: http, command: x, share: everybody}`:              "only the user herself",
		`{name: web, protocol: http, command: x, comand: y}`:                     "comand",
		`{name: jupyter, protocol: http, stripPrefix: true}`:                     "know the path",
		`{name: db, protocol: tcp}`:                                              "is not between",
		`{name: db, protocol: tcp, port: 70000}`:                                 "is not between",
		`{name: db, protocol: tcp, port: 22}`:                                    "that of ssh",
		`{name: db, protocol: tcp, port: 700}`:                                   "those of web apps",
		`{name: db, protocol: tcp, port: 61001}`:                                 "those of web apps",
		`{name: db, protocol: tcp, port: 99, command: x}`:                        "only http endpoints",
		`{name: db, protocol: tcp, port: 99, ready: {path: /x}}`:                 "only http endpoints",
		`{name: db, protocol: tcp, port: 99, ready: {interval: 1ms}}`:            "is not between",
		`{name: db, protocol: tcp, port: 99, idleEnd: 12h}`:                      "no user's",
		`{name: desktop, protocol: rdp, idleEnd: 3s}`:                            "is not between",
		`{name: a, protocol: tcp, port: 99}, {name: a, protocol: tcp, port: 98}`: "two endpoints",
		`{name: a, protocol: tcp, port: 99}, {name: b, protocol: tcp, port: 99}`: "two endpoints listen",
		`{name: a, protocol: rdp}, {name: b, protocol: rdp, port: 3390}`:         "one endpoint of protocol rdp at most",
	} {
		_, err := spec.Parse(spec.File{Data: []byte("kind: Pool\nname: lab\nendpoints: [" + document + "]\n")})
		var all []string
		for _, m := range shoal.MistakesOf(err) {
			all = append(all, m.Msg)
		}
		if !strings.Contains(strings.Join(all, "\n"), want) {
			t.Errorf("%s: %q, want %q", document, all, want)
		}
	}
}
