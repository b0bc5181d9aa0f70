package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal"
	"github.com/shoal-pool/shoal/api"
	"github.com/shoal-pool/shoal/internal/atmost"
)

// Bounds on the requests that users may have under way, and on the connections for them: the machine's memory
// is theirs, and the agent's is not, nor are its descriptors.
const (
	relayPerUser = 32
	relayAll     = 256
	relayBody    = 16 << 20
	connsPerUser = 2 * relayPerUser
	connsAll     = 4 * relayAll
)

// callerKey is where a connection's context holds the uid at its other end.
type callerKey struct{}

// relay hands on users' requests until ctx ends.
func (a *Agent) relay(ctx context.Context) error {
	r := &relay{agent: a, busy: atmost.New[int](relayPerUser, relayAll)}
	srv := &http.Server{Handler: r, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 30 * time.Second, MaxHeaderBytes: 32 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			uid := -1
			if c, ok := c.(*counted); ok {
				uid = c.uid
			}
			return context.WithValue(ctx, callerKey{}, uid)
		}}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	if err := srv.Serve(newCounter(a.cfg.Relay)); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

// peer is the uid of the process at the other end of a connection, by the word of the kernel.
func peer(c net.Conn) int {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return -1
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return -1
	}
	uid := -1
	err = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			uid = int(cred.Uid)
		}
	})
	if err != nil {
		return -1
	}
	return uid
}

// counter closes the connections of who has too many of them at once.
type counter struct {
	net.Listener
	open *atmost.Limit[int] // by uid
}

func newCounter(l net.Listener) *counter {
	return &counter{l, atmost.New[int](connsPerUser, connsAll)}
}

// counted is a connection with the uid at its other end.
type counted struct {
	net.Conn
	uid    int
	closed func()
}

func (c *counted) Close() error {
	c.closed()
	return c.Conn.Close()
}

// Accept waits for a connection that may stay.
func (l *counter) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uid := peer(c)
		if l.open.Enter(uid) {
			return &counted{c, uid, sync.OnceFunc(func() { l.open.Leave(uid) })}, nil
		}
		_ = c.Close() // it is nobody's to read
	}
}

type relay struct {
	agent *Agent
	busy  *atmost.Limit[int] // requests under way, by uid
}

// ServeHTTP hands one request on. Its path is put behind /agent/v1/user.
func (r *relay) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	uid, _ := req.Context().Value(callerKey{}).(int)
	account, ok := r.agent.cfg.People.account(uid)
	user := account.Name
	if !ok || account.Disabled {
		refuse(w, shoal.Errorf(shoal.KindDenied, "uid %d of this machine is no user of Shoal", uid).
			WithHint("log in as a user; from outside, `shoal login` works for whoever has an account"))
		return
	}
	if !r.busy.Enter(uid) {
		refuse(w, shoal.Errorf(shoal.KindExhausted, "%s has too many requests under way on this machine", user).
			WithHint("wait for one of them to end"))
		return
	}
	defer r.busy.Leave(uid)
	resp, err := r.forward(req, user)
	if err != nil {
		refuse(w, shoal.Errorf(shoal.KindUnavailable, "the control plane does not answer: %w", err).WithHint("try again in a moment"))
		return
	}
	defer resp.Body.Close()
	for k, v := range resp.Header {
		if !hopByHop(k) && k != "Set-Cookie" {
			w.Header()[k] = v
		}
	}
	w.WriteHeader(resp.StatusCode)
	copyNow(w, resp.Body)
}

// passed are the request headers that mean something to the API; acting as another user is among them, so that
// it is refused in words. No other is handed on, least of all those that say who is asking.
func passed() []string {
	return []string{api.AsHeader, "Accept", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match", "Last-Event-Id", "Range", "User-Agent"}
}

// forward sends the request in the user's name.
func (r *relay) forward(req *http.Request, user shoal.UserName) (*http.Response, error) {
	c := r.agent.control
	body := io.Reader(http.MaxBytesReader(nil, req.Body, relayBody))
	if req.ContentLength == 0 {
		body = nil
	}
	out, err := http.NewRequestWithContext(req.Context(), req.Method, c.base+"/agent/v1/user"+cleanPath(req), body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		out.ContentLength = req.ContentLength
	}
	for _, k := range passed() {
		if v := req.Header.Values(k); len(v) > 0 {
			out.Header[k] = v
		}
	}
	out.Header.Set(api.UserHeader, string(user))
	out.Header.Set("Authorization", "Bearer "+c.bearer())
	return c.http.Transport.RoundTrip(out) // redirects are the caller's affair
}

// cleanPath is the path with its query, without a way up.
func cleanPath(req *http.Request) string {
	p := req.URL.EscapedPath()
	if !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	for part := range strings.SplitSeq(req.URL.Path, "/") {
		if part == ".." || part == "." {
			p = "/"
		}
	}
	if q := req.URL.RawQuery; q != "" {
		p += "?" + q
	}
	return p
}

func hopByHop(header string) bool {
	switch header {
	case "Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Connection", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return true
	}
	return false
}

// copyNow passes on what comes when it comes: event streams and logs that are followed.
func copyNow(w http.ResponseWriter, body io.Reader) {
	flush := http.NewResponseController(w)
	buf := make([]byte, 16<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
			if flush.Flush() != nil {
				return
			}
		}
		if err == io.EOF {
			return
		}
		if err != nil {
			panic(http.ErrAbortHandler) // the caller must see that it is not all
		}
	}
}

// refuse writes a problem document.
func refuse(w http.ResponseWriter, err *shoal.Error) {
	m := err.Kind.Meaning()
	b, _ := json.Marshal(api.Problem{Type: "about:blank", Title: http.StatusText(m.Status), Status: m.Status,
		Detail: err.Msg, Kind: err.Kind, Hint: err.Hint})
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(m.Status)
	fmt.Fprintf(w, "%s\n", b)
}
