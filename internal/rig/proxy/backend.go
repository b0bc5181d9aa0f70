package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coder/websocket"
)

// Backend is a web server that says what it was asked, and does what the query asks for:
//
//	?status=N       answers with that status
//	?location=URL   … and that Location
//	?bytes=N        answers with so many bytes
//	?drip=N         answers with N lines, each sent as soon as the client of a former one said so by Backend.Drip
//	?hangup         closes the connection without an answer
//	?sleep=DURATION waits before it answers
//	?refuse         refuses a websocket with 403
//
// A websocket gets its messages back; the message "bye" ends it with 4001, "text "+N gets so many bytes, "who" the
// request as JSON.
type Backend struct {
	URL     string
	Drip    chan struct{} // a further line of ?drip
	Open    atomic.Int64  // websockets that are open
	Conns   atomic.Int64  // connections that are open
	Dialed  atomic.Int64  // connections ever made
	server  *http.Server
	ended   chan error
	tearing context.CancelFunc
}

// Asked is what the backend was asked, as it came over the wire.
type Asked struct {
	Name, Method, URI, Host, Proto, Body string
	Length                               int64
	Header                               http.Header
}

// NewBackend starts a backend on a free port of loopback.
func NewBackend(name string) (*Backend, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return NewBackendOn(l, name), nil
}

// NewBackendOn starts a backend on a listener.
func NewBackendOn(l net.Listener, name string) *Backend {
	ctx, cancel := context.WithCancel(context.Background())
	b := &Backend{URL: "http://" + l.Addr().String(), Drip: make(chan struct{}), ended: make(chan error, 1), tearing: cancel}
	b.server = &http.Server{Handler: b.handler(name), ReadHeaderTimeout: time.Minute, BaseContext: func(net.Listener) context.Context { return ctx },
		ConnState: func(_ net.Conn, s http.ConnState) {
			switch s {
			case http.StateNew:
				b.Conns.Add(1)
				b.Dialed.Add(1)
			case http.StateClosed, http.StateHijacked: // who has hijacked one counts on
				b.Conns.Add(-1)
			}
		}}
	go func() { b.ended <- b.server.Serve(l) }()
	return b
}

// Close ends the backend and all its connections.
func (b *Backend) Close() error {
	b.tearing()
	err := b.server.Close()
	if e := <-b.ended; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}

func (b *Backend) handler(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") && !r.URL.Query().Has("refuse") {
			b.websocket(w, r, name)
			return
		}
		if r.URL.RawQuery == "" && r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/fast") {
			_, _ = io.WriteString(w, "fast") // the client may be gone
			return
		}
		if !b.odd(w, r) {
			b.tell(w, r, name)
		}
	})
}

// odd does what the query asks for, if it asks for something.
func (b *Backend) odd(w http.ResponseWriter, r *http.Request) bool {
	q := r.URL.Query()
	if d, err := time.ParseDuration(q.Get("sleep")); err == nil {
		select {
		case <-time.After(d):
		case <-r.Context().Done():
			return true
		}
	}
	switch {
	case q.Has("hangup"):
		if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = c.Close() // that is what was asked for
		}
	case q.Has("refuse"):
		http.Error(w, "no websocket here", http.StatusForbidden)
	case q.Has("status"):
		code, err := strconv.Atoi(q.Get("status"))
		if err != nil {
			code = http.StatusInternalServerError
		}
		if to := q.Get("location"); to != "" {
			w.Header().Set("Location", to)
		}
		w.Header().Add("Set-Cookie", "one=1; Path=/")
		w.Header().Add("Set-Cookie", "two=2; Path=/")
		w.WriteHeader(code)
	case q.Has("bytes"):
		n, _ := strconv.ParseInt(q.Get("bytes"), 10, 64) // zero is as good
		_, _ = io.CopyN(w, zeros{}, n)                   // the client may be gone
	case q.Has("drip"):
		n, _ := strconv.Atoi(q.Get("drip"))
		b.drip(w, r, n)
	default:
		return false
	}
	return true
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'x'
	}
	return len(p), nil
}

// drip sends one line at once and each further one when told so.
func (b *Backend) drip(w http.ResponseWriter, r *http.Request, n int) {
	w.Header().Set("Content-Type", "text/event-stream")
	for i := range n {
		if i > 0 {
			select {
			case <-b.Drip:
			case <-r.Context().Done():
				return
			}
		}
		fmt.Fprintf(w, "data: %d\n\n", i)
		if http.NewResponseController(w).Flush() != nil {
			return
		}
	}
}

// tell answers with the request as JSON.
func (b *Backend) tell(w http.ResponseWriter, r *http.Request, name string) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 64<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Backend", name)
	_ = json.NewEncoder(w).Encode(asked(r, name, body)) // the client may be gone
}

func asked(r *http.Request, name string, body []byte) Asked {
	a := Asked{Name: name, Method: r.Method, URI: r.RequestURI, Host: r.Host, Proto: r.Proto, Length: r.ContentLength, Header: r.Header}
	if len(body) <= 4096 {
		a.Body = string(body)
	}
	if a.Length < 0 {
		a.Length = int64(len(body))
	}
	return a
}

func (b *Backend) websocket(w http.ResponseWriter, r *http.Request, name string) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true, Subprotocols: []string{"v1.kernel.websocket.jupyter.org"}})
	if err != nil {
		return // it has answered
	}
	b.Open.Add(1)
	b.Conns.Add(1)
	defer func() {
		_ = c.CloseNow() // it is closed already, or the other side is gone
		b.Conns.Add(-1)
		b.Open.Add(-1)
	}()
	c.SetReadLimit(64 << 20)
	for {
		kind, text, err := c.Read(r.Context())
		if err != nil {
			return
		}
		switch {
		case string(text) == "bye":
			_ = c.Close(4001, "as you wish") // the other side may be gone
			return
		case string(text) == "who":
			text, err = json.Marshal(asked(r, name, nil))
		case strings.HasPrefix(string(text), "text "):
			var n int
			n, err = strconv.Atoi(string(text[5:]))
			text = []byte(strings.Repeat("x", n))
		}
		if err == nil {
			err = c.Write(r.Context(), kind, text)
		}
		if err != nil {
			return
		}
	}
}
