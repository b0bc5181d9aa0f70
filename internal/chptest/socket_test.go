package chptest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/shoal-pool/shoal/internal/rig/proxy"
)

const kernelProtocol = "v1.kernel.websocket.jupyter.org"

var socketCases = []testCase{
	{"a websocket", func(w *world) {
		w.route("/user")
		c := w.websocket("/user/x/api/kernels/1/channels?session_id=2", nil)
		for _, m := range []struct {
			kind websocket.MessageType
			text []byte
		}{{websocket.MessageText, []byte("hi")}, {websocket.MessageBinary, []byte{0, 1, 255}}, {websocket.MessageText, nil}, {websocket.MessageBinary, bytes.Repeat([]byte("0123456789abcdef"), 1<<18)}} {
			if err := c.Write(w.ctx(), m.kind, m.text); err != nil {
				w.t.Fatal(err)
			}
			kind, text, err := c.Read(w.ctx())
			if err != nil || kind != m.kind || !bytes.Equal(text, m.text) {
				w.t.Fatalf("%d bytes come back as %d: %v", len(m.text), len(text), err)
			}
		}
		if err := c.Ping(closeReads(w, c)); err != nil {
			w.t.Errorf("a ping: %v", err)
		}
	}},
	{"what a websocket's request says", func(w *world) {
		w.route("/user", w.b.URL+"/at")
		c := w.websocket("/user/x?a=b%20c", &websocket.DialOptions{Subprotocols: []string{kernelProtocol}, HTTPHeader: http.Header{"Cookie": {"a=b"}, "Origin": {"http://" + w.p.Addr}}})
		if c.Subprotocol() != kernelProtocol {
			w.t.Errorf("the subprotocol is %q", c.Subprotocol())
		}
		if err := c.Write(w.ctx(), websocket.MessageText, []byte("who")); err != nil {
			w.t.Fatal(err)
		}
		_, text, err := c.Read(w.ctx())
		if err != nil {
			w.t.Fatal(err)
		}
		var got proxy.Asked
		if err := json.Unmarshal(text, &got); err != nil {
			w.t.Fatal(err)
		}
		if got.URI != "/at/user/x?a=b%20c" || got.Host != w.p.Addr || got.Header.Get("Cookie") != "a=b" || got.Header.Get("Origin") != "http://"+w.p.Addr {
			w.t.Errorf("the backend was asked %+v", got)
		}
		_, port, _ := strings.Cut(w.p.Addr, ":")
		if got.Header.Get("X-Forwarded-Proto") != "ws" && got.Header.Get("X-Forwarded-Proto") != "http" || got.Header.Get("X-Forwarded-Port") != port {
			w.t.Errorf("forwarded as %q, port %q", got.Header.Get("X-Forwarded-Proto"), got.Header.Get("X-Forwarded-Port"))
		}
	}},
	{"the backend closes a websocket", func(w *world) {
		w.route("/user")
		c := w.websocket("/user/x", nil)
		if err := c.Write(w.ctx(), websocket.MessageText, []byte("bye")); err != nil {
			w.t.Fatal(err)
		}
		_, _, err := c.Read(w.ctx())
		var e websocket.CloseError
		if !errors.As(err, &e) || e.Code != 4001 || e.Reason != "as you wish" {
			w.t.Errorf("it ends with %v", err)
		}
	}},
	{"the client closes a websocket", func(w *world) {
		w.route("/user")
		w.until("those before it are closed", func() bool { return w.b.Open.Load() == 0 })
		before := w.b.Open.Load()
		c := w.websocket("/user/x", nil)
		w.until("it is open", func() bool { return w.b.Open.Load() == before+1 })
		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			w.t.Error(err)
		}
		w.until("it is closed", func() bool { return w.b.Open.Load() == before })
	}},
	{"a websocket that the backend refuses", func(w *world) {
		w.route("/user")
		_, r, err := proxy.Websocket(w.ctx(), w.p.Addr, "/user/x?refuse", nil)
		if err == nil || r == nil || r.StatusCode != 403 {
			w.t.Errorf("%v: %v", r, err)
		}
	}},
	{"a websocket to nowhere", func(w *world) {
		w.route("/gone", "http://127.0.0.1:1")
		for path, want := range map[string]int{"/nope": 404, "/gone/x": 503} {
			_, r, err := proxy.Websocket(w.ctx(), w.p.Addr, path, nil)
			if err == nil {
				w.t.Errorf("%s opens", path)
			}
			if w.ours && (r == nil || r.StatusCode != want) { // the original writes a page without a status
				w.t.Errorf("%s: %v, want %d", path, r, want)
			}
		}
	}},
	{"messages are activity", func(w *world) {
		w.route("/user")
		c := w.websocket("/user/x", nil)
		last := func() any { return w.routes()["/user"]["last_activity"] }
		before := last()
		time.Sleep(5 * time.Millisecond)
		w.until("it has moved", func() bool {
			if err := c.Write(w.ctx(), websocket.MessageText, []byte("hi")); err != nil {
				w.t.Fatal(err)
			}
			if _, _, err := c.Read(w.ctx()); err != nil {
				w.t.Fatal(err)
			}
			return last() != before
		})
	}},
	{"a websocket outlives its route", func(w *world) {
		w.route("/user")
		c := w.websocket("/user/x", nil)
		w.call(204, http.MethodDelete, "/user", nil)
		if err := c.Write(w.ctx(), websocket.MessageText, []byte("hi")); err != nil {
			w.t.Fatal(err)
		}
		if _, text, err := c.Read(w.ctx()); err != nil || string(text) != "hi" {
			w.t.Errorf("%q: %v", text, err)
		}
	}},
}

func (w *world) websocket(path string, o *websocket.DialOptions) *websocket.Conn {
	w.t.Helper()
	c, _, err := proxy.Websocket(w.ctx(), w.p.Addr, path, o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.CloseNow() }) // may be closed already
	return c
}

func (w *world) until(what string, is func() bool) {
	w.t.Helper()
	for deadline := time.Now().Add(patience); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			w.t.Fatalf("waited in vain until %s", what)
		}
	}
}

// closeReads lets pings be answered, which needs somebody who reads.
func closeReads(w *world, c *websocket.Conn) context.Context {
	c.CloseRead(w.ctx())
	return w.ctx()
}
