package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/provider"
)

// relayed is a relay between a program of this process's user and a control plane.
func relayed(t *testing.T, known bool, control http.HandlerFunc) *http.Client {
	t.Helper()
	srv := httptest.NewServer(control)
	t.Cleanup(srv.Close)
	path := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	people := &People{}
	if known {
		people.set(api.Accounts{Users: []api.Account{{Name: "alice", UID: os.Getuid()}}})
	}
	a, err := New(Config{Join: provider.Join{Machine: "m-1", Control: srv.URL}, People: people, Relay: l, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a.control.token = "machine-token"
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.relay(ctx) }()
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 0, DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	t.Cleanup(func() {
		stop()
		if err := <-done; err != context.Canceled {
			t.Errorf("the relay ended: %v", err)
		}
		client.CloseIdleConnections()
		a.control.http.CloseIdleConnections()
	})
	return client
}

func TestRelayHeaders(t *testing.T) {
	client := relayed(t, true, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("Etag", "7")
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s %q user=%q auth=%q cookie=%q fwd=%q key=%q", r.Method, r.RequestURI, b, r.Header.Values(api.UserHeader), r.Header.Values("Authorization"),
			r.Header.Get("Cookie"), r.Header.Get("X-Forwarded-For"), r.Header.Get("Idempotency-Key"))
	})
	req, err := http.NewRequest("PUT", "http://shoal/api/v1/a%2Fb?x=1&y=%20", strings.NewReader("body"))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{"shoal-user": "root", "Authorization": "Bearer stolen", "Cookie": "c=d", "X-Forwarded-For": "1.2.3.4", "Idempotency-Key": "k"} {
		req.Header.Set(k, v)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	want := `PUT /agent/v1/user/api/v1/a%2Fb?x=1&y=%20 "body" user=["alice"] auth=["Bearer machine-token"] cookie="" fwd="" key="k"`
	if string(got) != want || resp.StatusCode != http.StatusTeapot || resp.Header.Get("Set-Cookie") != "" || resp.Header.Get("Etag") != "7" {
		t.Errorf("got  %s\nwant %s\n%d %v", got, want, resp.StatusCode, resp.Header)
	}
}

func TestRelayRefusesStrangers(t *testing.T) {
	var asked atomic.Bool
	client := relayed(t, false, func(http.ResponseWriter, *http.Request) { asked.Store(true) })
	resp, err := client.Get("http://shoal/api/v1/jobs")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusForbidden || !strings.Contains(string(b), `"kind":"denied"`) || asked.Load() {
		t.Errorf("%d %s, handed on: %v", resp.StatusCode, b, asked.Load())
	}
}

// One user's requests do not take what others need, and an answer that breaks off does not look complete.
func TestRelayBounds(t *testing.T) {
	release := make(chan struct{})
	client := relayed(t, true, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "begun")
		http.NewResponseController(w).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
		if strings.HasSuffix(r.URL.Path, "/broken") {
			panic(http.ErrAbortHandler)
		}
	})
	get := func(path string) *http.Response {
		t.Helper()
		resp, err := client.Get("http://shoal/" + path)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	var open []*http.Response
	for i := range relayPerUser {
		path := "whole"
		if i == 0 {
			path = "broken"
		}
		resp := get(path)
		defer resp.Body.Close()
		open = append(open, resp)
	}
	over := get("one-more")
	over.Body.Close()
	if over.StatusCode != http.StatusTooManyRequests {
		t.Errorf("one more is answered %d", over.StatusCode)
	}
	close(release)
	for i, resp := range open {
		if b, err := io.ReadAll(resp.Body); (err != nil) != (i == 0) || string(b) != "begun\n" {
			t.Errorf("request %d ended with %q, %v", i, b, err)
		}
	}
	again := get("after")
	again.Body.Close()
	if again.StatusCode != http.StatusOK {
		t.Errorf("afterwards it is answered %d", again.StatusCode)
	}
}

// Who opens connections without end takes neither the agent's descriptors nor the way of others.
func TestRelayConnections(t *testing.T) {
	client := relayed(t, true, func(http.ResponseWriter, *http.Request) {})
	dial := client.Transport.(*http.Transport).DialContext
	open := make([]net.Conn, 3*connsPerUser)
	for i := range open {
		c, err := dial(t.Context(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open[i] = c
	}
	for i, c := range open[connsPerUser:] {
		if n, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("connection %d too many: %d bytes, %v", i, n, err)
		}
	}
	for _, c := range open {
		c.Close()
	}
	for {
		resp, err := client.Get("http://shoal/api/v1/jobs")
		if err != nil { // it has not seen yet that they are closed
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("afterwards it is answered %d", resp.StatusCode)
		}
		return
	}
}

func TestRelayWithoutControl(t *testing.T) {
	client := relayed(t, true, func(w http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			c.Close()
		}
	})
	resp, err := client.Get("http://shoal/api/v1/jobs")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(b), `"kind":"unavailable"`) {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
}

// A notebook server says to JupyterHub what it says, and nothing that only the agent may.
func TestHubProxy(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s auth=%q hub=%q user=%q", r.Method, r.RequestURI, r.Header.Values("Authorization"), r.Header.Values(api.HubAuthorizationHeader), r.Header.Values(api.UserHeader))
	}))
	defer srv.Close()
	a, err := New(Config{Join: provider.Join{Machine: "m-1", Control: srv.URL}, People: &People{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a.control.token = "machine-token"
	defer a.control.http.CloseIdleConnections()
	for _, c := range []struct {
		header map[string]string
		want   string
	}{
		{map[string]string{"Authorization": "token hers", api.UserHeader: "root"}, `auth=["Bearer machine-token"] hub=["token hers"] user=[]`},
		{map[string]string{api.HubAuthorizationHeader: "token other"}, `auth=["Bearer machine-token"] hub=[] user=[]`},
	} {
		r := httptest.NewRequest("POST", "/hub/api/users/a%2Fb/activity?x=1", strings.NewReader("{}"))
		for k, v := range c.header {
			r.Header.Set(k, v)
		}
		w := httptest.NewRecorder()
		a.hubProxy().ServeHTTP(w, r)
		if want := "POST /agent/v1/hub/hub/api/users/a%2Fb/activity?x=1 " + c.want; w.Body.String() != want {
			t.Errorf("got  %s\nwant %s", w.Body, want)
		}
	}
}
