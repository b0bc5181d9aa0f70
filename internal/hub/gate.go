package hub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-pool/shoal/internal/atmost"
)

// What one machine may ask of the hub at a time, and how large a request may be: tokens and times of use.
const (
	maxAtOnce  = 32
	maxRequest = 1 << 20
)

// serveHTTP serves until the function it returns is called.
func serveHTTP(l net.Listener, handler http.Handler, log *slog.Logger) (stop func()) {
	s := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l) // ends with Close
	}()
	return func() {
		s.Close()
		<-done
	}
}

// dial reaches the hub at its socket, which lies in a directory of its own. Were that another's socket by now, or a link
// to one, then what users send would be done with root's rights: it must be a socket that the hub has made.
func (h *Hub) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	file := h.path("state", "hub.sock")
	fd, err := unix.Open(file, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot reach JupyterHub: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || st.Uid != hubID {
		return nil, errors.New("cannot reach JupyterHub: " + file + " is not its socket")
	}
	var d net.Dialer
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d", fd))
}

// forward hands requests to the hub as they are. The port that it stands behind is held while the hub is not
// there, so that nobody else can take it and be sent what is meant for the hub.
func (h *Hub) forward() http.Handler {
	return forwardTo("http", "hub", &http.Transport{DialContext: h.dial, MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute, DisableCompression: true}, h.cfg.Log)
}

func forwardTo(scheme, host string, by http.RoundTripper, log *slog.Logger) http.Handler {
	return &httputil.ReverseProxy{
		Transport:     by,
		FlushInterval: -1, // it streams progress
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = scheme, host
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Proxy", "X-Scheme"} {
				if v, ok := r.In.Header[name]; ok { // the gateway's word
					r.Out.Header[name] = v
				}
			}
		},
		ErrorLog:     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, _ error) { absent(w, r) },
	}
}

// absent answers for a hub that is not there.
func absent(w http.ResponseWriter, r *http.Request) {
	kind, text := "application/json", `{"status": 503, "message": "JupyterHub is being started; try again in a moment"}`
	if strings.Contains(r.Header.Get("Accept"), "text/html") {
		kind = "text/html; charset=utf-8"
		text = `<!doctype html><html lang="en"><meta charset="utf-8"><meta http-equiv="refresh" content="3"><title>JupyterHub</title>` +
			`<p>JupyterHub is being started. Notebook servers go on meanwhile. This page tries again by itself.</p></html>`
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Retry-After", "3")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, text+"\n") // whoever asked may have gone
}

// onlyAPI is what machines reach: /hub/api, in which their notebook servers ask who comes. Each may ask so many
// things at a time.
func onlyAPI(next http.Handler) http.Handler {
	busy := atmost.New[string](maxAtOnce, math.MaxInt)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !forMachines(r) {
			http.NotFound(w, r)
			return
		}
		from, _, _ := net.SplitHostPort(r.RemoteAddr)
		if !busy.Enter(from) {
			http.Error(w, `{"status": 429, "message": "too many requests of this machine at a time"}`, http.StatusTooManyRequests)
			return
		}
		defer busy.Leave(from)
		// Longer answers than these are streams, which are for browsers.
		c := http.NewResponseController(w)
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		_ = c.SetWriteDeadline(time.Now().Add(2 * time.Minute))
		for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port", "X-Scheme"} {
			r.Header.Del(name) // a machine's word counts for nothing
		}
		r.Header.Set("X-Forwarded-For", from)
		r.Body = http.MaxBytesReader(w, r.Body, maxRequest)
		next.ServeHTTP(w, r)
	})
}

// forMachines: the path is below /hub/api, however it is read: as it is written, decoded, or with its dots taken away.
func forMachines(r *http.Request) bool {
	if r.Method == http.MethodConnect || r.Header.Get("Upgrade") != "" {
		return false
	}
	for _, p := range []string{r.URL.Path, r.URL.EscapedPath()} {
		if p != "/hub/api" && !strings.HasPrefix(p, "/hub/api/") || strings.Contains(p, "//") || path.Clean(p) != strings.TrimSuffix(p, "/") {
			return false
		}
	}
	return true
}

// ForMachines is what machines that do not come to the door on the bridge may ask, by their agents' connections: the same. Whose a request
// is, its remote address says.
func (h *Hub) ForMachines() http.Handler {
	if h.cfg.External == "" {
		return onlyAPI(h.forward())
	}
	at, err := url.Parse(h.cfg.External)
	if err != nil {
		return http.NotFoundHandler()
	}
	return onlyAPI(forwardTo(at.Scheme, at.Host, http.DefaultTransport, h.cfg.Log))
}
