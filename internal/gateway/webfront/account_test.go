package webfront_test

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/shoal-pool/shoal/internal/gateway/webfront"
	"github.com/shoal-pool/shoal/internal/gateway/webfront/record"
)

// lockedBuffer is a file of a test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// until asks again until it is as wanted: accounts are closed when the answer has gone.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

// TestAccount: what is asked is counted and logged, and no secret is.
func TestAccount(t *testing.T) {
	var log lockedBuffer
	book := record.New(&log)
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(book)
	figures := func() string {
		w := httptest.NewRecorder()
		promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
		return w.Body.String()
	}
	w := start(t, webfront.Config{Book: book, Limits: webfront.Limits{Websockets: 1}, Pages: http.NotFoundHandler()})
	w.route("/user/alice", wsEcho(t), `user="alice"`)
	w.route("/cut", backend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = io.WriteString(w, "abc")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	w.send("POST", "/user/alice/a%2Fb?token=s3cret1", strings.NewReader("s3cret2"), "Cookie: session=s3cret3", "Authorization: token s3cret4", "Referer: http://x/?token=s3cret5", "User-Agent: s3cret6")
	w.get("GET", "/shoal/none/"+strings.Repeat("x", 2000))
	w.get("GET", "/none")
	w.get("GET", "/_chp_healthz")
	if res, err := w.client.Get(w.url + "/cut"); err == nil {
		_, _ = io.ReadAll(res.Body) // it is cut off
		res.Body.Close()
	}
	c, _, _ := w.websocket("/user/alice/ws?token=s3cret7", "Sec-WebSocket-Protocol: s3cret8")
	until(t, "no open websocket is counted", func() bool { return strings.Contains(figures(), "shoal_web_websockets_open 1\n") })
	w.websocket("/user/alice/ws")
	c.Close()
	for _, want := range []string{`shoal_web_websockets_open 0`, `shoal_web_refused_total{limit="websockets"} 1`, `shoal_web_requests_open 0`,
		`shoal_web_requests_total{class="2xx",part="server"} 2`, `shoal_web_requests_total{class="1xx",part="server"} 1`, `shoal_web_requests_total{class="4xx",part="pages"} 1`,
		`shoal_web_requests_total{class="4xx",part="server"} 2`, `shoal_web_answer_seconds_count{part="pages"} 1`} {
		until(t, "there is no "+want, func() bool { return strings.Contains(figures(), want+"\n") })
	}
	if strings.Contains(figures(), "alice") {
		t.Error("figures tell users apart: their number has no bound")
	}
	until(t, "lines are missing", func() bool { return strings.Count(log.String(), "\n") == 6 })
	if strings.Contains(log.String(), "s3cret") {
		t.Errorf("a secret is in the access log:\n%s", log.String())
	}
	type line struct {
		Client, Method, Path, Part, Owner string
		Status, Bytes                     int
		Cut                               bool
	}
	var lines []line
	for text := range strings.Lines(log.String()) {
		if len(text) > 2000 {
			t.Errorf("a line has %d bytes", len(text))
		}
		var l line
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		lines = append(lines, l)
	}
	if l := lines[0]; l.Client != "127.0.0.1" || l.Method != "POST" || l.Path != "/user/alice/a%2Fb" || l.Status != 200 || l.Owner != "alice" || l.Part != "server" || l.Bytes == 0 || l.Cut {
		t.Errorf("the first line is %+v", l)
	}
	i := slices.IndexFunc(lines, func(l line) bool { return l.Path == "/cut" }) // its line comes when it is over, beside others
	if i < 0 || !lines[i].Cut || lines[i].Status != 200 {
		t.Errorf("an answer that was cut off is told as number %d of %+v", i, lines)
	}
}
