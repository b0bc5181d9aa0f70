package e2e

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/rig"
)

// caller asks the API by hand.
type caller struct {
	t     *testing.T
	base  string
	token string
	http  *http.Client
}

// signIn makes a caller of a user's.
func (w *world) signIn(t *testing.T, user shoal.UserName) *caller {
	t.Helper()
	if _, err := w.AsUser(t.Context(), user, "version"); err != nil {
		t.Fatal(err)
	}
	token, err := os.ReadFile(filepath.Join(w.Dir, string(user)+".token"))
	if err != nil {
		t.Fatal(err)
	}
	return &caller{t, "http://127.0.0.1:" + w.API, string(token), http.DefaultClient}
}

// ask sends a request and returns its status and what was answered. Headers are name, value and so on.
func (c *caller) ask(method, path, body string, headers ...string) (int, string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.base+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.http.Do(req)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(b)
}

// refused asks and wants one of some statuses, and no word of a secret.
func (c *caller) refused(method, path, body string, want ...int) {
	c.t.Helper()
	status, answer := c.ask(method, path, body)
	if status < 400 || len(want) > 0 && status != want[0] {
		c.t.Errorf("%s %s is answered %d: %.300s", method, path, status, answer)
	}
	if strings.Contains(answer, secretOfOthers) {
		c.t.Errorf("%s %s tells: %.300s", method, path, answer)
	}
}

// secretOfOthers is in what u1 has, and in nothing that u2 may see.
const secretOfOthers = "whale-7f3k-song"

// attackAPI is a member with her token, at another member's things and at what is for admins.
func (w *world) attackAPI(t *testing.T, machine shoal.MachineID) {
	one, two := w.signIn(t, "u1"), w.signIn(t, "u2")
	const spec = `{"pool":"lab","command":"echo ` + secretOfOthers + `; sleep 1000","env":{"X":"` + secretOfOthers + `"}}`
	status, answer := one.ask("POST", "/api/v1/jobs", spec, "Idempotency-Key", "same")
	if status != http.StatusCreated {
		t.Fatalf("submitting: %d %s", status, answer)
	}
	jobs, err := w.as("u1").Jobs(t.Context(), jobQuery("u1"))
	if err != nil || len(jobs) != 1 {
		t.Fatalf("%v, %v", jobs, err)
	}
	job := string(jobs[0].ID)
	there := w.talk("u1+lab", 0) // else her session may have ended meanwhile
	all(t, []*talk{there}, func(_ int, k *talk) error { return k.hear("ready") })
	defer func() { _, _ = there.end() }()
	sessions, err := w.Client.Sessions(t.Context(), sessionQuery("u1"))
	if err != nil || len(sessions) == 0 {
		t.Fatalf("u1 has sessions %v, %v", sessions, err)
	}
	session := string(sessions[0].ID)
	for _, path := range []string{"/jobs/" + job, "/jobs/" + job + "/tasks", "/jobs/" + job + "/wait", "/jobs/" + job + "/tasks/-1/output", "/why/job/" + job,
		"/jobs/" + job + "/tasks/0/output?follow=true", "/sessions/" + session, "/why/session/" + session, "/users/u1", "/why/login/u1", "/usage?by=machine", "/usage?by=group",
		"/jobs/..%2f..%2fusers%2fu1", "/users/%2e%2e%2fusers%2fu1", "/machines/..%2f..%2f..%2fetc%2fpasswd", "/jobs/" + job + "%00", "/jobs/" + job + "/tasks/../../../users/u1"} {
		two.refused("GET", "/api/v1"+path, "")
	}
	for _, path := range []string{"/jobs", "/jobs?user=u1", "/sessions?ended=true", "/sessions?user=u1&ended=true", "/users", "/usage?by=job", "/usage?by=user", "/events?follow=false", "/events?follow=false&since=2000-01-01T00:00:00Z",
		"/machines", "/why/pool/lab", "/why/machine/" + string(machine), "/pools"} {
		if status, answer := two.ask("GET", "/api/v1"+path, "", "Last-Event-ID", "0"); status != http.StatusOK || strings.Contains(answer, secretOfOthers) || strings.Contains(answer, `"u1"`) || strings.Contains(answer, session) {
			t.Errorf("%s is answered %d, with something of u1's: %.500s", path, status, answer)
		}
	}
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/jobs/" + job + "/cancel", ""}, {"DELETE", "/sessions/" + session, ""}, {"POST", "/sessions/" + session + "/keep-awake", `{"for":"1h"}`},
		{"POST", "/apply", `{"documents":[]}`}, {"PUT", "/pools/lab", `{}`}, {"DELETE", "/pools/lab", ""}, {"POST", "/pools/lab/scale", `{"size":9}`},
		{"PUT", "/users/u2", `{"name":"u2","role":"admin"}`}, {"PUT", "/users/u1/password", `{"password":"correct horse"}`}, {"POST", "/users", `{"name":"u9"}`},
		{"POST", "/users/u1/disable", ""}, {"DELETE", "/users/u1", ""}, {"DELETE", "/machines/" + string(machine) + "?force=true", ""}, {"POST", "/machines/" + string(machine) + "/drain", `{}`},
		{"POST", "/images", `{"name":"x"}`}, {"PUT", "/shares/team", `{"source":"/"}`}, {"PUT", "/groups/g", `{"members":["u2"]}`}, {"DELETE", "/shares/team", ""},
	} {
		two.refused(c.method, "/api/v1"+c.path, c.body)
	}
	two.refused("GET", "/metrics", "", http.StatusForbidden)
	two.refused("GET", "/agent/v1/stream", "", http.StatusNotFound)
	for _, as := range []string{"u1", "u2", "root", "nobody"} {
		if status, answer := two.ask("GET", "/api/v1/whoami", "", api.AsHeader, as); status < 400 {
			t.Errorf("u2 acts as %s: %s", as, answer)
		}
	}
	for _, h := range []string{api.UserHeader, "X-Forwarded-User", "X-Remote-User"} {
		if _, answer := two.ask("GET", "/api/v1/whoami", "", h, "u1"); !strings.Contains(answer, `"u2"`) {
			t.Errorf("with %s u2 is %s", h, answer)
		}
	}
	// The key under which u1 submitted means nothing for u2.
	if status, answer := two.ask("POST", "/api/v1/jobs", `{"pool":"lab","command":"true"}`, "Idempotency-Key", "same"); status != http.StatusCreated || strings.Contains(answer, secretOfOthers) {
		t.Errorf("with u1's key: %d %s", status, answer)
	}
	if _, err := w.as("u1").CancelJob(t.Context(), shoal.JobID(job)); err != nil {
		t.Error(err)
	}
	w.attackBodies(t, two)
	w.attackLogin(t)
}

