package httpapi_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/httpapi"
	"github.com/shoal-pool/shoal/internal/reach"
	"github.com/shoal-pool/shoal/internal/store"
	"github.com/shoal-pool/shoal/internal/store/storetest"
)

// reached is the API as agents find it, with a way back to machines, and what m-1's agent is asked for.
type reached struct {
	*world
	reach  *reach.Reach
	orders chan api.ReachOrder
	srv    *httptest.Server
}

func newReached(t *testing.T) *reached {
	w := &reached{world: newWorld(t), orders: make(chan api.ReachOrder, 10)}
	w.reach = reach.New(reach.Config{HostCA: newSigner(t).PublicKey(), Here: func(string) bool { return false },
		Machine: func(context.Context, shoal.MachineID) (shoal.Machine, error) {
			return shoal.Machine{ID: "m-1", Address: "10.0.0.1:22"}, nil
		},
		Dial: func(context.Context, string, string) (net.Conn, error) { return nil, fmt.Errorf("no route to host") },
		Send: func(_ shoal.MachineID, r api.Record) bool { w.orders <- *r.Reach; return true }})
	w.cfg.Reach = w.reach
	w.srv = httptest.NewTLSServer(httpapi.New(w.cfg).Agent())
	t.Cleanup(w.srv.Close)
	return w
}

// another is the token of a further machine.
func (w *reached) another() string {
	storetest.Update(w.t, w.db, func(tx *store.Tx) error {
		return put(tx.Machines().Put, shoal.Machine{ID: "m-2", Pool: "lab", State: shoal.MachineReady, Since: time.Now(), Wanted: shoal.WantRun, Epoch: 1})
	})
	joined, err := w.hub.Join(context.Background(), api.AgentJoin{Machine: "m-2", Epoch: 1, Token: w.hub.JoinToken("m-2", 1),
		HostKey: string(ssh.MarshalAuthorizedKey(newSigner(w.t).PublicKey()))})
	if err != nil {
		w.t.Fatal(err)
	}
	return joined.Token
}

// dial asks for a connection to a port of m-1, and returns what its agent is asked for.
func (w *reached) dial(address string) (api.ReachOrder, chan net.Conn) {
	w.t.Helper()
	got := make(chan net.Conn, 1)
	go func() {
		c, err := w.reach.Dial(w.t.Context(), "m-1", address)
		if err != nil {
			w.t.Errorf("cannot dial: %v", err)
		}
		got <- c
	}()
	return <-w.orders, got
}

// bring shows a token and the secret of a stream, and returns the status with the connection.
func (w *reached) bring(token, secret, protocol string) (int, *tls.Conn) {
	w.t.Helper()
	c, err := tls.Dial("tcp", w.srv.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test's own
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.NetConn().Close() })
	fmt.Fprintf(c, "GET /agent/v1/reach HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nConnection: Upgrade\r\nUpgrade: %s\r\n%s: %s\r\n\r\n", token, protocol, api.StreamHeader, secret)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, c
}

// A stream is for one machine: whoever else shows its secret is refused, and it stays good for who it is for.
func TestStreamIsItsMachines(t *testing.T) {
	t.Parallel()
	w := newReached(t)
	other := w.another()
	base := start(t, httpapi.New(w.cfg).Agent())
	order, got := w.dial("10.0.0.1:22")
	if !order.Bare || order.Port != 0 {
		t.Errorf("asked for %+v", order)
	}
	for _, protocol := range []string{api.ReachProtocol, api.BareProtocol} {
		for _, c := range []struct {
			token, secret string
			want          int
		}{{other, order.Stream, 404}, {w.mtoken, order.Stream + "x", 404}, {w.mtoken, "", 404}, {"", order.Stream, 401}, {order.Stream, order.Stream, 401}} {
			if status, _ := w.bring(c.token, c.secret, protocol); status != c.want {
				t.Errorf("%s: answered %d, not %d", protocol, status, c.want)
			}
		}
		r := do(t, base, request{method: "POST", path: "/agent/v1/reach", body: `{"stream":"` + order.Stream + `","error":"mine"}`, header: bearer(other)})
		if r.status != 404 {
			t.Errorf("another machine says that there is no connection: %d", r.status)
		}
	}
	if status, _ := w.bring(w.mtoken, order.Stream, "websocket"); status != 400 {
		t.Errorf("another protocol is answered %d", status)
	}
	status, c := w.bring(w.mtoken, order.Stream, api.BareProtocol)
	if status != http.StatusSwitchingProtocols {
		t.Fatalf("itself is answered %d", status)
	}
	agent := c.NetConn()
	mustf(t, say(agent, api.BareMark+"SSH-2.0-sshd"), "the agent speaks")
	gateway := <-got
	if gateway == nil {
		t.FailNow()
	}
	defer gateway.Close()
	mustf(t, say(gateway, "SSH-2.0-gateway"), "the gateway speaks")
	for want, from := range map[string]net.Conn{"SSH-2.0-sshd": gateway, "SSH-2.0-gateway": agent} {
		b := make([]byte, len(want))
		if _, err := io.ReadFull(from, b); err != nil || string(b) != want {
			t.Errorf("%q comes instead of %q: %v", b, want, err)
		}
	}
	if status, _ := w.bring(w.mtoken, order.Stream, api.BareProtocol); status != 404 {
		t.Errorf("it is good twice: %d", status)
	}
}

func say(c net.Conn, text string) error {
	_, err := io.WriteString(c, text)
	return err
}

// Nothing but ssh goes without TLS, whatever an agent asks for.
func TestOthersStayInTLS(t *testing.T) {
	t.Parallel()
	w := newReached(t)
	order, got := w.dial("10.0.0.1:3389")
	if order.Bare || order.Port != 3389 {
		t.Errorf("asked for %+v", order)
	}
	if status, _ := w.bring(w.mtoken, order.Stream, api.BareProtocol); status != 403 {
		t.Errorf("without TLS it is answered %d", status)
	}
	status, c := w.bring(w.mtoken, order.Stream, api.ReachProtocol)
	if status != http.StatusSwitchingProtocols {
		t.Fatalf("with TLS it is answered %d", status)
	}
	gateway := <-got
	defer gateway.Close()
	mustf(t, say(gateway, "hello"), "the gateway speaks")
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "hello" {
		t.Errorf("%q comes: %v", b, err)
	}
}

// Where nothing but TLS gets through, ssh stays in it.
func TestOnlyTLSGetsThrough(t *testing.T) {
	t.Parallel()
	w := newReached(t)
	order, got := w.dial("10.0.0.1:22")
	if _, c := w.bring(w.mtoken, order.Stream, api.BareProtocol); say(c, api.BareMark) != nil { // in TLS, so that other bytes come
		t.Error("the agent cannot speak")
	}
	order = <-w.orders
	if order.Bare {
		t.Errorf("asked once more for %+v", order)
	}
	if status, _ := w.bring(w.mtoken, order.Stream, api.ReachProtocol); status != http.StatusSwitchingProtocols {
		t.Errorf("in TLS it is answered %d", status)
	}
	(<-got).Close()
	order, got = w.dial("10.0.0.1:22")
	if order.Bare { // that is remembered
		t.Errorf("the next time it is asked for %+v", order)
	}
	w.bring(w.mtoken, order.Stream, api.ReachProtocol)
	(<-got).Close()
}

// What notebook servers ask JupyterHub comes with their own token and the machine's name; the machine's token stays here.
func TestHubForMachines(t *testing.T) {
	t.Parallel()
	w := newReached(t)
	w.cfg.HubAPI = http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(out, "%s from %s as %q %q", r.URL.Path, r.RemoteAddr, r.Header.Values("Authorization"), r.Header.Values(api.HubAuthorizationHeader))
	})
	base := start(t, httpapi.New(w.cfg).Agent())
	header := bearer(w.mtoken)
	if a := do(t, base, request{method: "GET", path: api.HubPrefix + "/hub/api/user", header: header}); a.body != `/hub/api/user from m-1:0 as [] []` {
		t.Errorf("without a token of its own: %s", a.body)
	}
	header[api.HubAuthorizationHeader] = "token hers"
	if a := do(t, base, request{method: "GET", path: api.HubPrefix + "/hub/api/user", header: header}); a.body != `/hub/api/user from m-1:0 as ["token hers"] []` {
		t.Errorf("with one: %s", a.body)
	}
	for name, token := range map[string]string{"nobody": "", "a user": w.tokens["ada"], "the hub": hubToken} {
		if a := do(t, base, request{method: "GET", path: api.HubPrefix + "/hub/api/user", header: bearer(token)}); a.status != http.StatusUnauthorized {
			t.Errorf("%s is answered %d", name, a.status)
		}
	}
	w.cfg.HubAPI = nil
	if a := do(t, start(t, httpapi.New(w.cfg).Agent()), request{method: "GET", path: api.HubPrefix + "/hub/api/user", header: bearer(w.mtoken)}); a.status != http.StatusNotFound {
		t.Errorf("without a hub it is answered %d", a.status)
	}
}