// attackBodies sends what is too large, too slow or not there.
func (w *world) attackBodies(t *testing.T, c *caller) {
	c.refused("POST", "/api/v1/jobs", `{"command":"`+strings.Repeat("x", 5<<20)+`"}`, http.StatusBadRequest)
	c.refused("POST", "/api/v1/jobs", strings.Repeat("[", 1<<20), http.StatusBadRequest)
	c.refused("POST", "/api/v1/jobs", `{"pool":"lab","command":"true","array":"1-999999999999"}`)
	c.refused("GET", "/api/v1/jobs?limit=99999999999999999999", "")
	// Five hundred who never finish their request do not keep others from being answered.
	var slow []net.Conn
	for range 500 {
		conn, err := net.Dial("tcp", "127.0.0.1:"+w.API)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte("POST /api/v1/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n")); err != nil {
			t.Fatal(err)
		}
		slow = append(slow, conn)
	}
	if status, _ := c.ask("GET", "/api/v1/whoami", ""); status != http.StatusOK {
		t.Errorf("beside %d slow ones: %d", len(slow), status)
	}
	// Smuggled: two lengths, and a second request in the body of the first.
	conn, err := net.DialTimeout("tcp", "127.0.0.1:"+w.API, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "POST /api/v1/login HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\nGET /api/v1/whoami HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(conn)
	if n := bytes.Count(answer, []byte("HTTP/1.1 ")); n != 1 {
		t.Errorf("%d answers to one request: %s", n, answer)
	}
}

// attackLogin wants users who exist, who do not, and who are disabled to look the same.
func (w *world) attackLogin(t *testing.T) {
	c := &caller{t, "http://127.0.0.1:" + w.API, "", http.DefaultClient}
	answers := map[string]bool{}
	for _, user := range []string{"u3", "nobody", "root", "../u3"} {
		for _, body := range []string{`,"password":"wrong password"`, `,"challenge":"AAAA","signature":"x"`} {
			_, answer := c.ask("POST", "/api/v1/login", `{"user":"`+user+`"`+body+`}`)
			answers[strings.ReplaceAll(answer, user, "")] = true
		}
		status, answer := c.ask("POST", "/api/v1/login", `{"user":"`+user+`","key":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`)
		if status != http.StatusOK || !strings.Contains(answer, "challenge") {
			t.Errorf("%s gets no challenge: %d %s", user, status, answer)
		}
	}
	if len(answers) > 2 {
		t.Errorf("wrong logins are told apart: %v", answers)
	}
}

// The whole is one test: one world, attacked from every side in turn.
func TestSecurity(t *testing.T) {
	t.Parallel()
	needHost(t)
	plantSecrets(t)
	w := newWorld(t)
	w.apply(4, rig.Pool("lab", "interactive, batch", "{cpus: 1, memory: 1GiB}", "{min: 0, max: 2}", 16, "placement: pack\n"),
		rig.Pool("other", "interactive", "{cpus: 1, memory: 256MiB}", "{min: 1, max: 1}", 16, ""),
		"---\nkind: Group\nname: whales\nmembers: [u1]\n")
	for _, u := range []string{"u1", "u2", "u3"} {
		w.ssh(u+"+lab", "umask 077; echo "+secretOfOthers+" > ~/secret-of-"+u)
	}
	machine := w.ready("lab", 1)[0].ID
	t.Run("secrets", func(t *testing.T) { w.lookForSecrets(t, machine) })
	t.Run("API", func(t *testing.T) { w.attackAPI(t, machine) })
	t.Run("inside", func(t *testing.T) { w.attackInside(t, machine) })
	t.Run("exhaustion", func(t *testing.T) { w.attackExhaustion(t, machine) })
	t.Run("root", func(t *testing.T) { w.attackAsRoot(t, machine) })
	t.Run("gateway", func(t *testing.T) { w.attackGateway(t) })
	t.Run("files", func(t *testing.T) { w.lookAtFiles(t) })
}
